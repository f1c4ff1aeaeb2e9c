"""What cogkit finds on this machine, what it wants, and what to do about the difference.

Standard library only, and nothing of cogkit at the top: it must run where the rest does not (`python core/doctor.py` too).
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Row", "examine", "main"]

HERE = Path(__file__).resolve().parent
# Best first. Kernels are compiled once for each of x86-64-v4, v3 and plain, and pick at load time.
LEVELS = (
    ("x86-64-v4 (AVX-512)", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3 (AVX2, FMA)", {"avx2", "fma", "bmi2"}),
)
EXTRAS = ("amx_tile", "avx512_bf16", "avx512_fp16", "avx_vnni", "avx512_vnni", "f16c")


class Row(NamedTuple):
    """One line of the table; `ok` is None where a part is missing that is not required."""

    part: str
    ok: bool | None
    found: str
    wanted: str
    advice: str = ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(command: list[str]) -> str:
    """First line that a program prints, '' where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "")


def _python() -> Iterator[Row]:
    ok = sys.version_info >= (3, 11)
    found = f"{platform.python_implementation()} {platform.python_version()}"
    yield Row("python", ok, found, ">= 3.11", "" if ok else "make PYTHON=/path/to/a/newer/python")


def _packages() -> Iterator[Row]:
    try:
        requirements = importlib.metadata.requires("cogkit") or []
    except importlib.metadata.PackageNotFoundError:
        yield Row("cogkit", False, "not installed", "installed", "pip install -e .  (or make build)")
        return
    yield Row("cogkit", True, f"{_version('cogkit')} in {HERE}", "installed")
    fine, wrong = [], []
    for requirement in requirements:
        text, _, marker = requirement.partition(";")
        # oneDNN has a row of its own.
        if "extra" in marker or text.startswith("onednn"):
            continue
        name, wish = re.match(r"([\w.-]+)\s*(.*)", text.strip()).groups()  # type: ignore[union-attr]
        version = _version(name)
        if version is None or (wish.startswith(">=") and _numbers(version) < _numbers(wish)):
            wrong.append(f"{name} {wish} ({'none' if version is None else version})".replace("  ", " "))
        else:
            fine.append(f"{name} {version}")
    if wrong:
        yield Row("packages", False, f"{len(fine)} of {len(fine) + len(wrong)}; not: {', '.join(wrong)}", "all", "make build")
    else:
        yield Row("packages", True, f"{len(fine)} of {len(fine)}", "all")


def _face() -> Iterator[Row]:
    # A process of its own: what fails here may be an extension that ends the interpreter.
    done = subprocess.run([sys.executable, "-c", "import cogkit"], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 0:
        yield Row("import cogkit", True, "works", "works")
    else:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        yield Row("import cogkit", False, lines[-1], "works", "python -c 'import cogkit' shows where; make build")


def _compiler() -> Iterator[Row]:
    program = (os.environ.get("CXX") or "g++").split()[0]
    line = _output([program, "--version"])
    gcc = re.match(r"(?:g\+\+|gcc|c\+\+).* (\d+)\.\d+", line)
    ok = bool(line) and not (gcc and int(gcc[1]) < 12)
    advice = "" if ok else "install g++ 12 or later (or set CXX)"
    yield Row("C++ compiler", True if ok else None, line or f"no {program}", "GCC >= 12 (to build only)", advice)


def _engines() -> Iterator[Row]:
    numpy = _version("numpy")
    yield Row(
        "engine reference", numpy is not None, f"numpy {numpy}" if numpy else "no numpy", "numpy", "" if numpy else "make build"
    )
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
    folder = HERE / "engine"
    sources = {p.relative_to(HERE).with_suffix("") for p in folder.glob("**/*.pyx")}
    built = {Path(str(p.relative_to(HERE)).removesuffix(suffix)): p for p in folder.glob(f"**/*{suffix}")}
    _load_onednn()
    loaded, broken = [], [f"{'.'.join(name.parts)} (not built)" for name in sorted(sources - set(built))]
    for name, path in sorted(built.items()):
        try:
            # Loaded as a library, not imported: the rest of cogkit may be broken.
            ctypes.CDLL(str(path))
            loaded.append(name.name)
        except OSError as error:
            broken.append(f"{name.name} ({error})")
    good = bool(loaded) and not broken
    found = ", ".join(loaded) if good else "; ".join(broken) or "no extension"
    # those of the CUDA engine too: they look for NVIDIA's libraries when they are asked to
    yield Row("engine cpu", good, found, "all extensions", "" if good else "make build (its last lines name the broken ones)")


def _threads() -> Iterator[Row]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    text = f"{asked or usable} of {os.cpu_count()} CPUs" + (" (OMP_NUM_THREADS)" if asked else "")
    advice = ""
    quota = _cgroup_cpus()
    if quota and quota < usable and not asked:
        advice = f"export OMP_NUM_THREADS={max(1, int(quota))}: this container may use {quota:g} CPUs"
    elif asked.isdigit() and int(asked) > usable:
        advice = f"export OMP_NUM_THREADS={usable}: more threads than CPUs wait for each other"
    yield Row("threads", True if not advice else None, text, "one a CPU", advice)


def _cgroup_cpus() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _instruction_set() -> Iterator[Row]:
    wanted = "x86-64-v3 or better"
    try:
        line = next(s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("flags"))
        flags = set(line.split())
    except (OSError, StopIteration):
        yield Row(
            "instruction set", None, platform.machine(), wanted, "works; kernels are what the compiler makes for this machine"
        )
        return
    level = next((name for name, need in LEVELS if need <= flags), None)
    extras = [f for f in EXTRAS if f in flags]
    found = ", ".join([level or "x86-64", *extras])
    yield Row("instruction set", True if level else None, found, wanted, "" if level else "works, but slowly: no AVX2")


def _load_onednn() -> str | None:
    """Version of the library itself, loaded as cogkit.engine.cpu._load does it; None where there is none."""
    spec = importlib.util.spec_from_file_location("_cogkit_load", HERE / "engine" / "cpu" / "_load.py")
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.onednn_version()


def _onednn() -> Iterator[Row]:
    wheel = _version("onednn-cpu-gomp")
    needed = sys.platform == "linux" and platform.machine() == "x86_64"
    if wheel is None:
        yield Row(
            "oneDNN",
            False if needed else None,
            "none",
            "2023.2.0",
            "pip install onednn-cpu-gomp==2023.2.0" if needed else "no wheel for this machine: the engine works without",
        )
        return
    ok = wheel == "2023.2.0"
    yield Row(
        "oneDNN", ok, f"{wheel} (library {_load_onednn()})", "2023.2.0", "" if ok else "pip install onednn-cpu-gomp==2023.2.0"
    )


def _mpi() -> Iterator[Row]:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    mpiexec = shutil.which("mpiexec", path=path)
    mpi4py = _version("mpi4py")
    install = "for parallel training: pip install 'cogkit[parallel]'"
    line = _output([mpiexec, "--version"]) if mpiexec else ""
    if mpiexec and "HYDRA" in line:
        line = f"MPICH {_version('mpich') or ''}".strip()
    found = f"{line or 'mpiexec'} in {Path(mpiexec).parent}" if mpiexec else "none"
    yield Row("MPI: mpiexec", True if mpiexec else None, found, "MPICH (optional)", "" if mpiexec else install)
    ok = mpi4py is not None and _numbers(mpi4py) >= (4, 0)
    yield Row("MPI: mpi4py", True if ok else None, mpi4py or "none", ">= 4.0 (optional)", "" if ok else install)


def _cuda() -> Iterator[Row]:
    """Driver, GPUs, PyCUDA, kernels and NVIDIA's libraries: all optional, so that none is ever MISSING."""
    driver, gpus = None, []
    name = os.environ.get("COGKIT_LIBCUDA") or "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(name)
        number = ctypes.c_int()
        if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
            driver = number.value
        if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(number)) == 0:
            gpus = [_gpu(cuda, i) for i in range(number.value)]
    except (OSError, AttributeError):
        pass
    found = f"CUDA {driver // 1000}.{driver % 1000 // 10}, {len(gpus)} GPU{'s' * (len(gpus) != 1)}" if driver else "none"
    advice = "" if driver and gpus else "a GPU is optional: needs an NVIDIA GPU and its driver"
    if driver and driver < 12000:
        advice = "update the NVIDIA driver: cogkit asks for functions of CUDA 12"
    yield Row("CUDA: driver", True if driver and gpus and driver >= 12000 else None, found, ">= 12.0 (optional)", advice)
    for i, text in enumerate(gpus):
        yield Row(f"CUDA: GPU {i}", True, text, "compute capability >= 8.0 (optional)", f"C.device.gpu({i})")
    pycuda = _version("pycuda")
    advice = (
        ""
        if pycuda
        else "with a GPU: pip install 'cogkit[cuda]' (python -m cogkit.engine.cuda.build_pycuda without CUDA's toolkit)"
    )
    yield Row("CUDA: pycuda", True if pycuda else None, pycuda or "none", ">= 2024.1 (optional)", advice)
    homes = [os.environ.get(k) for k in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")]
    paths = [
        os.environ.get("COGKIT_NVCC"),
        *(os.path.join(h, "bin", "nvcc") for h in homes if h),
        "nvcc",
        "/usr/local/cuda/bin/nvcc",
    ]
    nvcc = next((f for p in paths if p and (f := shutil.which(p))), None)
    shipped = len(list((HERE / "engine" / "cuda" / "fatbin").glob("*.fatbin")))
    found = "; ".join(filter(None, [f"{shipped} families built with the package" if shipped else "", nvcc or ""])) or "none"
    advice = "" if shipped or nvcc or not gpus else "pip install nvidia-cuda-nvcc, or set COGKIT_NVCC"
    yield Row("CUDA: kernels", True if shipped or nvcc else None, found, "built with the package, or nvcc (optional)", advice)
    if gpus:
        code = "from cogkit.engine.cuda import libraries as x; print('; '.join(f'{k} {v}' for k, v in x.versions().items()))"
        line = _output([sys.executable, "-c", code])
        yield Row("CUDA: libraries", True, line, "cuBLASLt, cuDNN, NCCL (optional)", "")


def _gpu(cuda: ctypes.CDLL, number: int) -> str:
    """Name, compute capability and memory of a GPU, without a context."""
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(100)
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, 100, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return f"{name.value.decode()}, compute capability {major.value}.{minor.value}, {memory.value / 2**30:.1f} GiB"


def _papers() -> Iterator[Row]:
    version = _version("snakemake")
    advice = "" if version else "to reproduce papers: pip install 'cogkit[papers]'"
    yield Row("snakemake", True if version else None, version or "none", ">= 8 (optional)", advice)


PARTS: tuple[Callable[[], Iterator[Row]], ...] = (
    _python,
    _packages,
    _face,
    _compiler,
    _engines,
    _threads,
    _instruction_set,
    _onednn,
    _mpi,
    _cuda,
    _papers,
)


def examine() -> list[Row]:
    """All rows of the table; a part whose examination fails becomes a row that says so. Raises nothing."""
    rows: list[Row] = []
    for part in PARTS:
        try:
            rows += part()
        except Exception as error:  # the doctor never dies of the illness
            rows.append(Row(part.__name__.strip("_"), False, f"{type(error).__name__}: {error}", "", "please report this line"))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 when all required parts are there, else 1."""
    if arguments:
        print(f"usage: python -m cogkit doctor (it takes no arguments, found {' '.join(arguments)})", file=sys.stderr)
        return 2
    rows = examine()
    marks = {True: "ok", None: "-", False: "MISSING"}
    table = [("part", "state", "found", "wanted", "what to do")]
    table += [(r.part, marks[r.ok], r.found, r.wanted, r.advice) for r in rows]
    widths = [min(60, max(len(line[i]) for line in table)) for i in range(5)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0 if all(row.ok is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
