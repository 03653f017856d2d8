"""dvc.lock as a comparison needs it: with what each stage ran, what it read that no stage made, and what it wrote."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from finetune.locks import LOADER, Stage, overlap, stages


class _Loader(LOADER):  # type: ignore[misc, valid-type]
    """Of YAML 1.2, by which DVC writes: 2e-05 is a number. PyYAML's own takes it for text, and params.yaml has 2.0e-05 anyway."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


@dataclass(frozen=True, eq=False)
class Lock:
    """The stages of a dvc.lock, by name."""

    entries: Mapping[str, Stage]

    @classmethod
    def of(cls, text: str) -> Self:
        """Read the text of a dvc.lock; no stages where it is none, or is DVC's no more, as after a merge conflict."""
        return cls(stages(text, _Loader))

    @cached_property
    def outs(self) -> dict[str, str]:
        """Path → md5 of all that was written."""
        return {path: md5 for entry in self.entries.values() for path, md5 in entry.outs.items()}

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Path → md5 of all that was read and no stage wrote: code, raw data, locks of packages; `md5, md5` where two were read."""
        read = dict.fromkeys(path for entry in self.entries.values() for path in entry.deps)
        return {path: ", ".join(dict.fromkeys(self.readers(path).values())) for path in read if not self._writers[path]}

    def readers(self, path: str) -> dict[str, str]:
        """Stage that read a path itself, not a folder around it → the md5 that it had then."""
        return {name: entry.deps[path] for name, entry in self.entries.items() if path in entry.deps}

    def writer(self, path: str) -> str | None:
        """The stage that wrote a path."""
        return next((name for name, entry in self.entries.items() if path in entry.outs), None)

    def behind(self, stage: str) -> list[str]:
        """A stage and all those whose results went into its own, by name; none where it did not run."""
        found: set[str] = set()
        waiting = [stage] if stage in self.entries else []
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [writer for path in self.entries[name].deps for writer in self._writers[path]]
        return sorted(found)

    def seed(self, stage: str) -> int | None:
        """The seed behind a stage's result; None where none went into it, or several did, as after a change that was run in part."""
        seeds = {self.entries[name].params["seed"] for name in self.behind(stage) if "seed" in self.entries[name].params}
        return seeds.pop() if len(seeds) == 1 else None

    def but_for_seed(self, stage: str) -> str:
        """A hash of all that went into a stage's result but the seed: runs that have it in common differ by chance alone."""
        behind = {}
        for name in self.behind(stage):
            entry = self.entries[name]
            given = {path: md5 for path, md5 in entry.deps.items() if path in self.inputs}
            behind[name] = [entry.command, given, {key: value for key, value in entry.params.items() if key != "seed"}]
        return hashlib.sha256(json.dumps(behind, sort_keys=True, default=str).encode()).hexdigest()

    def outdated(self, stage: str) -> bool:
        """Whether a stage, or one behind it, read something that was made anew since: its result belongs to nothing that is here."""
        return any(self.outs.get(path, md5) != md5 for name in self.behind(stage) for path, md5 in self.entries[name].deps.items())

    @cached_property
    def _writers(self) -> dict[str, list[str]]:
        """Path that was read → the stages that wrote it, or a part of it, or the folder around it."""
        read = {path for entry in self.entries.values() for path in entry.deps}
        return {path: [name for name, entry in self.entries.items() if any(overlap(path, out) for out in entry.outs)] for path in read}
