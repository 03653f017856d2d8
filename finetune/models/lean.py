"""Kept out of a stage's start: libraries that peft and transformers import and that nothing here uses, 3 of 8 s of it.

Import this before them: `from finetune.models import lean  # isort: skip`. If one of them changes, a start is slower and nothing else.

- transformers imports scikit-learn, SciPy and pandas, for a curve of assisted generation and a loss of object detection.
- bitsandbytes compiles its fallback kernels as it is imported, which loads torch's compiler. Uncompiled they are also the same on every
  machine: bitsandbytes falls back silently where there is no C compiler, and compiled sums differ in the last bits.
"""

import importlib.metadata
import logging
from collections.abc import Callable
from typing import Any

from finetune import environment


def _by_name() -> dict[str, list[str]]:
    """Module → the packages that have it, told by their names: Python reads the files of all 200 of them, 0.3 s, and trl asks again."""
    named = {package.replace("-", "_"): [package] for package in environment.installed()}
    return named | {"PIL": ["pillow"]}


importlib.metadata.packages_distributions = _by_name

import torch  # noqa: E402
import transformers.utils  # noqa: E402

transformers.utils.is_sklearn_available = lambda: False
transformers.utils.is_scipy_available = lambda: False


def _as_it_is(function: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    """Stand in for torch.compile, as a decorator with and without arguments."""
    return function if function is not None else _as_it_is


# at every import it misses an optional package that would fetch kernels from a hub
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
_compile = torch.compile
torch.compile = _as_it_is  # type: ignore[assignment]
try:
    import bitsandbytes  # noqa: F401
finally:
    torch.compile = _compile
