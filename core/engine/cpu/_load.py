"""Puts oneDNN into the process before the first extension that needs it is imported."""

import ctypes
import importlib.metadata
import os

__all__ = ["load_gomp", "load_onednn", "onednn_path", "onednn_version"]

_library: ctypes.CDLL | None = None
SPINS = "1000"  # of a waiting thread before it sleeps


def load_gomp() -> None:
    """Loads libgomp, the thread pool of all kernels, so that its threads soon sleep where they wait in vain.

    By default they spin for milliseconds: as fast on a machine of our own (9.3 against 9.5 ms a step of a recurrence of 100 steps, two threads),
    but a hundred times slower where others use the cores (1500 against 25 ms). OMP_WAIT_POLICY and GOMP_SPINCOUNT, where
    set, decide; the library reads them once, so what is set here is taken back.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:  # another thread library: the extensions bring it
        pass
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def onednn_path() -> str | None:
    """Full path of the wheel's libdnnl.so.3, None where the wheel is not installed."""
    try:
        files = importlib.metadata.files("onednn-cpu-gomp") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "libdnnl.so.3":
            return os.path.realpath(str(file.locate()))
    return None


def load_onednn() -> bool:
    """Load libdnnl.so.3 for all extensions to come; False where there is none, or none is wanted (COGKIT_WITHOUT_ONEDNN=1).

    The engine then works without it: products and convolutions of native.cpp, slower.

    The wheel lies in a folder that the dynamic loader does not search, so it is opened by its full path; an extension
    asks for `libdnnl.so.3` by name and gets the copy that is already there.
    """
    global _library
    if os.environ.get("COGKIT_WITHOUT_ONEDNN") == "1":
        return False
    if _library is None:
        path = onednn_path()
        if path is None:
            return False
        _library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    return True


def onednn_version() -> str | None:
    """Version that the loaded library gives of itself, e.g. '3.2.0'; None without oneDNN."""

    class Version(ctypes.Structure):
        _fields_ = [("major", ctypes.c_int), ("minor", ctypes.c_int), ("patch", ctypes.c_int)]

    if not load_onednn() or _library is None:
        return None
    _library.dnnl_version.restype = ctypes.POINTER(Version)
    version = _library.dnnl_version().contents
    return f"{version.major}.{version.minor}.{version.patch}"
