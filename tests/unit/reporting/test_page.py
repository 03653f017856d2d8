"""The page has the scores, where everything came from, and how to make it again."""

import re
from typing import Any

import pytest
from markdown_it import MarkdownIt

from finetune.fingerprint import Fingerprint
from finetune.reporting import page
from finetune.reporting.provenance import Origin
from tests.conftest import Compose

CLEAN = Origin("0123abc")
HERE = Fingerprint(
    cpu="AMD EPYC (family 26, model 2)",
    instructions="AVX2",
    gpu=None,
    driver=None,
    libc="glibc 2.36",
    python="3.11.7",
    libraries={"numpy": "2.4.6", "torch": "2.13.0+cpu"},
    lock={"name": "requirements.lock", "sha256": "b9" * 32},
)
HOSTILE = "```\n\n# heading\r\n~~~\u2028</code></pre><script>alert(1)</script> | a | [b](javascript:c) `d` &lt; \x1b[31m"


def sample(prompt: str = "is tower fan on", said: str = "{}", where: str = "new_home", dpo: str = "right") -> dict[str, Any]:
    """A line of reports/samples.jsonl."""
    verdicts = {"base": "not JSON", "train": "wrong", "dpo": dpo}
    return {"slice": where, "prompt": prompt, "expected": said, **dict.fromkeys(verdicts, said), "verdicts": verdicts}


@pytest.fixture
def written(compose: Compose, metrics: dict[str, Any]) -> str:
    makers: dict[str, Any] = {
        "train": {"run": "f" * 32, "name": "puffy-daks", "here": False, "environment": HERE.id, "differences": []},
        "format": {"run": "e" * 32, "name": "old-mare", "here": False, "environment": "0" * 12, "differences": ["cpu: A → B", "x: 1 → 2"]},
        "prepare": {"run": "d" * 32, "name": "grey-mare", "here": False, "environment": None, "differences": []},
        "dpo": {"run": "a" * 32, "name": "x", "here": True, "environment": HERE.id, "differences": []},
        "check": None,
    }
    return page.write(compose(), metrics, [sample()], Origin("0123abc", diff="+r: 32"), "salty-soup", HERE, makers)


def test_every_model_has_a_row_for_every_slice(written: str) -> None:
    assert "| seen | base | 150 | 0.0 % (0.0 to 7.0) | 0.0 % | 0.0 % |" in written
    assert "| new phrasing | dpo | 60 | 42.0 % (31.0 to 53.0) | 99.0 % | 70.5 % |" in written
    assert len(re.findall(r"^\| (?:seen|new \w+) \|", written, flags=re.MULTILINE)) == 9
    assert "+1.400 (+1.120 to +1.680)" in written


def test_it_shows_answers_side_by_side(written: str) -> None:
    assert "prompt    new home      is tower fan on\nexpected                {}\nbase      not JSON      {}\n" in written


def test_whatever_a_model_says_stays_in_its_block(compose: Compose, metrics: dict[str, Any]) -> None:
    samples = [sample(HOSTILE, HOSTILE * times) for times in (1, 40)]
    tokens = MarkdownIt().parse(page.write(compose(), metrics, samples, CLEAN, None, HERE, None))
    blocks = [token.content for token in tokens if token.type == "fence" and token.info == "text"]
    assert [block.count("prompt  ") for block in blocks] == [1, 1]
    assert all("``` # heading ~~~ </code></pre><script>alert(1)</script> | a |" in block for block in blocks)
    assert "heading" not in "".join(token.content for token in tokens if token.content not in blocks)
    assert all(char.isprintable() or char == "\n" for block in blocks for char in block)


def test_a_long_answer_is_wrapped_and_cut_and_an_empty_one_named(compose: Compose, metrics: dict[str, Any]) -> None:
    written = page.write(
        compose(), metrics, [sample(said="word " * 1000), sample(said="x" * 5000), sample(said="\n")], CLEAN, None, HERE, None
    )
    blocks = re.findall(r"```text\n(.*?)\n```", written, flags=re.DOTALL)
    assert [block.count("…") for block in blocks] == [4, 4, 0]
    assert max(len(line) for block in blocks for line in block.splitlines()) <= page.WIDTH
    assert blocks[2].count("(nothing)") == 4


def test_each_kind_of_outcome_is_shown_before_a_second_of_any(compose: Compose, metrics: dict[str, Any]) -> None:
    samples = [sample(str(number)) for number in range(20)] + [sample("worse", dpo="wrong"), sample("elsewhere", where="seen")]
    written = page.write(compose(), metrics, samples, CLEAN, None, HERE, None)
    assert re.findall(r"^prompt    .{14}(\w+)$", written, flags=re.MULTILINE) == [*"01234567", "worse", "elsewhere"]


def test_it_shows_every_picture(written: str) -> None:
    assert re.findall(r"\]\((figures/\w+\.png)\)", written) == [f"figures/{name}.png" for name in page.FIGURES.values()]


def test_it_tells_what_was_rejected_or_changed_and_why(written: str) -> None:
    assert "Read 1,000 records, kept 970, of which 3 were changed, rejected 30. 2 prompts have several answers." in written
    for row in ("| duplicate | 25 |", "| personal data masked | 3 |", "| mail address | 4 |"):
        assert row in written


def test_it_says_which_gates_were_passed(compose: Compose, metrics: dict[str, Any], written: str) -> None:
    assert "No gates are set" in written
    checks = {key: {"found": 0.79, "expected": asked, "passed": asked < 0.79} for key, asked in (("dpo.a", 0.5), ("dpo.b", 0.8))}
    metrics["evaluate"]["gates"] = {"verdict": "failed", "checks": checks}
    told = page.write(compose(), metrics, [sample()], CLEAN, None, HERE, None)
    assert "| `dpo.a` | 0.79 | 0.5 | passed |\n| `dpo.b` | 0.79 | 0.8 | **failed** |" in told


def test_it_says_who_made_each_stage(written: str) -> None:
    assert f"- train: made by run puffy-daks (`{'f' * 32}`)\n" in written
    assert f"- dpo: made by this run (`{'a' * 32}`)\n" in written
    assert "- check: not found in MLflow" in written


def test_it_says_where_it_was_made_and_which_stages_elsewhere(written: str) -> None:
    assert f"In the environment `{HERE.id}`." in written
    for row in ("| cpu | AMD EPYC (family 26, model 2) |", "| instructions | AVX2 |", "| lock requirements.lock | b9b9b9b9b9b9 |"):
        assert row in written
    assert "Packages that decide bytes: numpy 2.4.6, torch 2.13.0+cpu." in written
    other = f"- format: made by run old-mare (`{'e' * 32}`), in another environment, `{'0' * 12}`: cpu: A → B; x: 1 → 2\n"
    assert other in written
    assert f"- prepare: made by run grey-mare (`{'d' * 32}`), in an environment that was not noted\n" in written


def test_it_gives_the_commands_that_make_it_again(written: str, compose: Compose, metrics: dict[str, Any]) -> None:
    assert "git checkout 0123abc\ngit apply uncommitted.diff\n.venv/bin/dvc repro" in written
    assert "`.venv/bin/dvc exp apply salty-soup`" in written
    clean = page.write(compose(), metrics, [], CLEAN, None, HERE, None)
    assert "git checkout 0123abc\n.venv/bin/dvc repro" in clean
    assert "exp apply" not in clean
    assert "Not known: tracking is off" in clean
    assert "git is not installed" in page.write(compose(), metrics, [], Origin(None, missing="git is not installed"), None, HERE, None)


def test_four_bit_training_says_how_far_its_base_lies(compose: Compose, metrics: dict[str, Any]) -> None:
    metrics["evaluate"]["train"] |= {"validation_4bit": {"loss": 0.25}, "loss_distance_4bit": 0.04}
    assert "validation loss 0.2500, +0.0400 from the one above" in page.write(compose(), metrics, [], CLEAN, None, HERE, None)
