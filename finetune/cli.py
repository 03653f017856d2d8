"""The command line beside dvc and mlflow: `finetune check`, `finetune diff`, `finetune lineage`, `finetune prove` and others."""

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from finetune import backups, environment, paths, tracking
from finetune.config import compose
from finetune.config.schema import Config, Tracking
from finetune.errors import ConfigError, FinetuneError, SetupError

DIFFERS, UNMADE, INTERRUPTED = 1, 2, 130  # exit statuses of `prove` and `reproduce`
WIDE = 1_000  # characters a line, where no terminal has to show it
FLUSH = 60.0  # seconds that `ui` waits for what earlier runs left

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Tune a base model on your records, and keep the evidence.")
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow on this machine alone, with all that was tracked."""
    uri = tracking.address(_settings().tracking, paths.home())
    unsent = tracking.flush(paths.home(), FLUSH)
    if unsent is not None:
        err.print(unsent, markup=False)
    if uri.startswith("http"):
        out.print(f"MLflow is at {uri}")
        return
    out.print(f"MLflow is at http://127.0.0.1:{port} until Ctrl-C")
    # without jobs and with one worker it is 2 processes and 0.5 GB, instead of 10 and 2.4 GB
    light = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    options = {"--backend-store-uri": uri, "--host": "127.0.0.1", "--port": str(port), "--workers": "1"}
    words = [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]
    os.execve(sys.executable, words, {**os.environ, **light})


@app.command()
def params(
    overrides: Annotated[list[str] | None, typer.Argument(help="As after `dvc exp run -S`: train=qlora train.r=32")] = None,
) -> None:
    """Compose conf/ into params.yaml, which `dvc repro` reads."""
    compose.write_params(overrides or [])
    out.print(f"{paths.PARAMS} is what {paths.CONF}/ composes to")


@app.command()
def check(
    overrides: Annotated[list[str] | None, typer.Argument(help="As after `dvc exp run -S`: experiment=business; none: params.yaml")] = None,
    megabytes: Annotated[int, typer.Option(min=1, help="Of each source of data that are tried.")] = 4,
) -> None:
    """Say in seconds what would spoil a run: drifted settings, packages that are not the lock's, records that would be refused.

    It also says when the newest models have no copy elsewhere, which spoils nothing."""
    settings = compose.composed(overrides) if overrides else _settings()
    drifted = compose.drift(settings.conf_sha)
    if drifted is not None:
        raise ConfigError("conf/ and params.yaml have parted:", [drifted], compose.REMEDY)
    lock = environment.lock_that_applies(Path.cwd())
    different = environment.locked_differences(lock)
    if different:
        raise SetupError(f"the environment is not that of {lock.name}:", different, "run `make setup`")
    out.print(f"settings were composed from {paths.CONF}/ as it is now, packages are those of {lock.name}")
    if (uncopied := backups.remark()) is not None:
        out.print(uncopied, markup=False)

    from finetune.rehearsal import rehearse  # 3 s of imports, which the other commands are spared

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    refused, whole = rehearse(settings, megabytes)
    tried = "all records were tried" if whole else f"tried on the first {megabytes} MB of each source"
    if refused:
        raise FinetuneError("\n".join(["a full run would be refused:", *map(str, refused), f"({tried})"]))
    out.print(f"prepare and format would refuse nothing ({tried})")


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="A revision of git, an experiment, `workspace`, or a run in MLflow (name or id).")] = "HEAD",
    b: Annotated[str, typer.Argument(help="Likewise.")] = "workspace",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare two runs: settings, data, code, environment, and scores with how much of their difference is chance."""
    from finetune.comparing import differences, tables, versions  # read only here, as what they import
    from finetune.comparing.repository import Repository
    from finetune.comparing.tracked import Tracked

    tracked = Tracked(_tracking(), paths.home())
    with Repository(Path.cwd()) as repository:
        one, other = (versions.find(name, repository, tracked) for name in (a, b))
        found = differences.compare(one, other, repository, tracked)
        if as_json:
            typer.echo(json.dumps(found.as_dict(), indent=2))
        else:
            tables.show(found, Console(highlight=False))


def _tracking() -> Tracking | None:
    """Where MLflow is, by params.yaml as it lies, which may be of an older form; None where tracking is off, or it does not say."""
    found = _params() if paths.PARAMS.is_file() else None
    named = found.get("tracking") if isinstance(found, dict) else None
    if not isinstance(named, dict) or named.get("enabled") is not True or not {"uri", "experiment"} <= set(named):
        return None
    return Tracking.model_construct(**named)


@app.command()
def lineage(
    subject: Annotated[str, typer.Argument(help="tiny/3, tiny@champion, a run's name or id, a file, an md5 or a sha256")],
    as_json: Annotated[bool, typer.Option("--json", help="For a machine; hashes in full, and every setting.")] = False,
) -> None:
    """Trace a model back to commit, settings, data and base weights; and a raw file on to all models that it went into."""
    from finetune.lineage import ancestry, offspring, records, tree  # the other commands need none of it
    from finetune.lineage.subject import Bytes, named
    from finetune.tracking import spool

    root = Path.cwd()
    known = records.opened(tracking.address(_settings().tracking, paths.home()))
    if unsent := len(spool.waiting(paths.home())):
        err.print(f"{unsent} run{'s' * (unsent != 1)} of stages not in MLflow yet, so not in this answer", markup=False)
    found = named(subject, known, root)
    descent = offspring.of(found, known) if isinstance(found, Bytes) else None
    traced = None if isinstance(found, Bytes) and found.read else ancestry.of(found, subject, known, root)
    if as_json:
        whole = {name: part.as_dict() for name, part in (("offspring", descent), ("ancestry", traced)) if part is not None}
        print(json.dumps(whole, indent=2, ensure_ascii=False))
        return
    page = out if out.is_terminal else Console(width=WIDE, highlight=False)
    for shown in (tree.offspring(descent) if descent else None, tree.ancestry(traced) if traced else None):
        if shown is not None:
            page.print(shown)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="tiny/3, or tiny@candidate")],
    without_gates: Annotated[bool, typer.Option("--without-gates", help="Although nothing was asked of its scores.")] = False,
) -> None:
    """Make a model version the champion: refused unless it passed its gates, comes from a commit, and is wholly there."""
    from finetune import promoting  # the other commands need none of it
    from finetune.lineage import records, subject

    uri = tracking.address(_settings().tracking, paths.home())
    known = records.opened(uri)
    out.print(promoting.promote(subject.model_version(version, known), known, uri, Path.cwd(), without_gates), markup=False)


@app.command()
def reproduce(
    subject: Annotated[str, typer.Argument(help="tiny/3, tiny@champion, a run's name or id")],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the clone, with all that was made in it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine.")] = False,
) -> None:
    """Make a recorded run again in a clean clone, and compare every out. Exit status: 0 the same, 1 not, 2 it could not be made."""
    with _making_again():
        from finetune import reproducing  # the other commands need none of it
        from finetune.lineage import records
        from finetune.lineage.subject import Bytes, named
        from finetune.reproducing.recorded import recorded

        known = records.opened(tracking.address(_settings().tracking, paths.home()))
        found = named(subject, known, Path.cwd())
        if isinstance(found, Bytes):
            found = known.runs([found.runs[0].id])[found.runs[0].id] if found.runs else found.versions[0]
        run = recorded(found, known)
        made = reproducing.reproduce(run, Path.cwd(), lambda line: err.print(line, markup=False), keep)
        if as_json:
            print(json.dumps(made.as_dict(), indent=2))
        else:
            for line in reproducing.sentences(made):
                out.print(line, markup=False)
    raise typer.Exit(0 if made.same else DIFFERS)


@app.command()
def prove(
    stages: Annotated[list[str] | None, typer.Argument(help="Of dvc.yaml, such as train dpo; none: the whole pipeline.")] = None,
    rev: Annotated[str | None, typer.Option(help="A commit or an experiment; none: what lies in the folder.")] = None,
    dirty: Annotated[bool, typer.Option("--dirty", help="Take uncommitted changes along, and say so.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no network: neither a DVC remote nor the hub.")] = False,
    third: Annotated[bool, typer.Option(help="Make the first stage that parts a third time, which tells whether it is exact here.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print reports/certificate.json.")] = False,
) -> None:
    """Make it all again in a clean clone, and compare every byte. Exit status: 0 the same, 1 not, 2 it could not be made."""
    with _making_again():
        settings = _settings()
        from finetune import proving  # 3 s of imports, which the other commands are spared
        from finetune.proving import telling
        from finetune.proving.repository import Repository
        from finetune.proving.subject import find

        if rev is not None and dirty:
            raise ConfigError("nothing to prove:", ["--rev names a commit, and --dirty what is in none; found both"], "give one of them")
        repository = Repository(Path.cwd())
        subject = find(repository, rev, dirty)
        err.print(f"making {' '.join(stages) if stages else 'the whole pipeline'} again, from {subject}", markup=False)
        with telling.stages(err) as tell:
            certificate = proving.prove(repository, subject, stages or [], tell, settings, offline, third)
        err.print(f"{telling.summary(certificate)}\n{telling.CERTIFICATE} and {telling.PAGE.name} have it all", markup=False)
        if as_json:
            out.print(telling.CERTIFICATE.read_text(encoding="utf-8"), markup=False, end="")
    raise typer.Exit(0 if certificate.same else DIFFERS)


@contextmanager
def _making_again() -> Iterator[None]:
    """Within the block SIGTERM and a closed terminal are Ctrl-C, by which a clone is removed; what can't be made has a status of its own.

    So has what nobody foresaw: Python's own, 1, would be the verdict that it is not the same.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else nohup started it
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        yield
    except FinetuneError as error:
        err.print(str(error), markup=False)
        raise typer.Exit(UNMADE) from None
    except KeyboardInterrupt:
        err.print("interrupted; the clone is removed, and nothing of the folder was changed")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        err.print(f"{traceback.format_exc()}it could not be made, for a reason that nobody foresaw: {error!r}", markup=False)
        raise typer.Exit(UNMADE) from None


def _settings() -> Config:
    """params.yaml, checked."""
    if not paths.PARAMS.is_file():
        found = f"found no {paths.PARAMS} in {Path.cwd()}"
        raise SetupError("no settings here:", [found], "cd to the root of the repository, or run `make params` there")
    return compose.validate(_params())


def _params() -> Any:
    """What params.yaml holds. Raises ConfigError: it is no YAML."""
    try:
        return yaml.safe_load(paths.PARAMS.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("settings can't be read:", [f"{paths.PARAMS}: {error}"], "compose them again: `make params`") from None


def main() -> None:
    """Run a command; what a user can mend is said without a traceback."""
    try:
        app()
    except FinetuneError as error:
        err.print(str(error), markup=False)
        sys.exit(1)
