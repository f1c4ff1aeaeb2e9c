"""Checkpoints of a trainer: a folder with everything that the next minibatch depends on.

    model.safetensors     the graph of (model, loss, metric) and the values of its parameters and constants
    learner0.safetensors  state of the first learner: tensors, and its numbers as JSON in the metadata
    carried.safetensors   where sequences go on from minibatch to minibatch: the last steps of what is delayed
    state.json            version, counts, random state, and the caller's own state

model.safetensors is a model file like any other. Where parts have no stored form (user functions) it is written without its
graph: the values alone are enough to go on.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cogkit.errors import ModelFileError
from cogkit.functions import Function
from cogkit.learners.learner import Learner
from cogkit.ops import combine
from cogkit.store import find_folder, read_json, write_folder_aside, write_tensors
from cogkit.store.model import match_values, read_arrays, values_of

__all__ = ["read_checkpoint", "write_checkpoint"]

VERSION = 1
MAX_STATE = 64 << 20  # bytes of state.json


def _plain(value: Any, place: str) -> Any:
    """A caller's state as JSON; ModelFileError for what JSON has no form for."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        value = value.item()
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ModelFileError(f"save_checkpoint: expected finite numbers in the external state, got {value} at {place}")
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{place}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            raise ModelFileError(f"save_checkpoint: expected texts as keys of the external state, got others at {place}")
        return {k: _plain(v, f"{place}[{k!r}]") for k, v in value.items()}
    raise ModelFileError(
        f"save_checkpoint: expected numbers, texts, lists and dicts as external state, got a {type(value).__name__} at {place}"
    )


def write_checkpoint(
    path: str | os.PathLike,
    parts: Sequence[Function],
    learners: Sequence[Learner],
    own: Mapping[str, Any],
    external_state: Mapping[str, Any],
    carried: Sequence[tuple[np.ndarray, np.ndarray]] = (),
) -> None:
    """Writes the folder; see `Trainer.save_checkpoint`."""
    external = _plain(dict(external_state), "external_state")
    _, tensors, metadata = values_of(combine(*parts))
    states = [learner.create_checkpoint() for learner in learners]
    with write_folder_aside(path) as folder:
        write_tensors(folder / "model.safetensors", tensors, metadata)
        for i, state in enumerate(states):
            metadata = {"format": "cogkit learner", "version": str(VERSION), "numbers": json.dumps(state["numbers"])}
            write_tensors(folder / f"learner{i}.safetensors", state["arrays"], metadata)
        if carried:
            arrays = {f"{i}.{k}": np.asarray(a, a.dtype if k == "last" else np.uint8)
                      for i, pair in enumerate(carried) for k, a in zip(("last", "steps"), pair, strict=True)}  # fmt: skip
            write_tensors(folder / "carried.safetensors", arrays, {"format": "cogkit carried", "version": str(VERSION)})
        text = json.dumps(
            {"format": "cogkit checkpoint", "version": VERSION, "learners": len(states), "trainer": own, "external": external},
            indent=1,
        )
        (folder / "state.json").write_text(text, encoding="utf-8")


def read_checkpoint(
    path: str | os.PathLike, parts: Sequence[Function], learners: Sequence[Learner], own: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], list[tuple[np.ndarray, np.ndarray]]]:
    """Reads and compares everything, then takes it: (the trainer's own numbers, external state, what sequences carry on)."""
    folder = find_folder(path)
    if folder is None:
        raise FileNotFoundError(f"{path}: expected a checkpoint, got nothing; write one with save_checkpoint")
    state_file = folder / "state.json"
    try:
        if state_file.stat().st_size > MAX_STATE:
            raise ModelFileError(f"{state_file}: expected at most {MAX_STATE >> 20} MiB, got more")
        state = read_json(state_file.read_bytes(), str(state_file))
        if not isinstance(state, dict) or state.get("format") != "cogkit checkpoint":
            raise ModelFileError(f"{state_file}: expected the state of a checkpoint, got something else")
        if state["version"] != VERSION:
            raise ModelFileError(f"{path}: expected a checkpoint of version {VERSION}, got {str(state['version'])[:20]}")
        if state["learners"] != len(learners):
            raise ModelFileError(f"{path}: expected {len(learners)} learners, got {str(state['learners'])[:20]}")
        found = {key: type(value)(state["trainer"][key]) for key, value in own.items()}
        external = state["external"]
        _, arrays, place = read_arrays(folder / "model.safetensors", ["cogkit model", "cogkit values"])
        pairs = match_values(values_of(combine(*parts))[0], arrays, place)
        carried = _carried(folder)
        numbers = []
        for i, learner in enumerate(learners):
            metadata, arrays, _ = read_arrays(folder / f"learner{i}.safetensors", ["cogkit learner"])
            numbers.append({"numbers": read_json(metadata["numbers"], str(folder)), "arrays": arrays})
            learner.check_checkpoint(numbers[-1])
    except ModelFileError:
        raise
    except FileNotFoundError as error:
        missing = getattr(error, "missing", None) or pathlib.Path(error.filename).name
        raise ModelFileError(f"{path}: expected a whole checkpoint, got one without {missing}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelFileError(
            f"{path}: expected a checkpoint, got {type(error).__name__}: {str(error)[:200]}; it is damaged"
        ) from None
    # every difference has been looked for: from here on nothing is refused, except a learner's numbers of the wrong kind
    before = [learner.create_checkpoint() for learner in learners]
    try:
        for learner, restored in zip(learners, numbers, strict=True):
            learner.restore_from_checkpoint(restored)
    except ModelFileError:
        for learner, old in zip(learners, before, strict=True):
            learner.restore_from_checkpoint(old)
        raise
    for v, array in pairs:
        v.value = array
    return found, external, carried


def _carried(folder: pathlib.Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Last steps, (sequences, steps, *shape), and which of them there were."""
    if not (folder / "carried.safetensors").exists():
        return []
    _, arrays, place = read_arrays(folder / "carried.safetensors", ["cogkit carried"])
    out = []
    for i in range(len(arrays) // 2):
        last, steps = arrays[f"{i}.last"], arrays[f"{i}.steps"]
        if steps.ndim != 2 or last.shape[:2] != steps.shape:
            raise ModelFileError(f"{place}: expected steps of one shape, got {last.shape} and {steps.shape}; it is damaged")
        out.append((last, steps != 0))
    return out
