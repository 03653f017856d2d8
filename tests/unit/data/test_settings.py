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
    (problem,) = refused(compose("data=files"), validation=0.5, test=0.5)
    assert problem == "data: found validation=0.5 and test=0.5, expected a sum below 1, which leaves something to train on"


@pytest.mark.parametrize("path", ["../records.jsonl", "/etc/passwd", "a/../../b.csv", "hub:names/without/end", "package:module", "hub:"])
def test_sources_are_below_data_raw_or_in_a_package_or_on_the_hub(compose: Compose, path: str) -> None:
    (problem,) = refused(compose("data=files"), sources=[{"path": path}])
    assert problem.startswith(
        f"data.sources.0: found path={path!r}, expected a file below data/raw, package:MODULE/FILE, or hub:OWNER/NAME"
    )


def test_a_hub_data_set_is_pinned_to_a_commit(compose: Compose) -> None:
    (problem,) = refused(compose("data=files"), sources=[{"path": "hub:owner/name"}])
    assert "found revision=null with path=hub:owner/name, expected a commit, 40 hex digits" in problem


def test_a_source_is_named_once(compose: Compose) -> None:
    (problem,) = refused(compose("data=files"), sources=[{"path": "a.csv"}, {"path": "a.csv"}])
    assert problem == "data: found a.csv twice in sources, expected each once; to weigh it more, set its weight"


def test_all_that_is_wrong_with_a_source_is_named(compose: Compose) -> None:
    problems = refused(compose("data=files"), sources=[{"path": "a.csv", "form": "alpacka", "weight": 0.0, "paths": "b.csv"}])
    assert [problem.split(":")[0] for problem in problems] == ["data.sources.0.form", "data.sources.0.weight", "data.sources.0.paths"]
