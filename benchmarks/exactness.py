"""Whether the pipeline gives the same bytes wherever, by whom and however it is started: experiment=tiny under all pairs of circumstances.

clone     always a fresh one: at this place, or elsewhere, two folders deep, with a blank in the name of one
seed      PYTHONHASHSEED
cores     how many of them the processes may use
place     LC_ALL and TZ; `C` has no UTF-8, Turkish lower-cases I to another letter than English
user      other: without the rights of this one where that can be had (setpriv, as root), with a home and a umask of its own everywhere
starter   what runs the stages, in the workspace or in DVC's temporary copy

A row has every circumstance once; the rows together have each value of one with each value of another. Each begins without DVC's cache, and
every stage must have run. Hashes are those of dvc.lock, the workspace's or that of the experiment's commit;
benchmarks/results/exactness.jsonl has each row's.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations, product
from pathlib import Path
from typing import Any

import yaml

from benchmarks.record import RESULTS, Samples
from benchmarks.watching import call, clone_at
from finetune import outputs
from finetune.errors import SetupError
from finetune.progress import progress

LOADED = ("stages", "hydra_plugins")  # DVC runs every stage, and Hydra loads the plugins
FACTORS = {
    "clone": ("this", "elsewhere"),
    "seed": ("0", "1", "random"),
    "cores": ("1", "2"),
    "place": ("C.UTF-8 UTC", "C NPT-5:45", "tr_TR.UTF-8 NST3:30"),
    "user": ("this", "other"),
    "starter": ("repro", "exp run", "exp run --temp", "exp run --queue"),
}
SETTINGS = ("experiment=tiny", "tracking=off")
PLACES = {"this": "this", "elsewhere": "some where/else"}
LOCALES = "locales"
NOBODY = "65534"
NAME = "exactness"
IDENTITY = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "x"), ("EMAIL", "x@example.org"))}

Row = Mapping[str, str]
Hashes = dict[str, str]


def measure(root: Path) -> Samples:
    """Run every row, or take it from an attempt at the same commit that was interrupted."""
    rows = covering(FACTORS)
    kept = root / ".cache" / "exactness" / commit(root)
    with shared_folder() as scratch:
        for row in progress(rows, "running the pipeline", unit="runs"):
            if not (file := kept / f"{label(row)}.json").is_file():
                outputs.write_json(file, hashes(root, scratch, row))
        found = [outputs.read_json(kept / f"{label(row)}.json") for row in rows]
    outputs.write_jsonl(root / RESULTS / "exactness.jsonl", ({**row, "outs": each} for row, each in zip(rows, found, strict=True)))
    shutil.rmtree(kept)
    return results(rows, found)


def covering(factors: Mapping[str, Sequence[str]]) -> list[Row]:
    """Rows that have every pair of values of two factors; few, because each is one with the most pairs that were missing."""
    rows = product_of(factors)
    left = set().union(*map(pairs, rows))
    chosen: list[Row] = []
    while left:
        chosen.append(max(rows, key=lambda row: len(left & pairs(row))))
        left -= pairs(chosen[-1])
    return chosen


def product_of(factors: Mapping[str, Sequence[str]]) -> list[Row]:
    """Every value of each factor with every value of all others."""
    return [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]


def pairs(row: Row) -> set[Any]:
    """Every two values that a row has together, each with its factor."""
    return set(combinations(row.items(), 2))


def label(row: Row) -> str:
    """A row in words, which are also the name of a file."""
    return ", ".join(f"{name} {value}" for name, value in row.items())


def hashes(root: Path, scratch: Path, row: Row, settings: Sequence[str] = SETTINGS) -> Hashes:
    """Path → md5 of every out, of a run under the circumstances of a row.

    Raises:
        SetupError: a command failed, or a stage did not run.
    """
    place = scratch / PLACES[row["clone"]]
    shutil.rmtree(place, ignore_errors=True)
    with clone_at(place / "finetune", root) as clone:
        before = circumstances(scratch, clone, row)
        printed = "".join(call(clone, *before, *command).output for command in commands(row["starter"], settings))
        stages = call(clone, *before, "dvc", "stage", "list", "--name-only").output.split()
        missed = [stage for stage in stages if stage != "check" and f"Running stage '{stage}'" not in printed]
        if missed:  # the committed dvc.lock may have check, which has no outs
            raise SetupError(f"{label(row)}: these stages did not run:", missed)
        return outs(lock(clone, before, row["starter"]))


def commands(starter: str, settings: Sequence[str]) -> list[list[str]]:
    """What a user types, and with a queue the command that shows what its worker printed."""
    if starter == "repro":
        return [["python3", "-m", "finetune", "params", *settings], ["dvc", "repro"]]
    run = ["dvc", *starter.split(), "--name", NAME, *(word for setting in settings for word in ("-S", setting))]
    queue = [["dvc", "exp", "run", "--run-all", "--jobs", "1"], ["dvc", "queue", "logs", NAME]]
    return [run, *queue] if starter.endswith("--queue") else [run]


def circumstances(scratch: Path, clone: Path, row: Row) -> list[str]:
    """The words before a command that put it under the circumstances of a row; its clone and a home become the user's."""
    language, zone = row["place"].split()
    home = Path.home() if row["user"] == "this" else Path(tempfile.mkdtemp(prefix="home-", dir=scratch))
    variables = {
        **IDENTITY,
        "PYTHONHASHSEED": row["seed"],
        "LC_ALL": language,
        "LOCPATH": str(scratch / LOCALES),
        "TZ": zone,
        "HOME": str(home),
        "DVC_SITE_CACHE_DIR": tempfile.mkdtemp(prefix="site-", dir=scratch),  # else DVC remembers hashes of files by their place
    }
    cores = sorted(os.sched_getaffinity(0))[: int(row["cores"])]
    if len(cores) < int(row["cores"]):
        raise SetupError("too few cores:", [f"found {len(cores)}, expected {row['cores']}"], "measure where the processes may use two")
    words = ["taskset", "--cpu-list", ",".join(map(str, cores)), "env", *(f"{name}={value}" for name, value in variables.items())]
    if row["user"] == "other":
        words += ["sh", "-c", 'umask 077 && exec "$@"', "sh"]
        if os.geteuid() == 0:
            subprocess.run(["chown", "--recursive", NOBODY, str(clone), str(home), variables["DVC_SITE_CACHE_DIR"]], check=True)
            words += ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    return words


def lock(clone: Path, before: Sequence[str], starter: str) -> str:
    """The text of the dvc.lock that a run left: in the workspace, or in the commit that DVC made of an experiment."""
    if starter in ("repro", "exp run"):
        return (clone / "dvc.lock").read_text(encoding="utf-8")
    references = call(clone, *before, "git", "for-each-ref", "--format=%(refname)", "refs/exps").output.split()
    (reference,) = [name for name in references if name.endswith(f"/{NAME}")]
    return call(clone, *before, "git", "show", f"{reference}:dvc.lock").output


def outs(text: str) -> Hashes:
    """Path → md5 of every out in a dvc.lock."""
    stages = yaml.safe_load(text)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", ())}


def results(rows: Sequence[Row], found: Sequence[Hashes]) -> Samples:
    """How many sets of hashes there were, of how many outs each, and which row had which set."""
    texts = [json.dumps(each, sort_keys=True) for each in found]
    sets = list(dict.fromkeys(texts))
    paths = set().union(*found)
    return {
        "sets": [len(sets)],
        "rows": [len(rows)],
        "untried": [len(set().union(*map(pairs, product_of(FACTORS))) - set().union(*map(pairs, rows)))],
        "outs": [len(each) for each in found],
        "differing": [sum(len({each.get(path) for each in found}) > 1 for path in paths)],
        **{label(row): [sets.index(text)] for row, text in zip(rows, texts, strict=True)},
    }


def commit(root: Path) -> str:
    """What is checked out."""
    return subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Yield a folder that another user can enter, with a Turkish locale in it where one can be made; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="finetune-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        (folder / LOCALES).mkdir()
        command = ["localedef", "--inputfile=tr_TR", "--charmap=UTF-8", str(folder / LOCALES / "tr_TR.UTF-8")]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            raise SetupError("no Turkish locale could be made:", ["found no localedef with its sources"], "sudo apt install locales")
        yield folder
