"""Metrics files as the stages write them, of a run that never was; formulas make the numbers look like those of a run."""

import math
from typing import Any

import pytest


def score(records: int, exact: float, reach: float, valid: float) -> dict[str, float]:
    """What evaluate says of one model on one slice."""
    low, high = max(0.0, exact - reach), min(1.0, exact + reach)
    intent = (exact + valid) / 2
    return {
        "records": records,
        "exact_match": exact,
        "exact_match_low": low,
        "exact_match_high": high,
        "valid_json": valid,
        "intent": intent,
    }


def model(seen: float, home: float, phrasing: float, valid: float, loss: float, margin: float) -> dict[str, Any]:
    """What evaluate says of one model."""
    return {
        "seen": score(150, seen, 0.07, valid),
        "new_home": score(60, home, 0.11, valid),
        "new_phrasing": score(60, phrasing, 0.11, valid),
        "validation": {"loss": loss, "perplexity": math.exp(loss)},
        "preference": {"pairs": 100, "accuracy": 0.9, "margin": margin, "margin_low": margin * 0.8, "margin_high": margin * 1.2},
    }


@pytest.fixture
def metrics() -> dict[str, Any]:
    """Stage → metrics."""
    counts = {"records": 500, "tokens": 24_000, "supervised_tokens": 9_000, "longest": 81, "median": 47}
    trained = {"parameters": 134_515_008, "trainable_parameters": 4_884_480, "world_size": 1}
    sft = [
        {"step": n, "epoch": n / 63, "loss": 0.15 + 2.5 * math.exp(-n / 14) + 0.08 * math.sin(n * 2.1), "learning_rate": 5e-4}
        for n in range(1, 126)
    ]
    dpo = [
        {
            "step": n,
            "loss": math.log(2) * math.exp(-(n - 1) / 12) + 0.03 * math.sin(n) + 0.4,
            "dpo_loss": math.log(2) * math.exp(-(n - 1) / 12) + 0.03 * math.sin(n),
            "nll": 0.04,
            "margin": 0.1 * (n - 1),
            "accuracy": 1.0,
            "chosen": 0.02 * (n - 1) + 0.05 * math.sin(n),
            "rejected": -0.08 * (n - 1),
        }
        for n in range(1, 31)
    ]
    return {
        "prepare": {
            "read": 1_000,
            "kept": 970,
            "rejected": {"duplicate": 25, "not recognised": 5},
            "changed": {"personal data masked": 3},
            "personal": {"mail address": 4},
            "conflicts": 2,
            "splits": {"sft": {"train": 500, "validation": 50, "test": 270}, "preference": {"train": 120, "test": 100}},
            "slices": {"seen": 150, "new_home": 60, "new_phrasing": 60},
            "license": "CC-BY-4.0",
        },
        "format": {"sft": {"train": counts, "test": counts}, "preference": {"train": counts, "test": counts}, "dropped": 0},
        "train": {
            "loss": 0.15,
            "validation_loss": 0.21,
            "records": 500,
            "supervised_tokens": 9_000,
            "steps_total": 125,
            "steps": sft,
            **trained,
        },
        "reference": {"pairs": 120, "chosen_logp": -2.5, "rejected_logp": -7.1},
        "dpo": {
            "loss": 0.45,
            "dpo_loss": 0.05,
            "first": {"loss": math.log(2), "margin": 0.0},
            "beta": 0.1,
            "pairs": 120,
            "steps_total": 30,
            "steps": dpo,
            **trained,
        },
        "evaluate": {
            "base": model(0.0, 0.0, 0.0, 0.0, 3.1, 0.0),
            "train": model(0.75, 0.55, 0.4, 0.98, 0.21, 0.0),
            "dpo": model(0.79, 0.6, 0.42, 0.99, 0.24, 1.4),
            "gates": {"verdict": "none", "checks": {}},
        },
        "export": {"files": 8, "bytes": 550_000_000, "parameters": 134_515_008},
    }
