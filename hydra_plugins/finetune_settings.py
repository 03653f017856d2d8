"""What Hydra loads when DVC composes conf/: the fingerprint of conf/, and the check of every setting before anything runs.

DVC puts the root of the repository on sys.path (`hydra.plugins_path`) and Hydra imports every module of `hydra_plugins`.
"""

from pathlib import Path
from typing import Any, Literal, cast, get_origin

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from finetune.config.compose import fingerprint, validate
from finetune.config.schema import Config

CONF = Path(__file__).resolve().parents[1] / "conf"


def conf_sha(*, _root_: DictConfig) -> str:
    """Resolve `${conf_sha:}` to the fingerprint of conf/, having checked the whole configuration around it."""
    sha = fingerprint(CONF)
    values = DictConfig(OmegaConf.to_container(_root_))
    values.pop("hydra", None)
    values.conf_sha = sha
    validate(cast(dict[str, Any], OmegaConf.to_container(values, resolve=True)))
    return sha


OmegaConf.register_new_resolver("conf_sha", conf_sha, replace=True)

# Sections open to unknown keys at first, so that Hydra doesn't stop at the first one: `validate` names them all at once.
sections = {
    name: DictConfig({}, flags={"struct": False})
    for name, field in Config.model_fields.items()
    if field.annotation not in (int, str) and get_origin(field.annotation) is not Literal
}
ConfigStore.instance().store(name="sections", node=DictConfig(sections))
