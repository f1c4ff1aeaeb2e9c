"""Every kernel through the real compiler, where there is one, and a case for every kernel."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cogkit.engine.cuda import build_fatbins, images

SOURCES = sorted(images.FOLDER.glob("*.cu"))
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
real = pytest.mark.skipif(NVCC is None, reason="needs nvcc")
SPILLS = {}  # kernels that may spill, and how many bytes


@real
@pytest.mark.parametrize("source", SOURCES, ids=[p.stem for p in SOURCES])
def test_each_family_compiles_for_a_gpu_without_spills(source, record_property):
    """Registers and spills of each kernel stand in the report (junit)."""
    found = build_fatbins.measure(NVCC, source)
    assert found, "no kernel"
    for name, used in found.items():
        record_property(
            name, f"{used.registers} registers, {used.stack} bytes of stack, {used.spilled} spilled, {used.shared} shared"
        )
        assert used.spilled <= SPILLS.get(name, 0), f"{name}: {used}"
        assert used.registers <= 255
    print("\n".join(f"{name:32} {used}" for name, used in found.items()))


@real
def test_fatbins_are_made_for_each_architecture_and_taken_where_they_are_of_these_sources(tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    for name in ("header.cu", *(p.name for p in images.FOLDER.glob("*.cuh"))):
        shutil.copy(images.FOLDER / name, small)
    monkeypatch.setattr(build_fatbins, "FOLDER", small)
    monkeypatch.setattr(images, "FOLDER", small)
    made = build_fatbins.build(NVCC, small)
    assert [p.name for p in made] == ["header.fatbin"]
    text = (small / "header.cu").read_text()
    assert images.shipped("header", text) == made[0].read_bytes()
    assert images.shipped("header", text + " ") is None
    dump = shutil.which("cuobjdump", path=os.pathsep.join([os.environ["PATH"], str(Path(NVCC).resolve().parent)]))
    if dump:
        listed = subprocess.run([dump, "-lelf", "-lptx", str(made[0])], capture_output=True, text=True, check=True).stdout
        assert all(f"sm_{a}" in listed for a in build_fatbins.ARCHITECTURES) and "ptx" in listed


def test_a_text_that_does_not_compile_is_an_error_with_the_compilers_words(cuda_environment, tmp_path, monkeypatch):
    monkeypatch.setenv("COGKIT_CACHE", str(tmp_path))
    with pytest.raises(
        Exception, match=r"(?s)CUDA kernels of wrong for sm_90: expected .* to compile them, got.*nothing_of_this_name"
    ):
        images.compiled("wrong", '#include "common.cuh"\nCG_KERNEL(wrong, float *x) { *x = nothing_of_this_name; }', "sm_90")
    assert not list(tmp_path.glob("**/*.cubin"))  # nothing half-written is kept


def test_headers_and_sources_are_shipped():
    text = (images.FOLDER.parents[2] / "setup.py").read_text()
    assert re.search(r'"cu".*"cuh"', text)
