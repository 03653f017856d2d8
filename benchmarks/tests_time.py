"""`make test`: its seconds, and how many tests passed, failed and were skipped."""

import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.record import Samples
from benchmarks.watching import call, waiting

LOADED = ("tests", "tools", "benchmarks")
READS = ("pyproject.toml",)


def measure(root: Path) -> Samples:
    """Run it once, on the repository itself."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        with waiting("make test"):
            done = call(root, "env", f"PYTEST_ADDOPTS=--junitxml={junit}", "make", "test")
        suites = ElementTree.parse(junit).getroot().iter("testsuite")
        counts = [{name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")} for suite in suites]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    return {"seconds": [done.seconds], **{name: [number] for name, number in total.items()}}
