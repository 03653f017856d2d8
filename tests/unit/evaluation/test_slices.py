"""The names of slices, as people read them."""

from finetune.evaluation.slices import scored


def test_the_seen_slice_comes_first_and_what_is_no_slice_is_left_out() -> None:
    score = {"records": 3, "exact_match": 0.5}
    model = {"new_phrasing": score, "new_home": score, "seen": score, "validation": {"loss": 0.1}, "preference": {"pairs": 3}}
    assert scored({"base": {}, "dpo": model}) == ["seen", "new_home", "new_phrasing"]
