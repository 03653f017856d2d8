"""What stands in reports/certificate.json, and in its page."""

import json
import math
from dataclasses import replace

from markdown_it import MarkdownIt

from finetune.lineage.commits import Experiment
from finetune.proving import page, telling
from finetune.proving.certificate import Certificate, Origin
from finetune.proving.losses import Losses
from finetune.proving.subject import Subject
from tests.unit.proving.conftest import COMMIT, LOCKED, MACHINE


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the table under a heading of a page, as who opens it sees them."""
    tokens = MarkdownIt().enable("table").parse(text)
    start = next(index for index, token in enumerate(tokens) if token.type == "inline" and token.content == heading)
    end = next((index for index in range(start + 1, len(tokens)) if tokens[index].type == "heading_open"), len(tokens))
    found: list[list[str]] = []
    for token in tokens[start:end]:
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and found:
            found[-1].append(token.content)
    return found


def test_a_proof_of_the_same_says_so_with_each_hash_twice(same: Certificate) -> None:
    told = same.as_dict()
    assert told["verdict"] == "same"
    assert told["first_difference"] is None
    assert told["stages"]["train"]["outs"]["models/train"] == {"first": "22.dir", "second": "22.dir"}
    assert told["steps"]["train"] == {
        "same": True,
        "steps": 64,
        "first_steps": 64,
        "parted_at": None,
        "number": None,
        "first": None,
        "second": None,
        "largest_loss": None,
    }


def test_a_proof_that_parts_names_the_first_stage_step_and_tensor(parted: Certificate) -> None:
    told = parted.as_dict()
    assert told["verdict"] == "differs"
    assert told["first_difference"] == {"stage": "train", "outs": ["models/train", "reports/train.json"], "third_time": "unlike both"}
    assert (told["steps"]["train"]["parted_at"], told["steps"]["train"]["same"]) == (7, False)
    assert told["stages"]["train"]["differences"][0]["largest_at"] == "tensor layers.0.weight"
    assert told["stages"]["dpo"]["outs"]["reports/dpo.json"] == {"first": "45", "second": None}
    assert told["stages"]["dpo"]["first_not_to_be_had"] == ["models/dpo"]
    assert told["causes"] == ["one reason", "another"]


def test_only_the_section_of_the_machine_depends_on_the_machine(same: Certificate) -> None:
    elsewhere = replace(
        same, fingerprint=replace(MACHINE, cpu="another"), origins=None, seconds={name: 2 * value for name, value in same.seconds.items()}
    )
    one, other = same.as_dict(), elsewhere.as_dict()
    assert one.pop("machine") != other.pop("machine")
    assert one == other


def test_the_certificate_is_json_whatever_the_numbers(parted: Certificate) -> None:
    odd = replace(parted, losses={"train": Losses(1, 1, 1, "loss", "nan", "0.5", math.nan)})
    assert json.loads(json.dumps(odd.as_dict(), allow_nan=False))["steps"]["train"]["largest_loss"] == "nan"


def test_what_was_taken_along_is_certified(same: Certificate) -> None:
    subject = Subject(COMMIT, LOCKED, False, Experiment("warm", COMMIT, "ba" * 20), b"diff", ("stages/new.py",))
    told = replace(same, subject=subject, brought={"data/raw/a.jsonl": "12"}, packages=["torch is missing"]).as_dict()
    assert told["experiment"] == {"name": "warm", "baseline": "ba" * 20}
    assert told["dvc_lock"] == {"sha256": subject.lock_sha256, "committed": False}
    assert told["uncommitted"] == {"patch_sha256": subject.patch_sha256, "new_files": ["stages/new.py"]}
    assert (told["brought"], told["packages_not_of_the_lock"]) == ({"data/raw/a.jsonl": "12"}, ["torch is missing"])
    shown = page.write(replace(same, subject=subject, brought={"data/raw/a.jsonl": "12"}))
    sources = dict(rows(shown, "Made from what")[1:])
    assert sources["experiment"] == f"warm, on `{'ba' * 20}`"
    assert sources["in no commit, md5"] == "`data/raw/a.jsonl` `12`"
    assert sources["new file"] == "`stages/new.py`"
    assert sources["dvc.lock, sha256"].endswith(", not committed")


def test_the_page_of_the_same_is_one_table_and_where_it_was_made(same: Certificate) -> None:
    shown = page.write(same)
    assert shown.startswith(
        "# The same bytes again\n\nThe whole pipeline was made again in a clean clone without cache, from commit c0c0c0c0c0c0."
    )
    assert ["train", "`models/train`", "`22.dir`", "`22.dir`", "yes"] in rows(shown, "The same bytes again")
    assert "train: 64 steps, every number of each the same, bit for bit." in shown
    machine = dict(rows(shown, "Made where")[1:])
    assert machine["environment"] == f"`{MACHINE.id}`"
    assert machine["packages"] == "numpy 2.4.6, torch 2.13.0"
    assert machine["seconds"].startswith("96: train 61, ")
    assert machine["first dpo"] == f"run first (`run of dpo`), environment `{MACHINE.id}`"


def test_the_page_of_another_result_says_where_and_why(parted: Certificate) -> None:
    shown = page.write(parted)
    assert "4 of 5 outs are not as dvc.lock records; the first stage that parts is `train`." in shown
    assert ["dpo", "`reports/dpo.json`", "`45`", "nothing", "no"] in rows(shown, "Not the same bytes")
    assert "train: parts at step 7 of 64: loss 0.5 → 0.25. The losses of one step are 0.5 apart at most." in shown
    assert (
        "- `models/train/a.safetensors`: tensor layers.0.weight at [0, 1]: `0.5` → `0.25`; 2 of 9 tensors part, by 0.25 at most\n" in shown
    )
    assert "- `models/dpo`: the first run's bytes can't be had" in shown
    assert "1. one reason\n2. another" in shown


def test_the_page_takes_no_value_for_markup(parted: Certificate) -> None:
    first = parted.stages[0]
    odd = replace(first.differences[0], first="a `b` | c\nd", second=None)
    shown = page.write(replace(parted, stages=[replace(first, differences=(odd,))], brought={"a|b": "12"}))
    assert "`a 'b' | c d` → nothing" in shown
    assert dict(rows(shown, "Made from what")[1:])["in no commit, md5"] == "`a|b` `12`"


def test_chosen_stages_and_unknown_makers_are_told(same: Certificate) -> None:
    origins = {"train": Origin("r1", "first", None, ()), "dpo": Origin("r2", "second", "0123", ("torch: 1 → 2",)), "reference": None}
    shown = page.write(replace(same, whole=False, origins=origins))
    assert "`train`, `reference`, `dpo` was made again" not in shown
    assert "`train`, `reference`, `dpo` were made again" in shown
    machine = dict(rows(shown, "Made where")[1:])
    assert machine["first train"].endswith("of before runs had a fingerprint")
    assert machine["first dpo"].endswith("environment `0123`, which differs: torch: 1 → 2")
    assert machine["first reference"] == "not known to MLflow"
    assert dict(rows(page.write(replace(same, origins=None)), "Made where")[1:])["who made the first"].startswith("not known")


def test_the_summary_is_the_verdict_in_a_few_lines(same: Certificate, parted: Certificate) -> None:
    assert telling.summary(same) == (
        "the same: 5 outs of 3 stages have the bytes that dvc.lock records, and 64 training steps have the same numbers"
    )
    told = telling.summary(parted).splitlines()
    assert told[:3] == [
        "not the same: the first stage that parts is train, with models/train, reports/train.json",
        "  first step: 7, loss 0.5 → 0.25",
        f"  {parted.stages[0].differences[0].file}: {parted.stages[0].differences[0].sentence()}",
    ]
    assert told[3:] == ["likely because:", "  1. one reason", "  2. another"]
