"""Checkpoints of a trainer: two files with everything that the next minibatch depends on, named as CNTK names them.

    PATH      a model file: the graph of (model, loss, metric), the values of its parameters and constants
    PATH.ckp  state of the learners, last steps of what sequences carry on, counts, random state, and the caller's own state

PATH is a model file like any other. Where parts have no stored form (user functions) it is written without its graph: the
values alone are enough to go on. Of several ranks the first writes both; rank r keeps its state in PATH.ckp.rank<r>.

The files of one checkpoint hold the same token. A new state is written as .PATH.ckp.next, then PATH is renamed into place, which is the
moment when the new checkpoint is the one that is read, then the state takes its name. A process killed anywhere leaves the old pair or the
new one: whoever reads takes the state that has the model's token.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors

from cogkit.errors import ModelFileError
from cogkit.functions import Function
from cogkit.learners.learner import Learner
from cogkit.ops import combine
from cogkit.residence import restoring
from cogkit.store import read_json, write_tensors
from cogkit.store.model import match_values, read_arrays, values_of
from cogkit.train.ranks import ALONE, Communicator

__all__ = ["clear_leftovers", "read_checkpoint", "remove_checkpoint", "write_checkpoint"]

VERSION = 1
TOKEN = 1 << 53  # tokens are below: they travel between ranks as float64
FORMAT = "cogkit checkpoint"


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


def _state_file(path: pathlib.Path, rank: int) -> pathlib.Path:
    return path.with_name(f"{path.name}.ckp" + (f".rank{rank}" if rank else ""))


def _next(file: pathlib.Path) -> pathlib.Path:
    return file.with_name(f".{file.name}.next")


def write_checkpoint(
    path: str | os.PathLike,
    parts: Sequence[Function],
    learners: Sequence[Learner],
    own: Mapping[str, Any],
    external_state: Mapping[str, Any],
    carried: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    ranks: Communicator = ALONE,
) -> None:
    """Writes the files; see `Trainer.save_checkpoint`. All ranks call it, and all raise where one cannot write."""
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file or nothing to write a checkpoint to, got a folder")
    for learner in learners:
        learner.settle()
    behind = [learner.behind() for learner in learners]
    try:
        _write(path, parts, learners, own, external_state, carried, ranks)
    finally:
        for learner, rows in zip(learners, behind, strict=True):
            learner.put_back(rows)


def _write(
    path: pathlib.Path,
    parts: Sequence[Function],
    learners: Sequence[Learner],
    own: Mapping[str, Any],
    external_state: Mapping[str, Any],
    carried: Sequence[tuple[np.ndarray, np.ndarray]],
    ranks: Communicator,
) -> None:
    rank = ranks.rank()
    token = str(int(ranks.sum(np.array([0.0 if rank else secrets.randbelow(TOKEN)]))[0]))
    file = _state_file(path, rank)

    def state() -> None:
        found, arrays = [], {}
        for i, learner in enumerate(learners):
            made = learner.create_checkpoint()
            found.append(made["numbers"])
            arrays |= {f"learner{i}/{name}": array for name, array in made["arrays"].items()}
        for i, (last, steps) in enumerate(carried):
            arrays |= {f"carried{i}/last": np.asarray(last), f"carried{i}/steps": np.asarray(steps, np.uint8)}
        numbers = {
            "trainer": {k: repr(v) if isinstance(v, float) else v for k, v in own.items()},
            "learners": found,
            "external": _plain(dict(external_state), "external_state"),
        }
        text = json.dumps(numbers, separators=(",", ":"), allow_nan=False)
        write_tensors(_next(file), arrays, {"format": FORMAT, "version": str(VERSION), "token": token, "state": text})

    def model() -> None:
        if not rank:
            _, tensors, metadata = values_of(combine(*parts))
            write_tensors(path, tensors, metadata | {"checkpoint": token})

    try:
        _together(ranks, state)
        _together(ranks, model)
    except BaseException:
        if _token(path) != token:  # else the model is in place, and that state is the one with its token
            with contextlib.suppress(OSError):
                _next(file).unlink()
        raise
    os.replace(_next(file), file)
    if not rank:
        for stale in path.parent.glob(f"{_glob(path.name)}.ckp.rank*"):  # of a training with more ranks
            number = stale.name.rpartition("rank")[2]
            if number.isdigit() and int(number) >= ranks.num_workers():
                stale.unlink(missing_ok=True)
    ranks.barrier()


def _token(path: pathlib.Path) -> str | None:
    """The token of a model file, None where there is none."""
    try:
        with safetensors.safe_open(path, "np") as file:
            return (file.metadata() or {}).get("checkpoint")
    except (OSError, safetensors.SafetensorError):
        return None


def _glob(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _together(ranks: Communicator, write: Any) -> None:
    """Runs `write` on all ranks; where it fails on one, it fails on all."""
    error: BaseException | None = None
    try:
        write()
    except BaseException as e:
        error = e
        if ranks.num_workers() == 1:
            raise
    failed = ranks.sum(np.array([float(error is not None)]))[0]
    if error is not None:
        raise error
    if failed:
        raise OSError(f"save_checkpoint: expected all ranks to write their part, got an error on {int(failed)} of the others")


def remove_checkpoint(path: str | os.PathLike) -> None:
    """Removes the files of a checkpoint, those of all ranks; nothing happens where there is none."""
    path = pathlib.Path(path)
    path.unlink(missing_ok=True)  # without its model no state is read
    for file in [_state_file(path, 0), *path.parent.glob(f"{_glob(path.name)}.ckp.rank*")]:
        file.unlink(missing_ok=True)
        _next(file).unlink(missing_ok=True)


def clear_leftovers(path: str | os.PathLike) -> None:
    """Removes what processes left that were killed while they wrote this checkpoint. Nobody may be writing it."""
    path = pathlib.Path(path)
    name = _glob(path.name)
    for pattern in (f".{name}.*.aside", f"..{name}.ckp*.aside"):
        for file in path.parent.glob(pattern):
            file.unlink(missing_ok=True)


def _find_state(path: pathlib.Path, token: str, rank: int) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """(state, arrays, file) of the state with the model's token: this rank's, or where it has none the first rank's."""
    others = []
    for file in [f for r in dict.fromkeys((rank, 0)) for f in (_state_file(path, r), _next(_state_file(path, r)))]:
        if file.is_file():
            metadata, arrays, place = read_arrays(file, [FORMAT])
            if metadata.get("token") == token:
                return read_json(metadata["state"], place), arrays, place
            others.append(file.name)
    if others:
        raise ModelFileError(f"{path}: expected model and state of one checkpoint, got in {others[0]} the state of another one")
    raise ModelFileError(f"{path}: expected a whole checkpoint, got one without {_state_file(path, 0).name}")


def read_checkpoint(
    path: str | os.PathLike,
    parts: Sequence[Function],
    learners: Sequence[Learner],
    own: Mapping[str, Any],
    ranks: Communicator = ALONE,
) -> tuple[dict[str, Any], dict[str, Any], list[tuple[np.ndarray, np.ndarray]]]:
    """Reads and compares everything, then takes it: (the trainer's own numbers, external state, what sequences carry on)."""
    with restoring():
        return _read_checkpoint(pathlib.Path(path), parts, learners, own, ranks)


def _read_checkpoint(
    path: pathlib.Path, parts: Sequence[Function], learners: Sequence[Learner], own: Mapping[str, Any], ranks: Communicator
) -> tuple[dict[str, Any], dict[str, Any], list[tuple[np.ndarray, np.ndarray]]]:
    if not path.exists():
        if _state_file(path, 0).exists():
            raise ModelFileError(f"{path}: expected a whole checkpoint, got one without {path.name}")
        raise FileNotFoundError(f"{path}: expected a checkpoint, got nothing; write one with save_checkpoint")
    try:
        metadata, arrays, place = read_arrays(path, ["cogkit model", "cogkit values"])
        if "checkpoint" not in metadata:
            raise ModelFileError(f"{path}: expected a checkpoint, got a model alone; read it with Function.load or restore")
        state, stored, where = _find_state(path, metadata["checkpoint"], ranks.rank())
        if len(state["learners"]) != len(learners):
            raise ModelFileError(f"{where}: expected {len(learners)} learners, got {len(state['learners'])}")
        found = {key: type(value)(state["trainer"][key]) for key, value in own.items()}
        external = state["external"]
        if not isinstance(external, dict):
            raise TypeError(f"external state of type {type(external).__name__}")
        pairs = match_values(values_of(combine(*parts))[0], arrays, place)
        carried = _carried(stored, where)
        made = []
        for i, (learner, numbers) in enumerate(zip(learners, state["learners"], strict=True)):
            mine = {name.partition("/")[2]: a for name, a in stored.items() if name.startswith(f"learner{i}/")}
            made.append({"numbers": numbers, "arrays": mine})
            learner.check_checkpoint(made[-1])
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelFileError(
            f"{path}: expected a checkpoint, got {type(error).__name__}: {str(error)[:200]}; it is damaged"
        ) from None
    # every difference has been looked for: from here on nothing is refused, except a learner's numbers of the wrong kind
    before = [learner.create_checkpoint() for learner in learners]
    try:
        for learner, restored in zip(learners, made, strict=True):
            learner.restore_from_checkpoint(restored)
    except ModelFileError:
        for learner, old in zip(learners, before, strict=True):
            learner.restore_from_checkpoint(old)
        raise
    for v, array in pairs:
        v.value = array
    return found, external, carried


def _carried(arrays: Mapping[str, np.ndarray], place: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Last steps, (sequences, steps, *shape), and which of them there were."""
    out = []
    while (key := f"carried{len(out)}") + "/last" in arrays:
        last, steps = arrays[f"{key}/last"], arrays[f"{key}/steps"]
        if steps.ndim != 2 or last.shape[:2] != steps.shape:
            raise ModelFileError(f"{place}: expected steps of one shape, got {last.shape} and {steps.shape}; it is damaged")
        out.append((last, steps != 0))
    return out
