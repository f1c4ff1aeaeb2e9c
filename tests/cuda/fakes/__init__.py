"""Stand-ins of NVIDIA's libraries on the fake driver: cuBLASLt, cuDNN, NCCL, each a small file of C++, built when a test wants it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

__all__ = ["FOLDER", "VARIABLES", "build"]

FOLDER = Path(__file__).resolve().parent
API = FOLDER.parents[2] / "core" / "engine" / "cuda"
VARIABLES = {"cublaslt": "COGKIT_LIBCUBLASLT", "cudnn": "COGKIT_LIBCUDNN", "nccl": "COGKIT_LIBNCCL"}


def build(name: str, out: Path) -> Path:
    """The library of a stand-in, compiled into a folder where it is not there yet; safe beside other processes."""
    sources = sorted(FOLDER.glob(f"{name}*.cpp"))
    read = [*sources, *sorted(FOLDER.glob("*.h")), *sorted(API.glob("*_api.h"))]
    key = hashlib.sha256(b"".join(p.read_bytes() for p in read)).hexdigest()[:16]
    library = out / f"libfake_{name}-{key}.so"
    if not library.exists():
        out.mkdir(parents=True, exist_ok=True)
        aside = out / f"{library.name}.{os.getpid()}"
        compiler = [
            os.environ.get("CXX", "g++"),
            "-std=c++17",
            "-O2",
            "-shared",
            "-fPIC",
            "-fvisibility=hidden",
            "-Wall",
            "-Wno-unused-result",
        ]
        subprocess.run([*compiler, "-I", str(API), *map(str, sources), "-o", str(aside), "-ldl", "-lrt", "-pthread"], check=True)
        aside.rename(library)
    return library
