"""What is left of long work: a bar for a person, one line for a log."""

import io
import logging
import sys

import pytest

from finetune.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_says_what_is_done_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    assert list(progress(["a", "b", "c"], "reading")) == ["a", "b", "c"]
    assert "reading:   0%" in shown.getvalue()
    assert "0/3" in shown.getvalue()
    assert "records/s" in shown.getvalue()


def test_elsewhere_one_line_says_how_much_there_is_to_do(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(progress(iter(range(5)), "reading")) == [0, 1, 2, 3, 4]
        assert list(progress(iter(range(1200)), "scoring", total=1200, unit="batches"))[-1] == 1199
    assert caplog.messages == ["reading", "scoring: 1,200 batches"]
    assert capsys.readouterr().err == ""
