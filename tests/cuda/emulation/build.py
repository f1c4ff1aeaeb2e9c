"""Builds the emulated CUDA driver, a libcuda.so.1, into a folder named by the hash of its sources.

python tests/cuda/emulation/build.py    # prints its path
"""

import ctypes
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["NVCC", "Fake", "build", "environment"]

HERE = Path(__file__).resolve().parent
NVCC = HERE / "nvcc"
FLAGS = ["-std=c++17", "-O1", "-g0", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", "-shared", "-Wl,-soname,libcuda.so.1"]


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX") or "g++")


def _wanted_by_pycuda() -> list[str]:
    """Names of the driver's functions that the installed PyCUDA is linked to; none where there is no PyCUDA."""
    spec = importlib.util.find_spec("pycuda")
    names: set[str] = set()
    for folder in spec.submodule_search_locations or [] if spec else []:
        for library in Path(folder).glob("_driver*.so"):
            done = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
            names |= {line.split()[-1] for line in done.stdout.splitlines() if line.split()[-1].startswith("cu")}
    return sorted(names)


def build(folder: Path | str | None = None) -> Path:
    """The path of the library, made where it is missing; folder: where such folders lie (build/cuda_emulation).

    Functions that fakecuda.cpp does not have and PyCUDA is linked to answer "not supported". Raises `CalledProcessError`.
    """
    sources = [*sorted(HERE.glob("fakecuda*.cpp")), HERE / "fakecuda.h", HERE / "launch.h"]
    wanted = _wanted_by_pycuda()
    parts = [*(p.read_text() for p in sources), *wanted, *FLAGS, *_compiler(), platform.machine()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    made = Path(folder or HERE.parents[2] / "build" / "cuda_emulation") / key / "libcuda.so.1"
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    for old in (made.parents[1], made.parents[1] / "kernels"):
        if old.exists():
            _forget_old(old)
    with tempfile.TemporaryDirectory(dir=made.parent) as work:
        text = "".join(p.read_text() for p in sources)
        rest = [name for name in wanted if f" {name}(" not in text]
        Path(work, "rest.c").write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in rest))
        subprocess.run([*_compiler(), "-x", "c", "-fPIC", "-O1", "-c", "-o", f"{work}/rest.o", f"{work}/rest.c"], check=True)
        subprocess.run([*_compiler(), *FLAGS, "-o", f"{work}/made.so", *sources[:-2], f"{work}/rest.o", "-ldl"], check=True)
        os.replace(f"{work}/made.so", made)
    return made


def _forget_old(folder: Path) -> None:
    """Removes what was made more than a week ago."""
    for path in folder.iterdir():
        if path.stat().st_mtime < time.time() - 7 * 86400:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def environment(library: Path) -> dict[str, str]:
    """What a process needs to run the CUDA engine on the emulation; kernels that were compiled are kept beside the library."""
    kernels = library.parents[1] / "kernels"
    kernels.mkdir(exist_ok=True)
    return {"COGKIT_LIBCUDA": str(library), "COGKIT_NVCC": str(NVCC), "COGKIT_CACHE": str(kernels)}


class Fake:
    """The emulated driver, loaded into this process for PyCUDA and for the engine, and what only it can do."""

    COUNTS = ("launches", "captured", "graph_launches", "live", "bytes", "streams", "events", "modules", "transfers")

    def __init__(self, path: Path):
        self.path = path
        self.library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        self.library.fakecuda_last_error.restype = ctypes.c_char_p

    def counts(self) -> dict[str, int]:
        """Launches (with those captured), those captured, launches of graphs, live blocks and their bytes, streams, events, modules, copies."""
        out = (ctypes.c_long * len(self.COUNTS))()
        self.library.fakecuda_counts(out)
        return dict(zip(self.COUNTS, out, strict=True))

    def set(self, **switches: int) -> None:
        """Sets DEVICES, VERSION, MEMORY, LAZY or LOSE_AFTER (fakecuda.cpp says what they mean)."""
        for name, value in switches.items():
            if self.library.fakecuda_set(name.encode(), ctypes.c_long(value)):
                raise ValueError(f"expected a switch of fakecuda.cpp, got {name}")

    def reset(self) -> None:
        """All switches as they are by themselves; no error."""
        self.library.fakecuda_reset()

    def last_error(self) -> str:
        """The last line that it said, '' for none."""
        return self.library.fakecuda_last_error().decode()


if __name__ == "__main__":
    print(build(*sys.argv[1:]))
