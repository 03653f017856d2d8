"""Whether this Python's packages are those of a lock, in one line; or what is wrong, a line each.

python -m tools.environment requirements.lock
"""

import sys
from pathlib import Path

from finetune.environment import locked_differences, pins, unmet_requirements


def main() -> None:
    lock = Path(sys.argv[1])
    wrong = locked_differences(lock) + unmet_requirements()
    try:
        import torch  # here, because whether it imports is one of the questions
    except (ImportError, OSError, RuntimeError) as error:
        sys.exit("\n".join([*wrong, f"torch does not import: {error}"]))
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(pins(lock))} packages as in {lock.name}; torch {torch.__version__} imports")


if __name__ == "__main__":
    main()
