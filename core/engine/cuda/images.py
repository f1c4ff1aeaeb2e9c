"""Kernel images: the .cu file of each family, compiled for the GPU that is there.

In order: the fatbin that the package was built with, when it is of these sources; the cache on disk; a compiler ($COGKIT_NVCC, nvcc of $CUDA_HOME
or the path). What is compiled goes to the cache ($COGKIT_CACHE, else ~/.cache/cogkit/cuda).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

from cogkit.engine.cuda.build_fatbins import FLAGS, digest
from cogkit.engine.cuda.driver import Module
from cogkit.errors import DeviceError

__all__ = ["FOLDER", "compiled", "compiler", "function", "kept", "module"]

FOLDER = Path(__file__).resolve().parent
_lock = threading.RLock()
_modules: dict[tuple[int, str], Module] = {}


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    given = os.environ.get("COGKIT_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cogkit" / "cuda"


@cache
def compiler() -> str | None:
    """The path of nvcc, or None."""
    homes = [os.environ.get(k) for k in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")]
    paths = [
        os.environ.get("COGKIT_NVCC"),
        *(os.path.join(h, "bin", "nvcc") for h in homes if h),
        "nvcc",
        "/usr/local/cuda/bin/nvcc",
    ]
    return next((found for p in paths if p and (found := shutil.which(p))), None)


@cache
def _version() -> str:
    done = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=False)
    return done.stdout


def kept(name: str, text: str, arch: str, include: Path = FOLDER) -> Path:
    """Where the image of a .cu text is kept. Raises `DeviceError` where there is no compiler to make it."""
    nvcc = compiler()
    if nvcc is None:
        raise DeviceError(
            f"CUDA kernels of {name} for {arch}: expected a compiler, found none; install nvcc (pip install nvidia-cuda-nvcc) or set COGKIT_NVCC"
        )
    headers = "".join(p.read_text() for p in sorted(include.glob("*.cuh")))
    key = hashlib.sha256("\0".join([text, headers, arch, *FLAGS, nvcc, _version()]).encode()).hexdigest()[:24]
    return cache_folder() / f"{name}.{arch}.{key}.cubin"


def compiled(name: str, text: str, arch: str, include: Path = FOLDER) -> bytes:
    """The image of a .cu text for an architecture ('sm_90'). Raises `DeviceError` where it cannot be compiled."""
    image = kept(name, text, arch, include)
    if not image.exists():
        image.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=image.parent, prefix=f".{name}-") as work:
            source, made = Path(work, f"{name}.cu"), Path(work, "made.cubin")
            source.write_text(text)
            command = [compiler(), f"-arch={arch}", "-cubin", *FLAGS, "-I", str(include), "-o", str(made), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not made.exists():
                raise DeviceError(
                    f"CUDA kernels of {name} for {arch}: expected {command[0]} to compile them, got\n{(done.stdout + done.stderr)[-4000:]}"
                )
            os.replace(made, image)
    return image.read_bytes()


def shipped(name: str, text: str) -> bytes | None:
    """The fatbin that the package was built with, when it is of this text and these headers."""
    image, stamp = FOLDER / "fatbin" / f"{name}.fatbin", FOLDER / "fatbin" / f"{name}.sha256"
    if not image.exists() or not stamp.exists():
        return None
    return image.read_bytes() if stamp.read_text().strip() == digest(text) else None


def module(name: str, text: str | None = None) -> Module:
    """The kernels of a family, or of a text of its own name, loaded into the current device's context."""
    from cogkit.engine.cuda.device import current

    device = current()
    key = (device.number, name)
    with _lock:
        if key not in _modules:
            source = (FOLDER / f"{name}.cu").read_text() if text is None else text
            image = shipped(name, source) if text is None and not device.emulated else None
            _modules[key] = Module(image or compiled(name, source, device.arch), name)
        return _modules[key]


def function(family: str, name: str) -> int:
    """The handle of a kernel of a family."""
    return module(family).function(name)
