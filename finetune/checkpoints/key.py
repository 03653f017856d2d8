"""What determines the result of a stage, as one hash: settings, inputs, code, environment, number of processes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import finetune
from finetune.config.schema import UNRELATED, Config, Model
from finetune.fingerprint import Fingerprint
from finetune.outputs import sha256
from finetune.training import world

CODE = Path(finetune.__file__).parents[1]
DIGITS = 16


def key(cfg: Config, inputs: Sequence[Path]) -> str:
    """Return 16 hex digits. cfg: as the stage got it, its own sections alone; the base model is in them by its revision and sha256.

    All modules count, not only those that the stage imports: a few too many cost a start from the beginning, one too few a wrong result.

    inputs: files and folders that the stage reads.
    """
    settings = cfg.model_dump(mode="json", exclude=set(UNRELATED))
    code = [file for folder in ("finetune", "stages") for file in sorted((CODE / folder).rglob("*.py"))]
    parts = [
        json.dumps(settings, sort_keys=True),
        *(f"{file.relative_to(CODE).as_posix()} {sha256(file)}" for file in code),
        *(f"{file.as_posix()} {sha256(file)}" for path in inputs for file in _files(path)),
        *(f"{file.relative_to(cfg.model.path).as_posix()} {sha256(file)}" for file in _beside_weights(cfg.model)),
        Fingerprint.of_this_machine(CODE).id,
        _card(cfg.model),
        str(world.size()),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGITS]


def _beside_weights(model: Model) -> list[Path]:
    """Configuration and tokenizer of a base model in a folder, which its sha256 doesn't cover."""
    return [file for file in _files(Path(model.path)) if file.suffix != ".safetensors"] if model.source == "local" else []


def _card(model: Model) -> str:
    """The GPU at work: the fingerprint has all that the machine has, which may be of two kinds."""
    if model.device == "cpu":
        return ""
    import torch  # only where it is needed anyway: a stage that computes nothing has no device but the CPU

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
