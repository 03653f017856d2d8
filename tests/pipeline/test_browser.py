"""A real browser opens MLflow's comparison of two pipelines, as `finetune ui` serves it."""

from pathlib import Path

import pytest
from matplotlib.image import imread

from tools import picture

pytestmark = pytest.mark.slow


def test_the_comparison_of_two_pipelines_shows_what_differs(tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tracked)
    html = picture.photograph(picture.compare(tracked / "mlflow.db"), tmp_path / "compare.png")
    for text in ("first", "second", "dpo.beta", "dpo.first.loss"):
        assert text in html
    pixels = imread(tmp_path / "compare.png")
    assert pixels.shape[1] == picture.WIDTH
    assert pixels.std() > 0.02, "a blank page"
