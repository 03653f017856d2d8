"""A proof as it goes, and what is left of it: lines on the terminal, reports/certificate.json and .md, and word to MLflow."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from finetune import outputs, paths, tracking
from finetune.proving import page
from finetune.proving.certificate import Certificate, Made
from finetune.proving.remaking import Moment

CERTIFICATE = paths.REPORTS / "certificate.json"
PAGE = paths.REPORTS / "certificate.md"
Tell = Callable[[Moment, Made | None], None]
WIDTH = 90  # characters of a stage's last line that are shown


@contextmanager
def stages(console: Console) -> Iterator[Tell]:
    """Yield what hears of each stage: one line when it is done, and on a terminal what it does meanwhile."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("DVC", total=None)
        done: set[str] = set()

        def tell(moment: Moment, made: Made | None) -> None:
            if moment.seconds is None:
                if not moment.line:
                    progress.reset(task)
                progress.update(task, description=escape(f"{moment.stage}  {moment.line}"[:WIDTH]))
                return
            again = "made a third time" if moment.stage in done else _verdict(made)
            done.add(moment.stage)
            progress.console.print(f"  {moment.stage:<14}{moment.seconds:>8.1f} s  {again}", markup=False)

        yield tell


def write(certificate: Certificate) -> None:
    """Write the certificate and its page to reports/, which no stage owns there."""
    outputs.write_json(CERTIFICATE, certificate.as_dict())
    outputs.write_text(PAGE, page.write(certificate))


def track(certificate: Certificate) -> None:
    """Have MLflow know: the certificate with this run, and a word on each run whose outs were proved, and on their pipelines."""
    verdict = "same" if certificate.same else "differs"
    tracking.tags({"proof": verdict, "mlflow.source.git.commit": certificate.subject.commit, **_first(certificate)}, on="pipeline")
    tracking.metrics({f"seconds.{name}": value for name, value in certificate.seconds.items()})
    for path in (CERTIFICATE, PAGE):
        tracking.artifact(path, on="pipeline")
    if certificate.subject.patch:
        tracking.text("uncommitted.diff", certificate.subject.patch.decode(errors="surrogateescape"), on="pipeline")
    for made in certificate.stages:
        origin = certificate.origins.get(made.name) if certificate.origins else None
        if origin is not None and made.first.outs:
            tracking.note(origin.run, {"proof": "same" if made.same else "differs"})
    tracking.finish()


def summary(certificate: Certificate) -> str:
    """The verdict in a few lines."""
    outs = sum(len(stage.first.outs) for stage in certificate.stages)
    if certificate.same:
        steps = sum(losses.steps for losses in certificate.losses.values() if losses.same)
        told = f", and {steps:,} training steps have the same numbers" if steps else ""
        return f"the same: {outs} outs of {len(certificate.stages)} stages have the bytes that dvc.lock records{told}"
    first = certificate.parting[0]
    lines = [f"not the same: the first stage that parts is {first.name}, with {', '.join(first.parting)}"]
    losses = certificate.losses.get(first.name)
    if losses is not None and losses.parted_at is not None:
        lines.append(f"  first step: {losses.parted_at}, {losses.number} {losses.first} → {losses.second}")
    lines += [f"  {difference.file}: {difference.sentence()}" for difference in first.differences]
    lines += ["likely because:", *(f"  {number}. {cause}" for number, cause in enumerate(certificate.causes, 1))]
    return "\n".join(lines)


def _verdict(made: Made | None) -> str:
    if made is None:
        return "not recorded"
    if not (made.first.outs or made.second.outs):
        return "has no outs"
    return "the same" if made.same else f"differs: {', '.join(made.parting)}"


def _first(certificate: Certificate) -> dict[str, str]:
    return {} if certificate.same else {"proof.first_difference": certificate.parting[0].name}
