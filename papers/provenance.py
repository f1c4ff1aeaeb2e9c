"""Where a number came from: commit, tree, machine, packages, clock."""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

__all__ = ["Clock", "describe", "hash_files", "write_json"]

PACKAGES = ("cogkit", "numpy", "onednn-cpu-gomp", "scipy", "pandas", "pillow", "mpi4py", "pycuda", "snakemake")


class Clock:
    """Wall and CPU seconds of this process since it was made, children included, on top of what earlier sittings spent."""

    def __init__(self, wall: float = 0.0, cpu: float = 0.0):
        self.wall_before, self.cpu_before = wall, cpu
        self._wall, self._cpu = time.monotonic(), self._spent()

    @staticmethod
    def _spent() -> float:
        return sum(os.times()[:4])

    @property
    def wall(self) -> float:
        return self.wall_before + time.monotonic() - self._wall

    @property
    def cpu(self) -> float:
        return self.cpu_before + self._spent() - self._cpu


def describe(folder: Path) -> dict:
    """Commit, cleanliness of the tree, machine, threads and versions, for a run of the code in `folder`."""
    return {
        **_commit(folder),
        "machine": _machine(),
        "engine": os.environ.get("COGKIT_ENGINE", "cpu"),
        "threads": _threads(),
        "python": platform.python_version(),
        "packages": _versions(),
    }


def _threads() -> int:
    """Threads that the engine may use: what the task was given, else the CPUs that this process may run on."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return (
        int(given)
        if given.isdigit() and int(given)
        else len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit(folder: Path) -> dict:
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "tree": "no repository"}
    status = _git(folder, "status", "--porcelain")
    return {"commit": commit, "tree": "unknown" if status is None else "dirty" if status else "clean"}


def _machine() -> dict:
    model, memory = platform.processor() or platform.machine(), None
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        model = found[1] if found else model
        total = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
        memory = round(int(total[1]) / 2**20, 1) if total else None
    except OSError:
        pass
    return {"cpu": model, "cpus": os.cpu_count(), "memory_gib": memory, "system": f"{platform.system()} {platform.release()}"}


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hash_files(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder with their names."""
    path, digest = Path(path), hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path)}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, content: dict) -> None:
    """Written aside, flushed, renamed: whoever looks sees the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def command_line() -> str:
    """The command as it would be typed again."""
    return " ".join(["python -m cogkit.papers", *sys.argv[1:]])
