"""Sources → checked records, split; why the others went. data/raw or the embedded data → data/prepared, reports/prepare.json

python -m stages.prepare data.train=800
"""

import logging

from finetune import outputs, paths, tracking
from finetune.config.data import SmartHome
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.data import contract, files, smart_home
from finetune.data.gathering import Gathering

log = logging.getLogger(__name__)


@stage("data", "prepare")
def main(cfg: Config) -> None:
    """Write the records of every split, and those that were left out or changed, each with the rule."""
    with Gathering() as gathering:
        if isinstance(cfg.data, SmartHome):
            smart_home.gather(gathering, cfg.data)
        else:
            files.gather(gathering, cfg.data, cfg.prepare.processes)
        kept = contract.settle(gathering, cfg.data, cfg.prepare)
        contract.refuse_contaminated(gathering, kept, cfg.data.quality)
        contract.refuse_empty(gathering, kept)
        sizes = kept.sizes(gathering)
        contract.refuse_few(sizes["sft"]["train"], cfg.prepare)
        with outputs.folder(paths.PREPARED) as folder:
            slices = contract.write(gathering, kept, folder)

    total = sum(count for splits in sizes.values() for count in splits.values())
    report = {
        "read": gathering.read.total(),
        "kept": total,
        "rejected": dict(gathering.refused),
        "changed": dict(gathering.changed),
        "personal": dict(gathering.personal),
        "merged": gathering.merged,
        "conflicts": kept.conflicts,
        "splits": sizes,
        "slices": slices,
        "license": cfg.data.license,
    }
    outputs.write_json(paths.metrics("prepare"), report)
    tracking.metrics({"read": gathering.read.total(), "kept": total, "conflicts": kept.conflicts})
    for what, counts in (("rejected", gathering.refused), ("changed", gathering.changed), ("personal", gathering.personal)):
        tracking.metrics({f"{what}/{rule}": count for rule, count in counts.items()})
    for line in contract.told(gathering, kept):
        log.info("%s", line)


if __name__ == "__main__":
    run(main)
