"""How a stage starts: its settings from params.yaml, typed and cut to what dvc.yaml lists for it; its end said in one line.

A stage is a Hydra program over params.yaml, never over conf/: what ran is what DVC recorded. Overrides on its command line are checked
like any other setting: `python -m stages.train train.r=8`.
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from finetune import ending, instructions, paths, tracking
from finetune.checkpoints import lock, noted
from finetune.config.compose import validate
from finetune.config.schema import Config
from finetune.errors import FinetuneError, SetupError
from finetune.training import world

Main = Callable[[Config], None]
EVERYWHERE = ("tracking", "resume")  # determine no result, so dvc.yaml lists them for no stage
AGAIN = "and the same command starts the stage again, from its last checkpoint if it has one"
INTERRUPTED = 130  # 128 + SIGINT, what shells report

log = logging.getLogger(__name__)

ConfigStore.instance().store(
    name="stage",
    node={
        "defaults": ["params", {"override hydra/hydra_logging": "none"}, {"override hydra/job_logging": "none"}, "_self_"],
        "hydra": {"run": {"dir": "."}, "output_subdir": None, "job": {"chdir": False}},
    },
)


def stage(*sections: str) -> Callable[[Main], Main]:
    """Mark a function as a stage that reads exactly these sections of params.yaml (dvc.yaml lists the same; a test compares)."""

    gc.freeze()  # all that was imported stays, and no collection need look at it: each took 0.25 s
    gc.enable()  # stages/__init__.py turned it off for the imports

    def mark(main: Main) -> Main:
        main.sections = sections  # type: ignore[attr-defined]
        return main

    return mark


def cut(config: Config, sections: tuple[str, ...]) -> Config:
    """Return the configuration with these sections alone: reading another one raises AttributeError."""
    return Config.model_construct(None, **{name: getattr(config, name) for name in (*sections, *EVERYWHERE)})


def run(main: Main) -> None:
    """Run a stage as a program; exit status 1 after an error that a user can mend, 130 after Ctrl-C, 143 after SIGTERM."""
    if not paths.PARAMS.is_file():
        found = f"found no file of that name in {Path.cwd().name}/, expected the root of the repository"
        sys.exit(str(SetupError("params.yaml is not here:", [found], "cd there and run the same command again")))
    name = sys.modules[main.__module__].__spec__.name.rsplit(".", 1)[-1]  # type: ignore[union-attr]  # __module__ is __main__ under -m

    def task(composed: DictConfig) -> None:
        status = _run(name, main, composed)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the outs are there or not: what is left to do is to say which
        gc.freeze()  # else Python ends with a last look at all of torch, 1 s
        sys.exit(status)

    Hydra.get_mode = _no_mode  # type: ignore[method-assign]  # it composes everything once more to look for one, 0.3 s
    hydra.main(version_base="1.3", config_path=str(Path.cwd()), config_name="stage")(task)()


def _no_mode(*_: object, **__: object) -> None:
    """Stand in for the look whether a configuration asks for a sweep, which is DVC's to do here."""


def _run(name: str, main: Main, composed: DictConfig) -> int:
    """Check the settings, run the stage in its tracking run, and return the exit status."""
    logging.basicConfig(level=logging.INFO, format=f"{name}: %(message)s", stream=sys.stderr, force=True)
    for library in ("httpx", "datasets", "absl", "matplotlib"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        if callable(signal.getsignal(signal.SIGINT)):  # not where it is ignored, as by a job in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)  # until here stages/__init__.py ends the process at once
        values: Mapping[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
        config = cut(validate(values), main.sections)  # type: ignore[attr-defined]
        if "threads" in main.sections and "torch" in sys.modules:  # type: ignore[attr-defined]  # stages that compute import it at their top
            _set_threads(config.threads)
        if "instructions" in main.sections:  # type: ignore[attr-defined]
            instructions.verify(config.instructions)
        with ending.heeded(), _alone(name, config):
            if world.main_process():
                noted.sweep()
            with tracking.run(name, config):
                main(config)
    except FinetuneError as error:
        log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        log.error("interrupted; nothing half-written was kept, %s", AGAIN)
        return INTERRUPTED
    except ending.Terminated as told:
        log.error("ended by %s; nothing half-written was kept, %s", told, AGAIN)
        return ending.STATUS
    return 0


def _alone(name: str, config: Config) -> AbstractContextManager[None]:
    """Hold the lock of this stage in this folder: of two that write the same outs the second waits."""
    if not world.main_process():
        return nullcontext()
    addressed = f"{name}@{config.answer.which}" if name == "answer" else name  # as DVC addresses it
    return lock.held(Path(".resume") / f"{addressed}.lock")


def _set_threads(threads: int) -> None:
    """Fix the number of CPU threads, which would else be the machine's."""
    import torch  # not at the top: 1.5 s, and only the stages that compute need it

    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
