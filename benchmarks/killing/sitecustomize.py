"""Loaded by every Python that a pipeline to be killed starts (PYTHONPATH): in one stage, at one moment of its work, it says so.

MOMENT is JSON: {"stage", "function": "finetune.outputs:sync", "call": which call of it, "when": "before" | "after", "do", "note": file for
the pid}. do: "go" (on), "hold" (still, until it is killed), or "full" (from then on some calls find the disk full).
"""

import errno
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

FULL = 4  # calls that find the disk full: two checkpoints


class Finder(importlib.abc.MetaPathFinder):
    """Finds the module of the moment as always, and has it watched once it is loaded."""

    def __init__(self, moment: dict[str, Any]) -> None:
        self._moment = moment
        self._module, _, self._name = moment["function"].partition(":")
        self._process = os.getpid()  # not those that it divides its work over
        self._calls = 0

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """The spec of that module; None for all others."""
        if fullname != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def loaded(module: Any) -> None:
            load(module)
            self._watch(module)

        spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec

    def _watch(self, module: Any) -> None:
        *classes, name = self._name.split(".")
        owner = module
        for part in classes:
            owner = getattr(owner, part)
        honest = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._calls += 1
            if self._moment["when"] == "before":
                self._happen()
            result = honest(*args, **kwargs)
            if self._moment["when"] == "after":
                self._happen()
            return result

        setattr(owner, name, watched)

    def _happen(self) -> None:
        first, do = self._moment["call"], self._moment["do"]
        if os.getpid() != self._process:
            return
        if self._calls == first:
            note = Path(self._moment["note"])
            note.with_suffix(".part").write_text(str(os.getpid()))
            note.with_suffix(".part").rename(note)
            if do == "hold":
                os.kill(os.getpid(), signal.SIGSTOP)
        if do == "full" and first <= self._calls < first + FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if "MOMENT" in os.environ:
    wanted = json.loads(os.environ["MOMENT"])
    if os.environ.get("DVC_STAGE") == wanted["stage"] and "-m" in sys.orig_argv:
        sys.meta_path.insert(0, Finder(wanted))
