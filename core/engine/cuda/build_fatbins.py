"""Kernels compiled ahead: one fatbin a family (sm_80, sm_90, sm_120, and PTX for what comes later), as a wheel carries them.

python -m cogkit.engine.cuda.build_fatbins [FOLDER]    # into FOLDER (default: this package), needs nvcc
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

__all__ = ["ARCHITECTURES", "FLAGS", "Used", "build", "digest", "measure"]

FOLDER = Path(__file__).resolve().parent
ARCHITECTURES = (80, 90, 120)
FLAGS = ("-std=c++17", "-O3", "--fmad=true")


class Used(NamedTuple):
    """What one kernel takes of a multiprocessor: registers and bytes of stack a thread, bytes spilled, of shared memory a block."""

    registers: int
    stack: int
    spilled: int
    shared: int


def _run(nvcc: str, arguments: Sequence[str]) -> str:
    done = subprocess.run([nvcc, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nvcc: expected {arguments[-1]} to compile, got\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout + done.stderr


def digest(text: str) -> str:
    """Of a family's text and the headers that it may include."""
    headers = "".join(p.read_text() for p in sorted(FOLDER.glob("*.cuh")))
    return hashlib.sha256((text + headers).encode()).hexdigest()


def build(nvcc: str, folder: Path, jobs: int | None = None) -> list[Path]:
    """Compiles each family of this package into `folder`/fatbin, with the digest of its sources beside it. Raises `RuntimeError`."""
    target = folder / "fatbin"
    target.mkdir(parents=True, exist_ok=True)
    gencode = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    gencode.append(f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}")

    def one(source: Path) -> Path:
        made = target / f"{source.stem}.fatbin"
        with tempfile.TemporaryDirectory(dir=target) as work:
            out = Path(work, made.name)
            _run(nvcc, ["-fatbin", *FLAGS, *gencode, "-I", str(FOLDER), "-o", str(out), str(source)])
            os.replace(out, made)
        (target / f"{source.stem}.sha256").write_text(digest(source.read_text()) + "\n")
        return made

    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        return list(pool.map(one, sorted(FOLDER.glob("*.cu"))))


def measure(nvcc: str, source: Path, arch: int = 90) -> dict[str, Used]:
    """What each kernel of a family takes on an architecture, as ptxas tells it. Raises `RuntimeError` where it does not compile."""
    with tempfile.TemporaryDirectory() as work:
        text = _run(
            nvcc, ["-cubin", f"-arch=sm_{arch}", *FLAGS, "-Xptxas=-v", "-I", str(FOLDER), "-o", f"{work}/k.cubin", str(source)]
        )
    found = {}
    for part in re.split(r"Compiling entry function ", text)[1:]:
        name = re.match(r"'(\w+)'", part)[1]  # type: ignore[index]

        def number(pattern: str, part: str = part) -> int:
            hit = re.search(pattern, part)
            return int(hit[1]) if hit else 0

        found[name] = Used(
            number(r"Used (\d+) registers"),
            number(r"(\d+) bytes stack frame"),
            number(r"(\d+) bytes spill stores"),
            number(r"(\d+) bytes smem"),
        )
    return found


def main(arguments: list[str]) -> int:
    """The command."""
    from cogkit.engine.cuda import images

    nvcc = images.compiler()
    if nvcc is None:
        print(
            "build_fatbins: expected nvcc, found none; install it (pip install nvidia-cuda-nvcc) or set COGKIT_NVCC",
            file=sys.stderr,
        )
        return 1
    for made in build(nvcc, Path(arguments[0]) if arguments else FOLDER):
        print(made, made.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
