"""What CNTK's tests take from `cntk.cntk_py`, the C++ half of CNTK."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

import cogkit as C
from cntk_compat.streams import seeded
from cogkit import initializer, variables
from cogkit.data.streams import DEFAULT_RANDOMIZATION_WINDOW_IN_CHUNKS, FULL_DATA_SWEEP, INFINITELY_REPEAT
from cogkit.ops import randomness

# CNTK has numbers for element types; here a type stands for itself.
DataType_Unknown = None
DataType_Float = np.float32
DataType_Double = np.float64
DataType_Int8 = np.int8
DataType_Int16 = np.int16
Value, NDArrayView = C.Value, C.NDArrayView
DeviceKind_GPU = C.device.DeviceKind.GPU


def reset_random_seed(seed: int) -> None:
    """The seed of the process, from which CNTK counts the seeds of what is given none."""
    C.set_seed(seed)
    initializer._serial, randomness._purposes = itertools.count(seeded(seed)), itertools.count(seed)


def set_fixed_random_seed(seed: int) -> None:
    """One seed for everything that is given none, as in CNTK: equal ops draw equal numbers, which nobody but its tests wants."""
    C.set_seed(seed)
    initializer._serial, randomness._purposes = itertools.repeat(seeded(seed)), itertools.repeat(seed)


def always_allow_setting_default_device() -> None:
    """In CNTK the first evaluation fixes the default device; in cogkit nothing does."""


def force_deterministic_algorithms() -> None:
    """cogkit has no others."""


def should_force_deterministic_algorithms() -> bool:
    """Whether only deterministic kernels run; in cogkit they always are."""
    return True


def use_sparse_gradient_aggregation_in_data_parallel_sgd(use: bool) -> None:
    """Of GPUs in CNTK; ranks of cogkit sum whole gradients."""


def allow_renaming_functions() -> None:
    """From now on functions and variables that have a name may be given another."""
    variables.renaming = True


def universal_learner(parameters: list[C.Parameter], gradients: list[C.Constant], update: C.Function) -> Any:
    """A learner whose update is a graph in which constants stand for the gradients."""
    return C.universal(lambda _, given: update.clone("share", dict(zip(gradients, given, strict=True))), parameters)


def Parameter(shape, data_type, value, *rest) -> C.Parameter:
    """A parameter in the order of arguments of CNTK's C++ half."""
    return C.Parameter(shape, value, data_type)


class ProgressWriter(C.logging.ProgressWriter):
    """A progress writer; CNTK's Python half hands its own over to the C++ half."""

    def __disown__(self):
        return self


class MinibatchSourceConfig:
    """What `MinibatchSource` is told, as CNTK hands it to its C++ half; `to_dictionary` checks it."""

    class _Switch:
        """A setting that is on, off, or left to the deserialisers."""

        value: bool | None = None

        def set(self, value: bool) -> None:
            self.value = value

    def __init__(self, deserializers: Sequence[Any] = (), randomize: bool = True):
        self.deserializers = list(deserializers)
        self.max_samples = self.max_sweeps = INFINITELY_REPEAT
        self.randomization_window_in_chunks = DEFAULT_RANDOMIZATION_WINDOW_IN_CHUNKS if randomize else 0
        self.randomization_window_in_samples = 0
        self.randomization_seed = 0
        self.is_multithreaded = self._Switch()
        self.trace_level = 1  # warnings
        self.is_frame_mode_enabled = False
        self.truncation_length = 0

    def add_deserializer(self, deserializer: Any) -> MinibatchSourceConfig:
        """One more deserialiser; gives itself."""
        self.deserializers.append(deserializer)
        return self


def to_dictionary(config: MinibatchSourceConfig) -> dict[str, Any]:
    """The settings under CNTK's keys; `ValueError` for those that exclude each other."""
    endless = (INFINITELY_REPEAT, FULL_DATA_SWEEP)
    if config.max_samples not in endless and config.max_sweeps != INFINITELY_REPEAT:
        raise ValueError("MinibatchSourceConfig: expected max_samples or max_sweeps, got both")
    chunks, samples = config.randomization_window_in_chunks, config.randomization_window_in_samples
    if chunks and samples:
        raise ValueError("MinibatchSourceConfig: expected a randomisation window in chunks or in samples, got both")
    if config.is_frame_mode_enabled and config.truncation_length:
        raise ValueError("MinibatchSourceConfig: expected frame mode or truncation, got both")
    images = any("Image" in type(d).__name__ for d in config.deserializers)
    threads = config.is_multithreaded.value
    out = {
        "frameMode": config.is_frame_mode_enabled,
        "multiThreadedDeserialization": images if threads is None else threads,
        "traceLevel": config.trace_level,
        "randomize": bool(chunks or samples),
        "deserializers": config.deserializers,
    }
    if chunks or samples:
        out["randomizationWindow"] = samples or chunks
        out["sampleBasedRandomizationWindow"] = bool(samples)
        out["randomizationSeed"] = config.randomization_seed
    if config.truncation_length:
        out["truncated"] = True
        out["truncationLength"] = config.truncation_length
    return out
