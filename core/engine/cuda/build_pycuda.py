"""Builds PyCUDA and installs it into this Python, on a machine with or without a GPU, CUDA's toolkit not needed.

    python -m cogkit.engine.cuda.build_pycuda [--again] [--wheel-only]

PyCUDA comes as source that wants CUDA's headers and a libcuda to link to. The headers are fetched from NVIDIA's wheels, for the CUDA
version of the driver that is here (13.0 where there is none); in place of libcuda the linker gets a library that has its functions by
name only. The wheel is kept in ~/.cache/cogkit ($COGKIT_CACHE), so a minute's build happens once. Standard library only: it runs before
the rest of cogkit is built.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["PYCUDA", "build_wheel", "driver_version", "main", "name_of"]

PYCUDA = "2026.1"
# By the major version of the driver; a driver serves what was built for the same major version, so the first minor one is taken.
HEADERS = {
    12: ["nvidia-cuda-runtime-cu12==12.0.*", "nvidia-cuda-profiler-api-cu12==12.0.*"],
    13: ["nvidia-cuda-runtime==13.0.*", "nvidia-cuda-profiler-api==13.0.*"],
}


def driver_version() -> int | None:
    """The CUDA version of the driver that is here, 12040 for 12.4; None where there is none."""
    try:
        library = ctypes.CDLL(os.environ.get("COGKIT_LIBCUDA") or "libcuda.so.1")
        found = ctypes.c_int()
        return found.value if library.cuDriverGetVersion(ctypes.byref(found)) == 0 else None
    except (OSError, AttributeError):
        return None


def _cache() -> Path:
    given = os.environ.get("COGKIT_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cogkit"


def _say(line: str) -> None:
    print(f"pycuda: {line}", flush=True)


def _run(command: list[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise SystemExit(f"{tail}\npycuda: not built: `{shlex.join(command[:6])} ...` failed, its last lines are above")
    return str(done.stdout)


def _pip(*words: str, **options: object) -> str:
    return _run([sys.executable, "-m", "pip", "--disable-pip-version-check", *words], **options)


def _headers(work: Path, major: int) -> Path:
    """A folder that holds cuda.h and cudaProfiler.h."""
    _pip("install", "-q", "--no-deps", "--target", str(work / "headers"), *HEADERS[major])
    folder = work / "include"
    folder.mkdir()
    for header in (work / "headers").rglob("include/*.h"):
        (folder / header.name).write_bytes(header.read_bytes())
    for name in ("cuda.h", "cudaProfiler.h"):
        if not (folder / name).exists():
            raise SystemExit(f"pycuda: not built: expected {name} in {', '.join(HEADERS[major])}, found none")
    return folder


def _link_library(work: Path, headers: Path) -> Path:
    """A folder with a libcuda.so that has the names of all functions of the headers: for the linker, never to be loaded."""
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    (work / "all.c").write_text("#include <cuda.h>\n#include <cudaProfiler.h>\n")
    text = _run([*compiler, "-E", "-x", "c", "-I", str(headers), str(work / "all.c")])
    names = sorted(set(re.findall(r"CUresult\s+(cu[A-Z]\w+)\s*\(", text)))
    (work / "names.c").write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in names))
    (work / "lib").mkdir()
    options = ["-x", "c", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    _run([*compiler, *options, "-o", str(work / "lib/libcuda.so"), str(work / "names.c")])
    return work / "lib"


def _installed(driver: bool) -> bool:
    """Whether this Python has PyCUDA, and it loads where there is a driver: one of another major version of CUDA does not."""
    try:
        if importlib.metadata.version("pycuda") != PYCUDA:
            return False
    except importlib.metadata.PackageNotFoundError:
        return False
    load = "import ctypes, os; ctypes.CDLL(os.environ.get('COGKIT_LIBCUDA') or 'libcuda.so.1', ctypes.RTLD_GLOBAL); import pycuda.driver"
    return not driver or subprocess.run([sys.executable, "-c", load], capture_output=True, check=False).returncode == 0


def name_of(major: int) -> str:
    """The folder of the cache for this Python, this processor and a major version of CUDA."""
    return f"{PYCUDA}-cuda{major}-{sys.implementation.cache_tag}-{platform.machine()}"


def build_wheel(major: int) -> Path:
    """The wheel of PyCUDA for this Python and a major version of CUDA, from the cache or built. Raises `SystemExit` with the reason."""
    kept = _cache() / "pycuda" / name_of(major)
    for wheel in sorted(kept.glob("pycuda-*.whl")):
        _say(f"the wheel is there: {wheel}")
        return wheel
    if sys.platform != "linux":
        raise SystemExit(
            f"pycuda: not built: expected Linux, got {sys.platform}; pip install pycuda with CUDA's toolkit installed"
        )
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as folder:
        work = Path(folder)
        _say(f"fetching headers: {', '.join(HEADERS[major])}")
        headers = _headers(work, major)
        library = _link_library(work, headers)
        settings = {
            "CUDA_ROOT": str(work),
            "CUDA_INC_DIR": [str(headers)],
            "CUDADRV_LIB_DIR": [str(library)],
            "CUDA_ENABLE_CURAND": False,  # only pycuda.curandom wants it; it would make libcurand a requirement of the rest
            "CXXFLAGS": ["-w", "-g0", "-O2"],
            "LDFLAGS": ["-Wl,-s"],
        }
        # PyCUDA's setup reads its settings in the home folder; pip's own files stay where they are.
        (work / ".aksetup-defaults.py").write_text("".join(f"{k} = {v!r}\n" for k, v in settings.items()))
        home = Path.home()
        environment = {
            "XDG_CONFIG_HOME": str(home / ".config"),
            "NETRC": str(home / ".netrc"),
            **os.environ,
            "HOME": str(work),
            "PIP_CACHE_DIR": str(work / "pip"),  # pip's cache of wheels does not know the CUDA version
        }
        if (home / ".pip/pip.conf").exists():
            environment.setdefault("PIP_CONFIG_FILE", str(home / ".pip/pip.conf"))
        _say(f"building PyCUDA {PYCUDA} for CUDA {major} (a minute)")
        _pip("wheel", "-q", "--no-deps", "-w", str(work / "wheel"), f"pycuda=={PYCUDA}", env=environment)
        (made,) = (work / "wheel").glob("pycuda-*.whl")
        os.replace(made, kept / made.name)
    _say(f"kept: {kept / made.name}")
    return kept / made.name


def main(arguments: list[str] | None = None) -> None:
    """Builds and installs, saying what it does; nothing where it is installed and loads (--again: still). Raises `SystemExit` with the reason."""
    given = set(sys.argv[1:] if arguments is None else arguments)
    if given - {"--again", "--wheel-only"}:
        raise SystemExit(__doc__)
    version = driver_version()
    if not given and _installed(version is not None):
        _say(f"{PYCUDA} is installed")
        return
    if version and version < 12000:
        raise SystemExit(
            f"pycuda: not built: expected a driver for CUDA 12 or later, got {version // 1000}; update the NVIDIA driver"
        )
    major = min(version // 1000, max(HEADERS)) if version else max(HEADERS)
    _say(f"driver for CUDA {version // 1000}.{version % 1000 // 10}" if version else f"no driver here: for CUDA {major}")
    wheel = build_wheel(major)
    if "--wheel-only" not in given:
        _pip("install", "-q", "--force-reinstall", "--no-deps", str(wheel))
        _pip("install", "-q", str(wheel))
        _say(f"{PYCUDA} installed")


if __name__ == "__main__":
    main()
