"""The ways to install: plain, editable, and from an sdist whose source tree is gone; the commands that need no network."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ["core", "layers", "data", "parallel", "papers"]

needs_git = pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs a git checkout")


def run(*command, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what a clone would hold, with the edits that are not committed yet; nothing that was built."""
    copy = tmp_path / "checkout"
    for name in run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture
def environment(tmp_path) -> Path:
    """The Python of a new environment that sees this one's packages (numpy, Cython, oneDNN) but not its cogkit."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    site = Path(run(tmp_path / "env/bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    shared = site.parent / "shared"
    shared.mkdir()
    ours = Path(sysconfig.get_path("purelib"))
    for entry in ours.iterdir():
        if "cogkit" not in entry.name.lower():
            (shared / entry.name).symlink_to(entry)
    (site / "shared.pth").write_text(f"{shared}\n")
    # Wheels that keep files outside site-packages (oneDNN's header and library) find them by ../../../, through the links.
    for folder in ("include", "lib"):
        for entry in Path(sys.prefix, folder).iterdir():
            if not (tmp_path / "env" / folder / entry.name).exists():
                (tmp_path / "env" / folder / entry.name).symlink_to(entry)
    return tmp_path / "env/bin/python"


def pip(python: Path, *arguments) -> None:
    run(python, "-m", "pip", "install", "-q", "--no-deps", *arguments)


LOOK = """
import importlib, json, cogkit, cogkit.layers, cogkit.data, cogkit.parallel, cogkit.papers
names = {names}
print(json.dumps([m.__file__ for m in [cogkit, cogkit.layers, *map(importlib.import_module, names)]]))
"""


def look(python: Path, elsewhere: Path) -> list[str]:
    """Files of an installed cogkit (face, layers, every extension), imported from a folder that has nothing to do with it."""
    folder = elsewhere / "elsewhere"
    folder.mkdir(exist_ok=True)
    names = [".".join(["cogkit", *p.relative_to(ROOT / "core").with_suffix("").parts]) for p in (ROOT / "core").rglob("*.pyx")]
    return json.loads(run(python, "-c", LOOK.format(names=names), cwd=folder).splitlines()[-1])


@pytest.mark.heavy
@needs_git
def test_plain_install(checkout, environment, tmp_path):
    pip(environment, "--no-build-isolation", checkout)
    shutil.rmtree(checkout)
    assert all("site-packages" in file for file in look(environment, tmp_path))


@pytest.mark.heavy
@needs_git
def test_editable_install(checkout, environment, tmp_path):
    pip(environment, "--no-build-isolation", "-e", checkout)
    files = look(environment, tmp_path)
    assert files[0] == str(checkout / "core/__init__.py") and files[1] == str(checkout / "layers/__init__.py")
    # An edit and a new sub-package are seen without another install.
    (checkout / "layers/newcomer").mkdir()
    (checkout / "layers/newcomer/__init__.py").write_text("word = 'seen'\n")
    assert run(environment, "-c", "import cogkit.layers.newcomer as n; print(n.word)", cwd=tmp_path).strip() == "seen"


@pytest.mark.heavy
@needs_git
def test_sdist_without_its_source_tree(checkout, environment, tmp_path):
    """Built in isolation: the requirements of [build-system] alone must do."""
    run(sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path / "dist", cwd=checkout)
    shutil.rmtree(checkout)
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    pip(environment, archive)
    assert all("site-packages" in file for file in look(environment, tmp_path))


@needs_git
def test_sdist_holds_all_that_is_tracked(checkout, tmp_path):
    run(sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path, cwd=checkout)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    tracked = set(run("git", "ls-files", cwd=ROOT).splitlines())
    absent = {name for name in tracked if (ROOT / name).is_file()} - inside - {".gitignore"}
    assert not absent, f"not in the sdist (MANIFEST.in): {sorted(absent)}"


@needs_git
def test_nothing_built_is_tracked():
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    wrong = [n for n in tracked if n.endswith((".so", ".pyc", ".o")) or n.startswith(("build/", "results/", "dist/", ".venv/"))]
    assert not wrong


def test_an_unknown_extension_is_named(tmp_path):
    environ = {**os.environ, "COGKIT_ONLY": "core/engine/cpu/nothing.pyx"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "core/engine/cpu/nothing.pyx: no such .pyx" in done.stderr


@needs_git
def test_a_broken_extension_is_named_and_the_others_are_built(checkout):
    for pyx in [p for folder in FOLDERS for p in (checkout / folder).rglob("*.pyx")]:
        pyx.unlink()
    (checkout / "core/engine/cpu/sound.pyx").write_text('"""Sound."""\n')
    (checkout / "core/engine/cpu/broken.pyx").write_text("cdef int f(:\n")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "1 of 2 extensions not built" in done.stderr and "core/engine/cpu/broken.pyx: Cython stopped" in done.stderr
    assert list((checkout / "core/engine/cpu").glob("sound.*.so"))


def test_the_doctor_prints_a_table_where_everything_is_missing(tmp_path):
    """Without site-packages, without programs: still a table, still no traceback, and the status says so."""
    shutil.copytree(ROOT / "core/engine/cpu", tmp_path / "core/engine/cpu", ignore=shutil.ignore_patterns("*.so"))
    shutil.copy(ROOT / "core/doctor.py", tmp_path / "core")
    environ = {"PATH": "/nowhere"}
    command = [sys.executable, "-S", "-I", str(tmp_path / "core/doctor.py")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stderr
    rows = {line[:16].strip(): line for line in done.stdout.splitlines()}
    assert "MISSING" in rows["oneDNN"] and "pip install onednn-cpu-gomp==2023.2.0" in rows["oneDNN"]
    assert all("report this line" not in line for line in rows.values())


def test_the_doctor_runs_where_an_extension_is_broken(tmp_path):
    """`import cogkit` fails there; the command that says why must not."""
    package = tmp_path / "cogkit"
    shutil.copytree(ROOT / "core", package)
    for folder in ("layers", "data", "parallel", "papers"):
        (package / folder).symlink_to(ROOT / folder)
    built = list((package / "engine").rglob("*.so"))
    for library in built:
        library.write_bytes(b"")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "cogkit", "doctor"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("engine cpu"))
    assert "MISSING" in row and all(library.name.split(".")[0] in row for library in built), row


def test_the_doctor_finds_what_is_here():
    done = subprocess.run([sys.executable, "-m", "cogkit", "doctor"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in (
        "python",
        "engine reference",
        "engine cpu",
        "threads",
        "instruction set",
        "oneDNN",
        "MPI: mpiexec",
        "CUDA: driver",
    ):
        assert f"\n{part} " in done.stdout
    ends = {line.find("  ") for line in done.stdout.splitlines()}
    assert ends - {-1}


def test_an_unknown_command_is_refused():
    done = subprocess.run([sys.executable, "-m", "cogkit", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("usage: python -m cogkit {convert,doctor,validate}")


def test_one_version_of_onednn_is_named_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [r.split(";")[0] for r in project["build-system"]["requires"] + project["project"]["dependencies"] if "onednn" in r]
    assert sorted(named) == ["onednn-cpu-gomp==2023.2.0"] * 2 + ["onednn-devel-cpu-gomp==2023.2.0"]
