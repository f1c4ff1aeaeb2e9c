"""GPUs through PyCUDA: context, streams, memory, and which of the host's arrays have their newest values there."""

from __future__ import annotations

import atexit
import contextlib
import threading
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from cogkit.engine.cuda import driver
from cogkit.errors import DeviceError
from cogkit.residence import elsewhere
from cogkit.variables import aligned_empty

__all__ = ["Device", "Memory", "OutOfMemory", "Resident", "count", "current", "device", "why_not"]

_LEAST_DRIVER = 12000
_HEADER = 64  # numbers that one launch writes, as in header.cu
_devices: dict[int, Device] = {}
_lock = threading.RLock()
_reason: list[str] = []


def _pycuda() -> Any:
    """PyCUDA's driver module. Raises `DeviceError` that says what is missing."""
    driver.open_driver()
    try:
        with warnings.catch_warnings(action="ignore"):  # it warns of what the error says
            import pycuda.driver as cuda
    except ImportError as e:
        raise DeviceError(f"CUDA engine: expected PyCUDA, got none ({e}); install it: pip install cogkit[cuda]") from None
    try:
        cuda.init()
    except cuda.Error as e:
        raise DeviceError(f"CUDA engine: expected a GPU, got none ({e}); use C.device.cpu()") from None
    version = cuda.get_driver_version()
    if version < _LEAST_DRIVER:
        raise DeviceError(
            f"CUDA driver: expected one for CUDA {_LEAST_DRIVER // 1000} or later, got one for {version // 1000}.{version % 1000 // 10};"
            " update the NVIDIA driver"
        )
    return cuda


def count() -> int:
    """GPUs that the engine can use; 0 where there is no driver, no PyCUDA or no GPU (see `why_not`)."""
    try:
        n = int(_pycuda().Device.count())
        _reason[:] = [] if n else ["no GPU"]
        return n
    except DeviceError as e:
        _reason[:] = [str(e)]
        return 0


def why_not() -> str:
    """Why there is no GPU to use; '' where there is one."""
    return "" if count() else _reason[0]


class OutOfMemory(DeviceError):
    """A device has not so much memory."""


class Memory:
    """Memory on a device: `address`, `size` in bytes; freed with the object, by the next thread in the device's context."""

    __slots__ = ("__weakref__", "_dead", "_held", "address", "size")

    def __init__(self, held: Any, size: int, dead: list[Any] | None = None):
        self._held, self.size, self._dead = held, size, dead
        self.address = int(held) if held is not None else 0

    def take(self) -> Any:
        """What holds the memory; it is no longer freed with this object."""
        self._dead = None
        return self._held

    def __del__(self) -> None:
        if self._dead is not None:
            self._dead.append(self._held)


class Constant(Memory):
    """Memory with an array that stays. It is copied in the order of the stream: nothing waits, and a block whose array is gone serves again."""

    __slots__ = ("_array", "_free")

    def __init__(self, owner: Device, array: np.ndarray):
        room = 1 << max(array.nbytes - 1, 255).bit_length()
        self._free = owner.free.setdefault(room, [])
        held = (self._free.pop() if self._free else owner.alloc(room).take()) if array.nbytes else None
        super().__init__(held, array.nbytes)
        self._array = array  # a stream may read it later
        if held is not None:
            with owner.told():
                owner.cuda.memcpy_htod_async(self.address, array, owner.stream)

    def __del__(self) -> None:
        if self._held is not None:
            self._free.append(self._held)


class Resident:
    """The copy on a device of an array of the host. ahead: the device has newer values; behind: the host may have."""

    __slots__ = ("__weakref__", "ahead", "array", "behind", "device", "memory")

    def __init__(self, owner: Device, array: np.ndarray, memory: Memory):
        self.device, self.memory = owner, memory
        self.ahead, self.behind = False, True
        key = id(array)
        self.array = weakref.ref(array, lambda _: elsewhere.pop(key, None))
        elsewhere[key] = self

    def bring(self, write: bool) -> None:
        """Brings the host's array up to date; write: it may be changed there."""
        if self.ahead:
            array = self.array()
            with self.device.active():
                self.device.read_into(self.memory.address, array)
            self.ahead = False
        if write:
            self.behind = True

    @property
    def lost(self) -> bool:
        """Whether the device's context has failed."""
        return self.device.lost

    def forget(self) -> None:
        """The host's array is about to be written as a whole."""
        self.ahead, self.behind = False, True

    def settle(self) -> None:
        """Brings the device's copy up to date."""
        if self.behind:
            self.device.write(self.memory.address, self.array())
            self.behind = False


class Device:
    """One GPU: its primary context, a stream for kernels and one for copies. Made by `device`."""

    def __init__(self, number: int):
        self.cuda = cuda = _pycuda()
        if not 0 <= number < cuda.Device.count():
            raise DeviceError(f"device: expected a GPU number below {cuda.Device.count()}, got {number}")
        self.number = number
        self.handle = cuda.Device(number)
        self.name = self.handle.name()
        major, minor = self.handle.compute_capability()
        self.arch = f"sm_{major}{minor}"
        self.emulated = "fakecuda" in self.name
        self._context = self.handle.retain_primary_context()
        self._inside = threading.local()
        self.lock = threading.RLock()
        self.dead: list[Any] = []  # memory that nobody has any more
        self.lost = False  # whether its context has failed
        with self.active():
            self.stream = cuda.Stream()
            self.copies = cuda.Stream()
            self.stream_handle = int(self.stream.handle)
            self.header = self.alloc(4096)
            self._constants: weakref.WeakValueDictionary[tuple, Constant] = weakref.WeakValueDictionary()
            self.free: dict[int, list[Any]] = {}  # blocks of constants that are gone, by size
        self.context_address = self.header.address
        self._header: dict[int, Any] = {}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Makes its context the one of this thread."""
        if getattr(self._inside, "depth", 0):
            self._inside.depth += 1
            try:
                yield
            finally:
                self._inside.depth -= 1
            return
        self._context.push()
        self._inside.depth = 1
        _current.value = self
        try:
            yield
        finally:
            self._inside.depth = 0
            self.cuda.Context.pop()

    # memory --------------------------------------------------------------------------------------------------------

    def alloc(self, size: int) -> Memory:
        """Memory of so many bytes. Raises `DeviceError` where there is not so much."""
        if size == 0:
            return Memory(None, 0)
        try:
            self.dead.clear()  # PyCUDA frees nothing of a context that is not this thread's
            return Memory(self.cuda.mem_alloc(size), size, self.dead)
        except self.cuda.MemoryError:
            free, total = self.cuda.mem_get_info()
            raise OutOfMemory(
                f"{self.name}: expected {size / 2**20:,.1f} MiB more, got {free / 2**20:,.1f} MiB free of {total / 2**20:,.1f}"
            ) from None

    def pinned(self, size: int) -> np.ndarray:
        """Memory of the host from which copies run beside kernels."""
        return self.cuda.pagelocked_empty(max(size, 1), np.uint8)[:size]

    def event(self) -> Any:
        """A mark on a stream, without a time."""
        return self.cuda.Event(self.cuda.event_flags.DISABLE_TIMING)

    def constant(self, array: np.ndarray) -> Memory:
        """An array that stays on the device; equal ones are one."""
        key = (array.dtype.str, array.shape, array.tobytes())
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = Constant(self, np.ascontiguousarray(array))
        return found

    def write(self, address: int, array: np.ndarray) -> None:
        """Copies an array to the device, in the order of the stream."""
        if array.nbytes:
            with self.told():
                self.stream.synchronize()
                self.cuda.memcpy_htod(address, np.ascontiguousarray(array))

    def read_into(self, address: int, array: np.ndarray) -> None:
        """Waits for the stream and copies from the device."""
        if array.nbytes:
            self.finish()
            with self.told():
                self.cuda.memcpy_dtoh(array, address)

    def read(self, address: int, shape: Any, dtype: Any) -> np.ndarray:
        """An array of what lies on the device."""
        out = aligned_empty(tuple(shape), np.dtype(dtype))
        self.read_into(address, out)
        return out

    def finish(self) -> None:
        """Waits until all on the stream is done; raises `DeviceError` where a kernel failed."""
        with self.told():
            self.stream.synchronize()

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What PyCUDA raises inside the `with` block, in the form of our errors."""
        try:
            yield
        except driver.DeviceLost:
            self.lost = True
            raise
        except self.cuda.Error as e:
            self.lost = True
            raise driver.DeviceLost(
                f"{self.name}: {e}; the GPU's context is lost: what was saved is whole, start again from the last checkpoint"
            ) from None

    def begin(self, words: np.ndarray) -> None:
        """Writes the header of a run: seed, step, first sample, then numbers; (n,) uint64. They travel as parameters of a launch."""
        for k in range(-(-len(words) // _HEADER)):
            part = words[k * _HEADER : (k + 1) * _HEADER]
            if k not in self._header:
                self._header[k] = self._header_launch(k)
            launch, commands, room = self._header[k]
            room[: len(part)] = part
            launch.write(2, room.tobytes())
            commands.run(self.stream_handle)

    def _header_launch(self, k: int) -> tuple[driver.Launch, driver.Commands, np.ndarray]:
        from cogkit.engine.cuda import images

        room = np.zeros(_HEADER, np.uint64)
        n = min(_HEADER, self.header.size // 8 - k * _HEADER)
        launch = driver.Launch(
            "header.header", images.function("header", "header"), (1,), (_HEADER,), [driver.B(0), np.int64(n), room.tobytes()]
        )
        launch.set_buffers([self.header.address + 8 * k * _HEADER])
        return launch, driver.Commands([launch]), room

    def resident(self, array: np.ndarray) -> Resident:
        """The copy of an array of the host, made at first use."""
        found = elsewhere.get(id(array))
        if found is None or found.device is not self:
            if found is not None:
                found.bring(True)
            found = Resident(self, array, self.alloc(array.nbytes))
        return found

    def close(self) -> None:
        """Gives the context back; at the end of the process."""
        with contextlib.suppress(self.cuda.Error):
            self._context.detach()


_current = threading.local()


def device(number: int = 0) -> Device:
    """A GPU by number. Raises `DeviceError` where there is none."""
    with _lock:
        if number not in _devices:
            _devices[number] = Device(number)
        return _devices[number]


def current() -> Device:
    """The GPU whose context is this thread's."""
    return getattr(_current, "value", None) or device()


@atexit.register
def _close() -> None:
    for d in list(_devices.values()):
        d.close()
