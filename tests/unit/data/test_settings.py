"""Settings of the data that are each fine and together are not."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune.config.compose import validate
from finetune.config.schema import Config
from finetune.errors import ConfigError

Compose = Callable[..., Config]


def refused(cfg: Config, **changed: Any) -> list[str]:
    """The problems of a configuration with other values in its section `data`."""
    values = cfg.model_dump()
    values["data"] |= changed
    with pytest.raises(ConfigError) as raised:
        validate(values)
    return list(raised.value.problems)


def test_a_name_of_both_homes_is_not_held_out(compose: Compose) -> None:
    (problem,) = refused(compose(), new_home={"attic": {"light": ["floor lamp"]}, "cellar": {}})
    assert problem == "data: found 'floor lamp' in areas and in new_home, expected no name in both; rename or remove one"


def test_a_domain_that_does_not_exist_is_named(compose: Compose) -> None:
    (problem,) = refused(compose(), areas={"kitchen": {"lihgt": ["lamp"]}, "bath": {}})
    assert problem.startswith("data.areas.kitchen.lihgt")
    assert "'light'" in problem


def test_shares_that_leave_nothing_to_train_on_are_refused(compose: Compose) -> None:
    (problem,) = refused(compose("data=jsonl"), validation=0.5, test=0.5)
    assert problem == "data: found validation=0.5 and test=0.5, expected a sum below 1, which leaves something to train on"


@pytest.mark.parametrize("name", ["../records.jsonl", "/etc/passwd", ""])
def test_files_are_names_in_data_raw(compose: Compose, name: str) -> None:
    (problem,) = refused(compose("data=jsonl"), records=name)
    assert problem.startswith("data.records: found ")
