"""Devices, under CNTK's names."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from cogkit.engine import use_engine
from cogkit.errors import DeviceError

__all__ = [
    "DeviceDescriptor",
    "DeviceKind",
    "all_devices",
    "cpu",
    "get_gpu_properties",
    "gpu",
    "set_excluded_devices",
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
        """Whether another process holds it; cogkit locks none."""
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


def cpu() -> DeviceDescriptor:
    """The CPU."""
    return _CPU


def gpu(device_id: int) -> DeviceDescriptor:
    """A GPU by number; raises `DeviceError` where there is none."""
    raise DeviceError(
        f"device: expected a GPU number {device_id}, got none; this build has the CPU engine only (python -m cogkit doctor)"
    )


def all_devices() -> tuple[DeviceDescriptor, ...]:
    """The devices of this machine that an engine can use."""
    return (_CPU,)


def use_default_device() -> DeviceDescriptor:
    """The device that is used where none is named."""
    return _CPU


def try_set_default_device(new_default_device: DeviceDescriptor, acquire_device_lock: bool = False) -> bool:
    """Makes a device the default; False where it is excluded, or where a lock is asked for on the CPU, which has none."""
    if acquire_device_lock and new_default_device.type() is DeviceKind.CPU:
        return False
    return new_default_device in all_devices() and new_default_device not in _excluded


def set_excluded_devices(excluded_devices: Sequence[DeviceDescriptor]) -> None:
    """Devices that must not be used by default."""
    _excluded[:] = list(excluded_devices)


def get_gpu_properties(device: DeviceDescriptor) -> dict:
    """Properties of a GPU; raises `DeviceError` for the CPU."""
    raise DeviceError(f"device: expected a GPU, got {device}")
