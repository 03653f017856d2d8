"""Commands of dvc.yaml as DVC runs them: with the settings in them, one for each stage of `foreach` and `matrix`."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

PLACE = re.compile(r"\$\{\s*([^}\s]+)\s*\}")  # `${launch.command}`


def of(declared: Mapping[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    """Stage → its command in dvc.yaml with the settings in it; `answer@base` and so on of a stage that goes through some.

    What is not in the settings, as the `vars` of dvc.yaml, stays `${…}`; a stage that goes through that is left out.
    """
    found = {}
    for name, stage in declared.items():
        command = stage.get("do", stage).get("cmd")
        for key, item in _through(stage, settings).items():
            fill = partial(PLACE.sub, partial(_value, {**settings, "key": key, "item": item}))
            found[f"{name}@{key}" if key else name] = str([*map(fill, command)]) if isinstance(command, list) else fill(str(command))
    return found


def whole(command: str) -> bool:
    """Whether all of it was known."""
    return PLACE.search(command) is None


def setting(values: Any, key: str) -> Any:
    """The setting `train`, `train.r` or `seeds[0]`; None where there is none."""
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(values, list):
            values = dict(zip(map(str, range(len(values))), values, strict=True))
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _through(stage: Mapping[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Key → item of each stage that DVC makes of one with `foreach` or `matrix`; of any other "" alone."""
    if "foreach" in stage:
        items = _resolved(stage["foreach"], settings)
        return {_text(key): item for key, item in items.items()} if isinstance(items, dict) else dict(_keyed(items))
    if "matrix" in stage:
        axes = _resolved(stage["matrix"], settings)
        if not isinstance(axes, dict):
            return {}
        chosen = [[(key, axis, value) for key, value in _keyed(values, axis)] for axis, values in axes.items()]
        return {"-".join(key for key, _, _ in each): {axis: value for _, axis, value in each} for each in product(*chosen)}
    return {"": None}


def _keyed(items: Any, axis: str = "") -> Iterator[tuple[str, Any]]:
    """What DVC calls each item of a list, and the item: by its value, or by its place in the list; none of what is not known."""
    known = items if isinstance(items, list) else []
    nested = [isinstance(item, dict | list) for item in known]
    for place, item in enumerate(known):
        by_place = nested[place] if axis else any(nested)  # `matrix` looks at each value, `foreach` at all
        yield f"{axis}{place}" if by_place else _text(item), item


def _resolved(value: Any, settings: dict[str, Any]) -> Any:
    """A value of dvc.yaml with those of the settings in it, of whatever type where one stands alone."""
    match value:
        case dict():
            return {key: _resolved(item, settings) for key, item in value.items()}
        case list():
            return [_resolved(item, settings) for item in value]
        case str() if (alone := PLACE.fullmatch(value)) and (found := setting(settings, alone[1])) is not None:
            return found
        case str():
            return PLACE.sub(partial(_value, settings), value)
    return value


def _value(known: dict[str, Any], place: re.Match[str]) -> str:
    """What DVC writes in its place; the place as it stands, where that is not known."""
    value = setting(known, place[1])
    return place[0] if value is None or isinstance(value, dict | list) else _text(value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
