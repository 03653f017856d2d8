"""DVC's cache of this repository: which recorded bytes are still there."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from finetune.errors import SetupError
from finetune.tracking import hashes


def folder(root: Path) -> Path:
    """Where the cache is; DVC says it, because it may be shared and lie anywhere.

    Raises:
        SetupError: DVC doesn't know either.
    """
    asked = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], cwd=root, capture_output=True, text=True, check=False)
    if asked.returncode:
        raise SetupError("DVC can't say where its cache is:", [asked.stderr.strip()], "mend .dvc/config, and run the same command again")
    return root / asked.stdout.strip() / "files" / "md5"


def kept(cache: Path, digest: str) -> Path:
    """Where the bytes of this md5 are, if they are there."""
    return cache / digest[:2] / digest[2:]


def listed(cache: Path, digest: str) -> dict[str, str] | None:
    """Path → md5 of the files of a folder; None where its listing is gone.

    Raises:
        SetupError: the listing is damaged.
    """
    listing = kept(cache, digest)
    try:
        return {file["relpath"]: file["md5"] for file in json.loads(listing.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        found = f"{listing}: found no list of files ({error}), expected what DVC wrote there"
        raise SetupError("DVC's cache is damaged:", [found], "remove that file, and bring it again: `dvc fetch`, or `dvc repro`") from None


def missing(cache: Path, outs: Mapping[str, str]) -> list[str]:
    """Outs, or files of them, whose bytes are gone; outs: path → md5, as in dvc.lock."""
    gone = []
    for path, digest in outs.items():
        files = listed(cache, digest) if digest.endswith(".dir") else {"": digest}
        if files is None:
            gone.append(path)
        else:
            gone += [f"{path}/{name}".rstrip("/") for name, md5 in files.items() if not kept(cache, md5).is_file()]
    return gone


def spoiled(cache: Path, path: str, digest: str) -> list[str]:
    """Files of a folder whose bytes in the cache are not those of their name; the disk or somebody's editor did that."""
    files = listed(cache, digest) or {}
    return [f"{path}/{name}" for name, md5 in files.items() if kept(cache, md5).is_file() and hashes.md5(kept(cache, md5)) != md5]


def folders_with(cache: Path, digest: str) -> list[str]:
    """md5 of the folders that hold a file of this md5, the newest first, by the listing that DVC keeps of each."""
    listings = [path for path in cache.glob("??/*.dir") if digest in path.read_text(encoding="utf-8", errors="replace")]
    return [path.parent.name + path.name for path in sorted(listings, key=lambda path: -path.stat().st_mtime)]
