"""`python -m finetune …`, which .venv/bin/finetune runs in the repository of the current folder."""

from finetune.cli import main

main()
