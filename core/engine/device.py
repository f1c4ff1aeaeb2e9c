"""Devices, under CNTK's names."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, NamedTuple

from cogkit.engine import current_engine, set_engine, use_engine
from cogkit.engine.precision import current_product_precision, product_precision, set_product_precision
from cogkit.errors import DeviceError

__all__ = [
    "DeviceDescriptor",
    "DeviceKind",
    "GPUProperties",
    "all_devices",
    "cpu",
    "current_product_precision",
    "get_gpu_properties",
    "gpu",
    "local_gpu",
    "on_device",
    "product_precision",
    "set_excluded_devices",
    "set_product_precision",
    "try_set_default_device",
    "use_default_device",
    "use_engine",
]


class DeviceKind(Enum):
    """What a device is."""

    CPU = 0
    GPU = 1


class DeviceDescriptor:
    """One device; equal to another of the same kind and number."""

    def __init__(self, kind: DeviceKind, number: int):
        self._kind, self._number = kind, number

    def id(self) -> int:
        """Its number among devices of its kind."""
        return self._number

    def type(self) -> DeviceKind:
        """Its kind."""
        return self._kind

    def is_locked(self) -> bool:
        """Whether another process holds its lock."""
        if self._kind is DeviceKind.CPU or self in _locks or not os.path.exists(_lock_file(self)):
            return False
        with open(_lock_file(self)) as f:
            try:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeviceDescriptor) and (self._kind, self._number) == (other._kind, other._number)

    def __hash__(self) -> int:
        return hash((self._kind, self._number))

    def __repr__(self) -> str:
        return "CPU" if self._kind is DeviceKind.CPU else f"GPU[{self._number}]"

    __str__ = __repr__


_CPU = DeviceDescriptor(DeviceKind.CPU, 0)
_excluded: list[DeviceDescriptor] = []
# what launchers tell their processes: MPICH and Intel MPI, Open MPI, MVAPICH, Slurm
_LOCAL_RANK = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
_locks: dict[DeviceDescriptor, int] = {}  # GPUs that this process has locked: the lock file's descriptor


def cpu() -> DeviceDescriptor:
    """The CPU."""
    return _CPU


def _gpus() -> tuple[int, str]:
    """(GPUs that can be used, why there is none)."""
    from cogkit.engine.cuda import device

    n = device.count()
    return n, "" if n else device.why_not()


def gpu(device_id: int) -> DeviceDescriptor:
    """A GPU by number; raises `DeviceError` where there is none of it."""
    n, why = _gpus()
    if not 0 <= device_id < n:
        have = f"{n} GPUs" if n else f"no GPU ({why})"
        raise DeviceError(
            f"device: expected the number of a GPU that is there, got {device_id} of {have}; see python -m cogkit doctor"
        )
    return DeviceDescriptor(DeviceKind.GPU, int(device_id))


def local_gpu() -> DeviceDescriptor:
    """The GPU for this process among the ranks that `mpiexec` started on its machine: rank r of them takes GPU r, round by round.

    Raises `DeviceError` where there is no GPU.
    """
    told = (os.environ.get(name) for name in _LOCAL_RANK)
    local = next((int(t) for t in told if t and t.isdigit()), 0)
    n, _ = _gpus()
    return gpu(local % n if n else local)


def all_devices() -> tuple[DeviceDescriptor, ...]:
    """The devices of this machine that an engine can use: GPUs, then the CPU."""
    return (*(DeviceDescriptor(DeviceKind.GPU, i) for i in range(_gpus()[0])), _CPU)


def engine_of(device: DeviceDescriptor) -> str:
    """The name of the engine that runs on a device."""
    return "cpu" if device.type() is DeviceKind.CPU else f"cuda:{device.id()}" if device.id() else "cuda"


def use_default_device() -> DeviceDescriptor:
    """The device that is used where none is named: the CPU, unless `try_set_default_device` has set another one.

    Departure: CNTK takes a GPU by itself where there is one.
    """
    kind, _, number = current_engine().partition(":")
    return DeviceDescriptor(DeviceKind.GPU, int(number or 0)) if kind == "cuda" else _CPU


def try_set_default_device(new_default_device: DeviceDescriptor, acquire_device_lock: bool = False) -> bool:
    """Makes a device the default; False where it is not there, excluded, or locked by another process.

    acquire_device_lock: lock the GPU for this process until it ends; the CPU has no lock.
    """
    if new_default_device not in all_devices() or new_default_device in _excluded:
        return False
    if acquire_device_lock and not _lock(new_default_device):
        return False
    set_engine(engine_of(new_default_device))
    return True


def _lock_file(device: DeviceDescriptor) -> str:
    return os.path.join(tempfile.gettempdir(), f"cogkit-gpu{device.id()}.lock")


def _lock(device: DeviceDescriptor) -> bool:
    """Whether this process holds the lock of a GPU now."""
    if device.type() is DeviceKind.CPU:
        return False
    if device in _locks:
        return True
    handle = os.open(_lock_file(device), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return False
    _locks[device] = handle
    return True


@contextmanager
def on_device(device: Any) -> Iterator[None]:
    """Runs what is inside the `with` block on a device; None: on the one that is used anyway."""
    if not isinstance(device, DeviceDescriptor) or device == use_default_device():
        yield
        return
    with use_engine(engine_of(device)):
        yield


def set_excluded_devices(excluded_devices: Sequence[DeviceDescriptor]) -> None:
    """Devices that must not be used by default."""
    _excluded[:] = list(excluded_devices)


class GPUProperties(NamedTuple):
    """What `get_gpu_properties` tells, under CNTK's names; memory in MiB."""

    device_id: int
    version_major: int
    version_minor: int
    cuda_cores: int
    name: str
    total_memory: int
    free_memory: int


_CORES = {
    (5, 0): 128,
    (5, 2): 128,
    (6, 0): 64,
    (6, 1): 128,
    (7, 0): 64,
    (7, 5): 64,
    (8, 0): 64,
}  # float32 units of a multiprocessor


def get_gpu_properties(device: DeviceDescriptor) -> GPUProperties:
    """Properties of a GPU; raises `DeviceError` for the CPU."""
    if device.type() is DeviceKind.CPU:
        raise DeviceError(f"device: expected a GPU, got {device}")
    from cogkit.engine.cuda.device import device as open_device

    d = open_device(device.id())
    with d.active():
        free, total = d.cuda.mem_get_info()
    major, minor = d.handle.compute_capability()
    cores = d.handle.get_attribute(d.cuda.device_attribute.MULTIPROCESSOR_COUNT) * _CORES.get((major, minor), 128)
    return GPUProperties(device.id(), major, minor, cores, d.name, total >> 20, free >> 20)
