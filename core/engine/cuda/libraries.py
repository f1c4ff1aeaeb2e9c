"""Where NVIDIA's libraries are, and which: cuBLASLt, cuDNN and NCCL are looked for at run time, and nothing needs them.

In order: the path in the library's variable of the environment ('none': do without it), what the process has loaded already, the folders
nvidia/*/lib of Python's packages, the system's loader. Of several names the newest that the driver can run comes first.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import sys
import threading
from typing import NamedTuple

from cogkit.errors import DeviceError

__all__ = ["KNOWN", "Known", "Library", "context", "driver_version", "find", "forget", "packaged", "versions"]


class Known(NamedTuple):
    """A library: its title, names of its file with the CUDA version that each needs at least, newest first, the variable of the
    environment that names another file, the package that brings it, and the function that tells its version."""

    title: str
    names: dict[str, int]
    variable: str
    package: str
    version: str


KNOWN = {
    "cublaslt": Known(
        "cuBLASLt",
        {"libcublasLt.so.13": 13000, "libcublasLt.so.12": 12000},
        "COGKIT_LIBCUBLASLT",
        "nvidia-cublas",
        "cublasLtGetVersion",
    ),
    "cudnn": Known("cuDNN", {"libcudnn.so.9": 12000}, "COGKIT_LIBCUDNN", "nvidia-cudnn-cu13", "cudnnGetVersion"),
    "nccl": Known("NCCL", {"libnccl.so.2": 12000}, "COGKIT_LIBNCCL", "nvidia-nccl-cu13", "ncclGetVersion"),
}
_lock = threading.RLock()
_found: dict[str, Library | DeviceError] = {}
_drivers: dict[str, ctypes.CDLL] = {}


class Library:
    """A library that is loaded: `path` (or the name by which the loader found it) and the addresses of its functions."""

    def __init__(self, known: Known, path: str, handle: ctypes.CDLL):
        self.known, self.path, self._handle = known, path, handle

    def address(self, symbol: str) -> int:
        """Address of a function. Raises `DeviceError` where the library has none of that name."""
        try:
            return ctypes.cast(getattr(self._handle, symbol), ctypes.c_void_p).value or 0
        except AttributeError:
            raise DeviceError(
                f"{self.known.title} ({self.path}): expected a version with {symbol}, got an older one; install {self.known.package}"
            ) from None

    @property
    def version(self) -> str:
        """Version that the library gives of itself, e.g. '9.19.0'."""
        address, number = self.address(self.known.version), ctypes.c_int()
        if self.known.title == "NCCL":
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int))(address)(ctypes.byref(number))
            n = number.value
        else:
            n = ctypes.CFUNCTYPE(ctypes.c_size_t)(address)()
        # a major version has 10000; before 10.0 cuBLAS had 1000, and NCCL before 2.9
        return f"{n // 10000}.{n // 100 % 100}.{n % 100}" if n >= 10000 else f"{n // 1000}.{n // 100 % 10}.{n % 100}"

    def runs_on(self, cuda: int) -> None:
        """Raises `DeviceError` where the driver is older than the CUDA version (13000 for 13.0) that the library was made with."""
        driver = driver_version()
        if driver and cuda // 1000 > driver // 1000:
            raise DeviceError(
                f"{self.known.title} ({self.path}): expected a driver for CUDA {cuda // 1000} or later, got one for {driver // 1000}."
                f"{driver % 1000 // 10}; update the NVIDIA driver, or install the package for CUDA {driver // 1000}"
            )


def find(name: str) -> Library:
    """A library of `KNOWN`, loaded. Raises `DeviceError` that says where it was looked for; the answer is kept."""
    with _lock:
        if name not in _found:
            try:
                if name == "cudnn":  # it looks for cuBLASLt by name, and may not find it where the package lies
                    with contextlib.suppress(DeviceError):
                        find("cublaslt")
                _found[name] = _load(KNOWN[name])
            except DeviceError as e:
                _found[name] = e
        found = _found[name]
    if isinstance(found, DeviceError):
        raise DeviceError(str(found))
    return found


def forget() -> None:
    """Forgets what was found and what was not: the next `find` looks again."""
    with _lock:
        _found.clear()


def _load(known: Known) -> Library:
    given = os.environ.get(known.variable)
    if given in ("none", "0"):
        raise DeviceError(f"{known.title}: not used, for ${known.variable} is {given}")
    if given:
        try:
            return Library(known, given, ctypes.CDLL(given, os.RTLD_NOW | os.RTLD_GLOBAL))
        except OSError as e:
            raise DeviceError(f"{known.title}: expected the library that ${known.variable} names, got none ({e})") from None
    driver = driver_version()
    reasons = []
    for name, cuda in known.names.items():
        if driver and cuda > driver:
            reasons.append(f"{name} wants a driver for CUDA {cuda // 1000}")
            continue
        try:
            return Library(known, name, ctypes.CDLL(name, os.RTLD_NOW | os.RTLD_NOLOAD))
        except OSError:
            pass
        for path in (*packaged(name), name):
            try:
                return Library(known, path, ctypes.CDLL(path, os.RTLD_NOW | os.RTLD_GLOBAL))
            except OSError as e:
                if os.sep in path:
                    reasons.append(str(e))
    reason = f" ({'; '.join(reasons)})" if reasons else ""
    raise DeviceError(
        f"{known.title}: expected {' or '.join(known.names)}, got none{reason}; install {known.package}, or name it in ${known.variable}"
    )


def packaged(name: str) -> list[str]:
    """Paths of a library in the folders of NVIDIA's Python packages, in the order of Python's path, newest CUDA first."""
    found = []
    for folder in dict.fromkeys(p or os.getcwd() for p in sys.path):
        found += sorted(glob.glob(os.path.join(glob.escape(folder), "nvidia", "*", "lib", name)), reverse=True)
    return found


def _driver() -> ctypes.CDLL | None:
    name = os.environ.get("COGKIT_LIBCUDA") or "libcuda.so.1"
    if name not in _drivers:
        try:
            _drivers[name] = ctypes.CDLL(name, os.RTLD_NOW | os.RTLD_GLOBAL)
        except OSError:
            return None
    return _drivers[name]


def driver_version() -> int:
    """Newest CUDA version that the driver runs, 13000 for 13.0; 0 without a driver."""
    cuda, version = _driver(), ctypes.c_int()
    return version.value if cuda is not None and cuda.cuDriverGetVersion(ctypes.byref(version)) == 0 else 0


def context() -> int:
    """Address of this thread's CUDA context, to which handles and plans belong; 0 without one."""
    cuda, address = _driver(), ctypes.c_void_p()
    return (address.value or 0) if cuda is not None and cuda.cuCtxGetCurrent(ctypes.byref(address)) == 0 else 0


def versions() -> dict[str, str]:
    """For each library its version and path, or why it is not used; creates no handle and no context."""
    found = {}
    for name, known in KNOWN.items():
        try:
            library = find(name)
            found[known.title] = f"{library.version} ({library.path})"
        except DeviceError as e:
            found[known.title] = str(e)
    return found
