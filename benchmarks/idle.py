"""Start a stage that has nothing to do, and say when it got how far (seconds since 1970), in one line of JSON.

    python -m benchmarks.idle stages.train

imported: the stage's module is there, torch included. entered: the first line of its recipe, with the settings read, typed and checked by
Hydra and the tracking run opened. closed: everything has been closed.
"""

import importlib
import json
import sys
import time

from finetune.config.schema import Config
from finetune.config.stage import run, stage


def main() -> None:
    """Run the stage named on the command line with an empty recipe in place of its own."""
    name = sys.argv.pop(1)
    recipe = importlib.import_module(name).main
    imported = time.time()
    entered = 0.0

    @stage(*recipe.sections)
    def nothing(_: Config) -> None:
        nonlocal entered
        entered = time.time()

    nothing.__module__ = name  # by which `run` knows the stage
    try:
        run(nothing)
    except SystemExit as ended:
        if ended.code:
            raise
    closed = time.time()
    print(json.dumps({"imported": imported, "entered": entered, "closed": closed}))


if __name__ == "__main__":
    main()
