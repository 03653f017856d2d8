"""Refuse to spend anything on settings that were composed from another conf/ than the one at hand. conf/ → nothing

python -m stages.check
"""

import logging

from finetune import paths
from finetune.config.compose import REMEDY, drift
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.errors import ConfigError

log = logging.getLogger(__name__)


@stage("conf_sha")
def main(cfg: Config) -> None:
    """Compare params.yaml with conf/."""
    drifted = drift(cfg.conf_sha, paths.CONF)
    if drifted is not None:
        raise ConfigError("conf/ and params.yaml have parted:", [drifted], REMEDY)
    log.info("params.yaml was composed from conf/ as it is now")


if __name__ == "__main__":
    run(main)
