"""A training's state as files, and back: weights that are trained, optimizer, schedule, generators, position. Safetensors and JSON.

transformers' own loop finds its place in the data again (finished epochs by the order's epoch, the batches of the begun one skipped); its
files it would write with pickle, without hashes, and into the folder that an earlier checkpoint of that step stands in.
"""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.training import world

TENSORS, STATE = "tensors.safetensors", "state.json"
SHARE = 0.02  # of the time that checkpoints may take
AT_MOST = 300.0  # seconds of work that a death may cost, whatever a checkpoint takes

Tensors = dict[str, torch.Tensor]


def write(folder: Path, state: dict[str, Any]) -> None:
    """Write what is nested in dicts, lists and tuples: tensors into one file, all else into another, exactly as it is.

    Raises:
        TypeError: there is something in it that JSON can't hold.
    """
    tensors: Tensors = {}
    plain = _packed(state, tensors)
    save_file(tensors, folder / TENSORS)
    (folder / STATE).write_text(json.dumps(plain), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """Return what `write` was given; tensors on the CPU."""
    state: dict[str, Any] = _unpacked(json.loads((folder / STATE).read_text(encoding="utf-8")), load_file(folder / TENSORS))
    return state


def generators() -> dict[str, Any]:
    """The state of every generator that something may draw from: Python's, NumPy's, torch's, that of the GPU."""
    name, words, *rest = np.random.get_state(legacy=True)
    state = {"python": random.getstate(), "numpy": (name, np.asarray(words).tolist(), *rest), "torch": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def set_generators(state: dict[str, Any]) -> None:
    """Set them as they were."""
    random.setstate(state["python"])
    name, words, *rest = state["numpy"]
    np.random.set_state((name, np.array(words, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def of_all(mine: Any) -> list[Any]:
    """What each of the processes has, in the order of their ranks."""
    if world.size() == 1:
        return [mine]
    everybodys: list[Any] = [None] * world.size()
    dist.all_gather_object(everybodys, mine)
    return everybodys


class Saving(TrainerCallback):
    """Says after which steps a checkpoint is written: by the clock, and at once when the stage was told to end, which also stops it.

    The clock of the main process decides for all, since each must take part.
    """

    def __init__(self, seconds: float | None, told: Callable[[], str | None]) -> None:
        """seconds: between two checkpoints; 0: after each step; None: none. told: by what the stage was told to end."""
        self._seconds, self._told = seconds, told
        self._last = self._begun = time.monotonic()
        self._cost = 0.0
        self.ended: str | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint where one is due."""
        self._begun = time.monotonic()
        answers = of_all((self._due(state), self._told()))
        self.ended = next((told for _, told in answers if told), None)
        control.should_save = answers[0][0] or self.ended is not None
        control.should_training_stop = control.should_training_stop or self.ended is not None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Note what it took."""
        self._last = time.monotonic()
        self._cost = self._last - self._begun

    def _due(self, state: TrainerState) -> bool:
        if not self._seconds:
            return self._seconds is not None
        if 0 < state.max_steps <= state.global_step:  # validation follows, and writing the model
            return True
        stretched = min(self._cost / SHARE, AT_MOST)
        return self._begun - self._last >= max(self._seconds, stretched)


def _packed(value: Any, tensors: Tensors) -> Any:
    match value:
        case torch.Tensor():
            name = str(len(tensors))
            # a copy: two names of one memory are refused by safetensors
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
            return {"tensor": name}
        case dict():
            return {"dict": [[_packed(key, tensors), _packed(inner, tensors)] for key, inner in value.items()]}
        case tuple():
            return {"tuple": [_packed(inner, tensors) for inner in value]}
        case list():
            return [_packed(inner, tensors) for inner in value]
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a checkpoint can't hold a {type(value).__name__}")


def _unpacked(value: Any, tensors: Tensors) -> Any:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"dict": pairs}:
            return {_unpacked(key, tensors): _unpacked(inner, tensors) for key, inner in pairs}
        case {"tuple": inner}:
            return tuple(_unpacked(one, tensors) for one in inner)
        case list():
            return [_unpacked(one, tensors) for one in value]
    return value
