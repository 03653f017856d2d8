"""What MLflow knows of runs: under which name, from which commit, in which environment. Without MLflow nothing of it, and nothing fails.

The environments come from a process of their own (finetune.comparing.asking), while this one reads git: MLflow takes two seconds to
import, and may never answer.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune import tracking
from finetune.config.schema import Tracking
from finetune.fingerprint import Fingerprint
from finetune.lineage.records import SURROUNDINGS, database
from finetune.tracking import hashes

LIMIT = 20.0  # seconds that MLflow may take to say in which environments the runs were made


@dataclass(frozen=True)
class TrackedRun:
    """One run of the pipeline in MLflow."""

    name: str
    commit: str | None
    """The commit that DVC made of it, or that it ran from without a change."""
    started_from: str | None
    """The commit that its working tree was based on."""
    metrics: Mapping[str, float]
    _client: Any = field(repr=False)
    _id: str

    def text(self, artifact: str) -> str | None:
        """An artifact's text; None where it is not there."""
        from mlflow.exceptions import MlflowException

        try:
            return Path(self._client.download_artifacts(self._id, artifact)).read_text(encoding="utf-8")
        except (OSError, MlflowException):
            return None


class Question:
    """In which environments the stages of some dvc.lock were made: asked at once, answered when it is needed."""

    def __init__(self, uri: str, experiment: str, entries: Sequence[Mapping[str, str]]) -> None:
        """entries: for each dvc.lock, stage → the hash of its entry."""
        self._entries = entries
        command = [sys.executable, "-m", "finetune.comparing.asking"]
        self._process = subprocess.Popen(
            command,
            text=True,
            cwd=Path(__file__).parents[2],
            env=SURROUNDINGS | os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None  # it was asked for
        wanted = sorted({entry for stages in entries for entry in stages.values()})
        self._process.stdin.write(json.dumps([uri, experiment, wanted]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> tuple[list[dict[str, Fingerprint]], str | None]:
        """For each dvc.lock, stage → where it was made, of those that MLflow heard of; and why it said nothing."""
        try:
            said, _ = self._process.communicate(timeout=LIMIT)
            tags, trouble = json.loads(said)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            tags, trouble = {}, f"MLflow gave no answer within {LIMIT:g} s"
        except ValueError:  # it died
            tags, trouble = {}, "MLflow could not be asked"
        made = {entry: fingerprint for entry, found in tags.items() if (fingerprint := Fingerprint.from_tags(found)) is not None}
        return [{stage: made[entry] for stage, entry in stages.items() if entry in made} for stages in self._entries], trouble


class Tracked:
    """The MLflow that a repository's settings name."""

    def __init__(self, settings: Tracking | None, home: Path) -> None:
        """settings: None where there are none, or tracking is off."""
        self._settings = settings
        self.address = None if settings is None else tracking.address(settings, home)
        self._unanswered: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why there is nothing to be asked."""
        if self.address is None:
            return "tracking is off"
        file = database(self.address)
        if file is not None and not file.is_file():  # opening it would create it
            return "nothing was tracked here yet"
        return self._unanswered

    def ask(self, lock_texts: Iterable[str]) -> Question | None:
        """Begin to ask in which environments the stages of some dvc.lock were made; None where there is nobody to ask."""
        if self._settings is None or self.address is None or self.trouble is not None:
            return None
        return Question(self.address, self._settings.experiment, [hashes.entries(text) for text in lock_texts])

    def run(self, name: str) -> TrackedRun | None:
        """The run of a pipeline by id or name, that of a stage's pipeline by the stage's id; of one name the latest."""
        if self._settings is None or self.address is None or self.trouble is not None:
            return None
        client, experiment = self._client
        if client is None:
            return None
        found = _by_id(client, name)
        if found is None and experiment is not None:
            found = _by_name(client, experiment, name)
        if found is None:
            return None
        tags = found.data.tags
        if above := tags.get("mlflow.parentRunId"):
            return self.run(above)
        started = tags.get("mlflow.source.git.commit")
        clean = started if tags.get("git.dirty") == "false" else None
        return TrackedRun(found.info.run_name, tags.get("dvc.commit", clean), started, found.data.metrics, client, found.info.run_id)

    @cached_property
    def _client(self) -> tuple[Any, str | None]:
        assert self._settings is not None  # the callers looked
        assert self.address is not None
        os.environ.update(SURROUNDINGS | os.environ)
        from finetune.comparing import asking  # and with it MLflow

        client, experiment, self._unanswered = asking.connect(self.address, self._settings.experiment)
        return client, experiment


def _by_id(client: Any, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(name) if len(name) == 32 else None
    except MlflowException:
        return None


def _by_name(client: Any, experiment: str, name: str) -> Any:
    from finetune.comparing import asking

    quote = '"' if "'" in name else "'"  # MLflow has no other way to write the one within the other
    if quote in name:
        return None
    named = f"attributes.run_name = {quote}{name}{quote} AND tags.`finetune.kind` = 'pipeline'"
    return next(iter(asking.search(client, experiment, named)), None)
