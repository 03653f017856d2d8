"""The `evaluate` library without its pipelines: importing transformers for them was 4 s of a start, and nothing here uses them.

from finetune.evaluation.library import evaluate
"""

import sys

_present = sys.modules.get("transformers")
sys.modules["transformers"] = None  # type: ignore[assignment]  # an import of it fails, and evaluate goes on without
try:
    import evaluate
finally:
    if _present is None:
        del sys.modules["transformers"]
    else:
        sys.modules["transformers"] = _present

__all__ = ["evaluate"]
