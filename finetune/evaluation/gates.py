"""What a model must reach to be promoted: numbers of reports/evaluate.json, each with a minimum (evaluate.gates)."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from finetune.errors import ConfigError

Verdict = Literal["passed", "failed", "none"]
NEAR = 3  # keys named when one is not there


def checked(report: Mapping[str, Any], gates: Mapping[str, float]) -> dict[str, Any]:
    """`{"verdict": …, "checks": {key: {"found", "expected", "passed"}}}`; the verdict is `none` where nothing is asked.

    Raises:
        ConfigError: a gate names no number of the report.
    """
    known = dict(_numbers("", report))
    unknown = [_unknown(key, known) for key in gates if key not in known]
    if unknown:
        raise ConfigError("evaluate.gates asks for numbers that the evaluation has not:", unknown, "mend the keys, and run it again")
    checks = {key: {"found": known[key], "expected": minimum, "passed": known[key] >= minimum} for key, minimum in gates.items()}
    return {"verdict": _verdict(checks), "checks": checks}


def sentences(gates: Mapping[str, Any]) -> list[str]:
    """One line for each check that failed: what was found, and what was expected."""
    return [
        f"{key}: found {check['found']:.4g}, expected at least {check['expected']:.4g}"
        for key, check in sorted(gates["checks"].items())
        if not check["passed"]
    ]


def _verdict(checks: Mapping[str, Mapping[str, Any]]) -> Verdict:
    if not checks:
        return "none"
    return "passed" if all(check["passed"] for check in checks.values()) else "failed"


def _unknown(key: str, known: Mapping[str, float]) -> str:
    near = difflib.get_close_matches(key, known, n=NEAR, cutoff=0.5) or sorted(known)[:NEAR]
    return f"evaluate.gates: found {key}, expected a number of reports/evaluate.json, such as {', '.join(near)}"


def _numbers(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`dpo.seen.exact_match` → number."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{prefix}{key}.", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", value
