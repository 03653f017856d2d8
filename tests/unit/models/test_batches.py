"""Which rows go through a model together."""

from finetune.models.batches import by_length


def test_the_longest_rows_come_first_and_equals_keep_their_order() -> None:
    rows = [[1], [1, 2, 3], [1, 2], [4, 5, 6], [7]]
    assert by_length(rows, 2) == [[1, 3], [2, 0], [4]]
    assert by_length([], 2) == []
