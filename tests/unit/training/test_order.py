"""The order of the records: everyone once an epoch, like lengths together, a function of seed, epoch and effective batch alone."""

from hypothesis import given
from hypothesis import strategies as st

from finetune.training.order import ByLength

LENGTHS = [(7 * row) % 61 + 1 for row in range(203)]


def batches(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


@given(st.lists(st.integers(1, 500), max_size=120), st.integers(1, 9), st.integers(0, 2**40), st.integers(0, 3))
def test_every_record_comes_once_an_epoch(lengths: list[int], batch: int, seed: int, epoch: int) -> None:
    sampler = ByLength(lengths, batch, seed)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(len(lengths)))
    assert len(sampler) == len(lengths)


def test_epochs_and_seeds_differ_and_each_is_the_same_when_asked_again() -> None:
    sampler = ByLength(LENGTHS, 8, 17)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second
    assert list(sampler) == second, "asking twice draws nothing further"
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(ByLength(LENGTHS, 8, 18)) != first


def test_a_batch_holds_like_lengths_so_that_little_is_padding() -> None:
    def padded(order: list[int]) -> int:
        return sum(max(LENGTHS[row] for row in batch) * len(batch) for batch in batches(order, 8))

    real = sum(LENGTHS)
    assert padded(list(ByLength(LENGTHS, 8, 17))) < 1.15 * real
    assert padded(list(range(len(LENGTHS)))) > 1.5 * real


def test_batches_come_in_no_order_of_length_and_the_smaller_one_comes_last() -> None:
    longest = [max(LENGTHS[row] for row in batch) for batch in batches(list(ByLength(LENGTHS, 8, 17)), 8)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)
    assert len(batches(list(ByLength(LENGTHS, 8, 17)), 8)[-1]) == 203 % 8
