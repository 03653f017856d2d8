"""Pictures: drawn for long, short and one-step runs, and the same bytes for the same numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.reporting import figures

DRAW: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "before_after": lambda metrics, path: figures.before_after(metrics["evaluate"], 0.95, path),
    "supervised": lambda metrics, path: figures.supervised(metrics["train"], path),
    "preference": lambda metrics, path: figures.preference(metrics["dpo"], path),
    "lengths": lambda _metrics, path: figures.lengths({"supervised": np.array([40, 41, 60]), "preference": np.array([50])}, 256, path),
}


@pytest.mark.parametrize("name", DRAW)
def test_the_same_numbers_give_the_same_bytes_without_a_time(tmp_path: Path, metrics: dict[str, Any], name: str) -> None:
    for file in ("a.png", "b.png"):
        DRAW[name](metrics, tmp_path / file)
    drawn = (tmp_path / "a.png").read_bytes()
    assert drawn == (tmp_path / "b.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    for chunk in (b"tIME", b"tEXt", b"iTXt"):
        assert chunk not in drawn


@pytest.mark.parametrize("name", ["supervised", "preference"])
def test_a_run_of_one_step_is_drawn(tmp_path: Path, metrics: dict[str, Any], name: str) -> None:
    for stage in ("train", "dpo"):
        metrics[stage]["steps"] = metrics[stage]["steps"][:1]
    DRAW[name](metrics, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_a_data_set_of_your_own_has_one_slice(tmp_path: Path, metrics: dict[str, Any]) -> None:
    for scores in (metrics["evaluate"][model] for model in ("base", "train", "dpo")):
        scores["all"] = scores.pop("seen")
        del scores["new_home"], scores["new_phrasing"]
    DRAW["before_after"](metrics, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
