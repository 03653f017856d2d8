"""Per cent of the lines of finetune/ and stages/ that the tests run, all of them in one run, the stages' own processes included."""

import json
import tempfile
from pathlib import Path

from benchmarks.record import Samples
from benchmarks.watching import call, waiting

LOADED = ("tests", "tools", "benchmarks")
READS = ("pyproject.toml",)


def measure(root: Path) -> Samples:
    """Run all tests once, on the repository itself; `percent` is of all lines, `<file>` of one file's."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        with waiting("all tests"):
            call(root, str(root / ".venv/bin/python"), "-m", "pytest", "--cov", f"--cov-report=json:{report}")
        found = json.loads(report.read_text(encoding="utf-8"))
    files = {file: [value["summary"]["percent_covered"]] for file, value in sorted(found["files"].items())}
    return {"percent": [found["totals"]["percent_covered"]], "lines": [found["totals"]["num_statements"]], **files}
