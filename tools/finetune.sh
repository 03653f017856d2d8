#!/bin/sh
# Installed as .venv/bin/finetune: runs `python -m finetune` of the repository that the current folder is in, with this environment's Python.
python="$(dirname "$(readlink -f "$0")")/python"
folder=$PWD
until [ -f "$folder/dvc.yaml" ] && [ -f "$folder/finetune/__main__.py" ]; do
    if [ "$folder" = / ]; then
        echo "finetune: neither $PWD nor a folder above it is a repository of this project (with dvc.yaml and finetune/); cd into one" >&2
        exit 2
    fi
    folder=$(dirname "$folder")
done
cd "$folder" && exec "$python" -m finetune "$@"
