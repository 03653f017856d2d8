"""Which of several processes this one is."""

import pytest

from finetune.training import world


def test_without_a_launcher_there_is_one_process_which_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (world.rank(), world.local_rank(), world.size(), world.main_process()) == (0, 0, 1, True)
    world.leave()


def test_a_launcher_says_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (world.rank(), world.local_rank(), world.size(), world.main_process()) == (3, 1, 4, False)
