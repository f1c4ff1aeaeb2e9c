"""Ops written in C++, compiled when tests ask for them."""

import functools
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import cogkit as C


@functools.cache
def compiled(source: str = "user_ops.cpp") -> str:
    """The path of the shared library of a source in this folder."""
    folder = tempfile.mkdtemp(prefix="cogkit-native-")
    library = os.path.join(folder, Path(source).stem + ".so")
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    text = Path(__file__).with_name(source)
    flags = ["-std=c++17", "-O3", "-march=native", "-fno-trapping-math", "-shared", "-fPIC", f"-I{C.native_user_include()}"]
    subprocess.run([*compiler, *flags, str(text), "-o", library], check=True)
    return library
