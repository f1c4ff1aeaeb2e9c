"""PyCUDA without CUDA's toolkit: what the builder finds and says (the build itself is `make .venv/pycuda`)."""

import ctypes
import os
import subprocess
import sys

import pytest

from cogkit.engine.cuda import build_pycuda


def test_it_asks_the_driver_for_its_version(fake, monkeypatch):
    assert build_pycuda.driver_version() == 13000
    monkeypatch.setenv("COGKIT_LIBCUDA", "/nowhere/libcuda.so.1")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert build_pycuda.driver_version() is None


def test_an_old_driver_is_refused(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("COGKIT_CACHE", str(tmp_path))
    fake.set(VERSION=11080)
    with pytest.raises(SystemExit, match="expected a driver for CUDA 12 or later, got 11"):
        build_pycuda.main(["--wheel-only"])
    assert not list(tmp_path.iterdir())


def test_a_wheel_of_the_cache_is_taken(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COGKIT_CACHE", str(tmp_path))
    fake.set(VERSION=12060)
    for cuda in (12, 13):
        kept = tmp_path / "pycuda" / build_pycuda.name_of(cuda)
        kept.mkdir(parents=True)
        (kept / "pycuda-0-py3-none-any.whl").touch()
    build_pycuda.main(["--wheel-only"])
    said = capsys.readouterr().out
    assert "driver for CUDA 12.6" in said and str(tmp_path / "pycuda" / build_pycuda.name_of(12)) in said


def test_the_linker_gets_every_function_of_the_headers(tmp_path):
    headers = tmp_path / "include"
    headers.mkdir()
    (headers / "cuda.h").write_text(
        "typedef int CUresult;\n#define cuMemAlloc cuMemAlloc_v2\nCUresult cuInit(unsigned);\nCUresult cuMemAlloc(int);\n"
    )
    (headers / "cudaProfiler.h").write_text("#include <cuda.h>\nCUresult cuProfilerStart(\n    void);\n")
    folder = build_pycuda._link_library(tmp_path, headers)
    said = subprocess.run(
        ["nm", "-D", "--defined-only", folder / "libcuda.so"], capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[-1] for line in said.splitlines()} == {"cuInit", "cuMemAlloc_v2", "cuProfilerStart"}


def test_it_does_nothing_where_pycuda_is_installed():
    command = [sys.executable, build_pycuda.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COGKIT_LIBCUDA": "/nowhere"})
    assert done.stdout == f"pycuda: {build_pycuda.PYCUDA} is installed\n"
    assert subprocess.run([*command, "--help"], capture_output=True, text=True, check=False).returncode == 1


def test_pycuda_that_does_not_load_is_none(fake, monkeypatch, tmp_path):
    assert build_pycuda._installed(False) and build_pycuda._installed(True)
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda/__init__.py").write_text("raise ImportError('undefined symbol')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert not build_pycuda._installed(True)
