"""Tell what a run was made from and how good it is. reports/*, data/* → reports/report.md, reports/figures, MLflow

    python -m stages.report

The last stage. Its out is in no cache (dvc.yaml), so DVC never restores it, and MLflow hears of every run, also of one that only reused.
"""

import logging
import os

from finetune import outputs, paths, tracking
from finetune.config.schema import Config
from finetune.config.stage import run, stage
from finetune.fingerprint import Fingerprint
from finetune.reporting import evidence, figures, page, provenance
from finetune.tracking import hashes, origins

DATASETS = {
    "raw": paths.RAW,
    "prepared": paths.PREPARED,
    "sft": paths.FORMATTED / "sft",
    "preference": paths.FORMATTED / "preference",
    "reference": paths.REFERENCE,
}

log = logging.getLogger(__name__)


@stage(
    "seed",
    "threads",
    "instructions",
    "model",
    "data",
    "prepare",
    "format",
    "train",
    "reference",
    "dpo",
    "answer",
    "evaluate",
    "export",
    "launch",
)
def main(cfg: Config) -> None:
    """Draw, write the page, hand everything to MLflow, and wait until it is there; only then the figures take their place.

    DVC takes the stage for done when they are as locked: last, so that it runs again after an interruption anywhere before its end.
    """
    metrics, samples = evidence.read(), outputs.read_jsonl(paths.SAMPLES)
    origin = provenance.origin(hashes.inputs(hashes.read()))
    experiment = os.environ.get("DVC_EXP_NAME") or None

    with outputs.folder(paths.FIGURES) as folder:
        drawn = {title: folder / f"{name}.png" for title, name in page.FIGURES.items()}
        figures.before_after(metrics["evaluate"], cfg.evaluate.confidence, drawn["Before and after"])
        figures.supervised(metrics["train"], drawn["Supervised fine-tuning"])
        figures.preference(metrics["dpo"], drawn["Preference optimisation"])
        figures.lengths(evidence.lengths(), cfg.format.max_length, drawn["Lengths"])

        makers = tracking.made_by()
        environment = Fingerprint.of_this_machine()
        outputs.write_text(paths.REPORT, page.write(cfg, metrics, samples, origin, experiment, environment, makers))
        log.info("%s and %d figures written", paths.REPORT, len(drawn))

        tracking.params(evidence.settings(cfg), on="pipeline")
        tracking.metrics(evidence.numbers(metrics), on="pipeline")
        tracking.tags(_tags(origin), on="pipeline")
        tracking.tags(lambda: origins.tags(cfg, metrics["evaluate"]), on="pipeline")
        for name, path in DATASETS.items():
            tracking.dataset(name, path, on="pipeline")
        for path in (paths.REPORT, paths.SAMPLES, paths.PARAMS, paths.LOCK):
            tracking.artifact(path, on="pipeline")
        for path in drawn.values():
            tracking.artifact(path, folder=paths.FIGURES.name, on="pipeline")
        if origin.dirty:
            tracking.text("uncommitted.diff", origin.diff, on="pipeline")
        tracking.version(cfg.tracking.model or cfg.model.name, paths.EXPORT)
        tracking.finish()


def _tags(origin: provenance.Origin) -> dict[str, str]:
    """Where the run stood in git, the commit under the tag that MLflow shows as the version."""
    if origin.commit is None:
        return {"git.missing": origin.missing}
    names = {"git.differs": origin.differs, "git.untracked": origin.untracked}
    told = {key: ", ".join(found) for key, found in names.items() if found}
    return {"mlflow.source.git.commit": origin.commit, "git.dirty": str(origin.dirty).lower(), **told}


if __name__ == "__main__":
    run(main)
