"""conf/ → params.yaml: composing, checking everything at once, and noticing when the two have parted.

DVC composes conf/ in `dvc exp run` only; `dvc repro` takes params.yaml as it is (treeverse/dvc#10750). So params.yaml carries a
fingerprint of the conf/ it was composed from, and the stage `check` compares.
"""

import difflib
import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune import paths
from finetune.config.schema import Config
from finetune.errors import ConfigError

REMEDY = "run `make params` to take conf/ over into params.yaml, or use `dvc exp run`, which composes it; then try again"


def fingerprint(conf: Path) -> str:
    """sha256 over the names and bytes of all files of conf/, in sorted order."""
    digest = hashlib.sha256()
    for file in sorted(conf.rglob("*.yaml")):
        digest.update(f"{file.relative_to(conf).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def validate(values: Mapping[str, Any]) -> Config:
    """Return the configuration, or raise one ConfigError that names every key that is wrong."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [line for detail in error.errors(include_url=False) for line in _lines(detail)]
        raise ConfigError(f"{len(problems)} setting{'s' * (len(problems) != 1)} refused:", problems) from None


def drift(conf_sha: str, conf: Path = paths.CONF) -> str | None:
    """What to say when params.yaml was not composed from conf/ as it is now; None when it was."""
    now = fingerprint(conf)
    if conf_sha == now:
        return None
    return f"params.yaml was composed from a conf/ with fingerprint {conf_sha[:12]}…, conf/ is now {now[:12]}…"


def write_params(overrides: Sequence[str] = (), root: Path | None = None) -> None:
    """Compose conf/ with the overrides into params.yaml, byte for byte as `dvc exp run` does.

    Raises:
        ConfigError: what Hydra or the schema refuses.
    """
    root = (root or Path.cwd()).resolve()
    _write(root, root / paths.PARAMS, overrides)


def composed(overrides: Sequence[str]) -> Config:
    """Return what conf/ composes to with the overrides, and leave params.yaml as it is. Raises ConfigError, as write_params."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / paths.PARAMS
        _write(Path.cwd(), file, overrides)
        return validate(yaml.safe_load(file.read_text(encoding="utf-8")))


def _write(root: Path, to: Path, overrides: Sequence[str]) -> None:
    from dvc.utils.hydra import compose_and_dump  # 0.5 s, and stages never need it
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        compose_and_dump(to, str(root / paths.CONF), None, "config", str(root), list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        # the plugin's own ConfigError comes wrapped by OmegaConf, which keeps it as the context
        raise (
            error.__context__ if isinstance(error.__context__, ConfigError) else ConfigError("conf/ can't be composed:", [str(error)])
        ) from None


def _lines(detail: ErrorDetails) -> list[str]:
    """`train.r: found 0, expected greater than or equal to 1`, from one of pydantic's errors; several for what doesn't fit together."""
    if detail["type"] != "value_error":
        return [_line(detail)]
    key = ".".join(str(part) for part in _key(detail["loc"]))
    return [f"{key}: {line}" if key else line for line in str(detail["ctx"]["error"]).split("\n")]


def _line(detail: ErrorDetails) -> str:
    *section, name = (str(part) for part in _key(detail["loc"]))
    key = ".".join([*section, name])
    match detail["type"]:
        case "extra_forbidden":
            known = _known(detail["loc"][:-1])
            close = difflib.get_close_matches(name, known, n=1)
            expected = f"; did you mean {'.'.join([*section, *close])}?" if close else f", expected one of {', '.join(known)}"
            return f"{key}: unknown key{expected}"
        case "missing":
            return f"{key}: missing, expected a value"
        case "union_tag_invalid" | "union_tag_not_found":
            tag = detail["ctx"]["discriminator"].strip("'")
            found = f"found {detail['ctx']['tag']!r}" if "tag" in detail["ctx"] else "missing"
            return f"{key}.{tag}: {found}, expected one of {', '.join(map(repr, _members(key)))}"
    expected = re.sub(r"^\w+ should ", "it to ", detail["msg"]).removeprefix("it to be ")
    return f"{key}: found {detail['input']!r}, expected {expected}"


def _key(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The key as people type it: pydantic also names the member of a union, as in ("train", "lora", "r"), and says "[key]"."""
    member = len(location) > 1 and isinstance(location[1], str) and location[1] in _members(str(location[0]))
    typed = (location[0], *location[2:]) if member else location
    return tuple(part for part in typed if part != "[key]")


def _members(section: str) -> dict[str, type[BaseModel]]:
    """The classes that a section may have, by the value of its discriminator; {} where it has one class."""
    field = Config.model_fields.get(section)
    if field is None or not isinstance(field.discriminator, str):
        return {}
    classes = get_args(field.annotation)
    return {tag: cls for cls in classes for tag in get_args(cls.model_fields[field.discriminator].annotation)}


def _known(location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields at a place in the configuration."""
    fields = Config.model_fields
    if location:
        section = str(location[0])
        only = fields[section].annotation
        members = _members(section)
        cls = members[str(location[1])] if members and len(location) > 1 else only
        fields = cls.model_fields if isinstance(cls, type) and issubclass(cls, BaseModel) else {}
    return sorted(fields)
