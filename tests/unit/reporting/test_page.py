"""The page has the scores, where everything came from, and how to make it again."""

import re
from typing import Any

import pytest

from finetune.reporting import page
from finetune.reporting.provenance import Origin
from tests.conftest import Compose

CLEAN = Origin("0123abc")


@pytest.fixture
def written(compose: Compose, metrics: dict[str, Any]) -> str:
    makers = {
        "train": {"run": "f" * 32, "name": "puffy-daks", "here": False},
        "dpo": {"run": "a" * 32, "name": "x", "here": True},
        "check": None,
    }
    return page.write(compose(), metrics, Origin("0123abc", diff="+r: 32"), "salty-soup", makers)


def test_every_model_has_a_row_for_every_slice(written: str) -> None:
    assert "| seen | base | 150 | 0.0 % (0.0 to 7.0) | 0.0 % | 0.0 % |" in written
    assert "| new phrasing | dpo | 60 | 42.0 % (31.0 to 53.0) | 99.0 % | 70.5 % |" in written
    assert len(re.findall(r"^\| (?:seen|new \w+) \|", written, flags=re.MULTILINE)) == 9
    assert "+1.400 (+1.120 to +1.680)" in written


def test_it_shows_every_picture(written: str) -> None:
    assert re.findall(r"\]\((figures/\w+\.png)\)", written) == [f"figures/{name}.png" for name in page.FIGURES.values()]


def test_it_tells_what_was_refused(written: str) -> None:
    assert "Read 1,000 records, kept 970, refused 30." in written
    assert "| duplicate | 25 |" in written


def test_it_says_who_made_each_stage(written: str) -> None:
    assert f"- train: made by run puffy-daks (`{'f' * 32}`)" in written
    assert f"- dpo: made by this run (`{'a' * 32}`)" in written
    assert "- check: not found in MLflow" in written


def test_it_gives_the_commands_that_make_it_again(written: str, compose: Compose, metrics: dict[str, Any]) -> None:
    assert "git checkout 0123abc\ngit apply uncommitted.diff\n.venv/bin/dvc repro" in written
    assert "`.venv/bin/dvc exp apply salty-soup`" in written
    clean = page.write(compose(), metrics, CLEAN, None, None)
    assert "git checkout 0123abc\n.venv/bin/dvc repro" in clean
    assert "exp apply" not in clean
    assert "Not known: tracking is off" in clean
    assert "git is not installed" in page.write(compose(), metrics, Origin(None, missing="git is not installed"), None, None)


def test_four_bit_training_says_how_far_its_base_lies(compose: Compose, metrics: dict[str, Any]) -> None:
    metrics["evaluate"]["train"] |= {"validation_4bit": {"loss": 0.25}, "loss_distance_4bit": 0.04}
    assert "validation loss 0.2500, +0.0400 from the one above" in page.write(compose(), metrics, CLEAN, None, None)
