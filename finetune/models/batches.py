"""Which rows go through a model together."""

from collections.abc import Sequence


def by_length(rows: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Places of the rows in batches, the longest first: little is padded, and a batch too large for the memory fails at once."""
    order = sorted(range(len(rows)), key=lambda place: (-len(rows[place]), place))
    return [order[start : start + size] for start in range(0, len(order), size)]
