"""Who imports whom, read from the syntax trees; names are exported where they are written; one copy of every module."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "core": "cogkit",
    "layers": "cogkit.layers",
    "data": "cogkit.data",
    "parallel": "cogkit.parallel",
    "papers": "cogkit.papers",
}

# Parts of core, left to right: a part imports itself and what stands on an earlier line, never a part of its own line.
# A part that is named nowhere (variables, functions, ops, losses, ...) is "graph".
RANKS = [
    ["graph"],
    ["lowering", "store"],
    ["engine"],
    ["learners", "random"],
    ["train", "compress"],
    ["logging", "debugging", "doctor"],
    ["face"],
]
RANK = {part: rank for rank, parts in enumerate(RANKS) for part in parts}


def part_of(module: str, modules: dict[str, Path]) -> tuple[str, str]:
    """(group, part): ('core', 'engine'), ('papers', 'resnet'), ('layers', ''); a paper is a folder with a train.py."""
    words = module.split(".")[1:]
    if not words:
        return "core", "face"
    if words[0] in ("layers", "data", "parallel"):
        return words[0], ""
    if words[0] == "papers":
        return "papers", words[1] if len(words) > 1 and f"cogkit.papers.{words[1]}.train" in modules else ""
    if words[0] == "__main__":
        return "core", "face"
    return "core", words[0] if words[0] in RANK else "graph"


def allowed(importer: str, imported: str, modules: dict[str, Path]) -> bool:
    """Whether the arrow importer -> imported is one that the design draws."""
    (group, part), (other, other_part) = part_of(importer, modules), part_of(imported, modules)
    if group == "core" and part == "face":
        return other != "papers"
    if group == "papers":
        # Papers share what lies in papers/ itself; nothing reaches into a paper but the paper.
        return other != "papers" or other_part in ("", part)
    if other == "core":
        return other_part != "face" and (group != "core" or part == other_part or RANK[other_part] < RANK[part])
    return group == other


def find_modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of every .py and .pyx of the five folders."""
    modules = {}
    for folder, package in FOLDERS.items():
        for path in sorted([*(root / folder).rglob("*.py"), *(root / folder).rglob("*.pyx")]):
            words = path.relative_to(root / folder).with_suffix("").parts
            modules[".".join([package, *(words[:-1] if words[-1] == "__init__" else words)])] = path
    return modules


def read_imports(module: str, path: Path, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import, wherever in the file: absolute, relative, in functions, by import_module("...")."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".pyx":
        # No syntax tree for Cython: its import lines are simple enough to read.
        for number, line in enumerate(text.splitlines(), 1):
            if match := re.match(r"\s*(?:from|import|cimport)\s+(cogkit[\w.]*)(?:\s+c?import\s+(.*))?", line):
                names = re.findall(r"\w+", re.sub(r"\bas\s+\w+|#.*", "", match[2] or ""))
                yield from ((number, resolve(match[1], name, modules)) for name in names or [""])
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *base.split(".")] if base else above)
            yield from ((node.lineno, resolve(base, alias.name, modules)) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def resolve(base: str, name: str, modules: dict[str, Path]) -> str:
    """The module that `from base import name` reaches: base.name where that is a module, else base."""
    full = f"{base}.{name}"
    return full if full in modules or (base == "cogkit" and name in FOLDERS) else base


def wrong_arrows(root: Path) -> list[str]:
    """One sentence for each import that the design does not draw."""
    modules, wrong = find_modules(root), []
    for module, path in modules.items():
        for line, imported in read_imports(module, path, modules):
            first = imported.split(".")[0]
            place = f"{path.relative_to(root)}:{line}"
            if first in FOLDERS or first in ("tests", "benchmarks"):
                wrong.append(f"{place}: imports {imported}; a folder's name is no module: write cogkit...")
            elif first == "cogkit" and not allowed(module, imported, modules):
                wrong.append(f"{place}: {module} imports {imported}, an arrow that the design does not draw")
    return wrong


def test_imports_follow_the_design():
    assert not (wrong := wrong_arrows(ROOT)), "\n".join(wrong)


PLANTED = {
    "graph to lowering": ("core/functions.py", "from cogkit.lowering import resolve"),
    "ops to engine, in a function": ("core/ops/dense.py", "def f():\n    from cogkit.engine import session"),
    "lowering to engine, relative": ("core/lowering/fuse.py", "from ..engine import plan"),
    "engine to train": ("core/engine/plan.py", "import cogkit.train.trainer"),
    "store to lowering": ("core/store/model.py", "from cogkit import lowering"),
    "learners to train": ("core/learners/sgd.py", "from cogkit import train"),
    "graph to engine, by name": ("core/variables.py", "import importlib\nimportlib.import_module('cogkit.engine.session')"),
    "core to layers": ("core/ops/dense.py", "from cogkit.layers.dense import Dense"),
    "core to the face": ("core/train/trainer.py", "import cogkit as C"),
    "layers to data": ("layers/dense.py", "from cogkit import data"),
    "data to parallel, relative": ("data/source.py", "from ..parallel import communicator"),
    "parallel to layers": ("parallel/ranks.py", "import cogkit.layers"),
    "core to a paper": ("core/train/trainer.py", "from cogkit.papers.resnet import model"),
    "a paper to a paper": ("papers/resnet/train.py", "from cogkit.papers.vgg.model import vgg"),
    "what papers share to a paper": ("papers/sheets.py", "from cogkit.papers.vgg import model"),
    "a folder's own name": ("layers/dense.py", "import core.ops"),
    "engine to train, in Cython": ("core/engine/executor.pyx", "    from cogkit.train import trainer  # why"),
    "engine to train, cimport": ("core/engine/executor.pyx", "from cogkit.train.step cimport run"),
}
FINE = {
    "core/train/trainer.py": "from cogkit.engine import plan\nfrom cogkit.ops import dense\nfrom cogkit import functions",
    "core/engine/plan.py": "from cogkit.lowering.fuse import x\nfrom cogkit.variables import y\nfrom . import executor",
    "core/ops/dense.py": "from cogkit.functions import f\nfrom cogkit.errors import e",
    "core/__init__.py": "from cogkit.train import *\nfrom cogkit import layers",
    "layers/dense.py": "from cogkit.ops import times\nfrom . import other\nimport numpy",
    "papers/resnet/train.py": "import cogkit as C\nfrom cogkit.papers.resnet import model\nfrom cogkit.papers import sheets",
    "papers/verdict.py": "from cogkit.data import x\nfrom cogkit.papers.sheets import y",
}
SKELETON = """
    core/engine/executor.pyx core/engine/__init__.py core/lowering/__init__.py core/learners/__init__.py core/store/__init__.py
    core/train/__init__.py core/functions.py layers/other.py papers/resnet/train.py papers/vgg/train.py papers/sheets.py
"""


def plant(root: Path, files: dict[str, str]) -> Path:
    for name in SKELETON.split():
        files = {name: "", **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


def test_arrows_of_the_design_pass(tmp_path):
    assert wrong_arrows(plant(tmp_path, FINE)) == []


@pytest.mark.parametrize("case", PLANTED)
def test_planted_arrow_is_caught(case, tmp_path):
    name, text = PLANTED[case]
    wrong = wrong_arrows(plant(tmp_path, {name: text}))
    assert len(wrong) == 1 and wrong[0].startswith(f"{name}:{len(text.splitlines())}: "), wrong


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("where", ["elsewhere", "repository"])
def test_a_folder_is_no_module(folder, where, tmp_path):
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    directory = tmp_path if where == "elsewhere" else ROOT
    command = [sys.executable, "-c", f"import {folder}"]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"No module named '{folder}'" in done.stderr


def public_names(tree: ast.Module) -> list[str]:
    """Names without underscore that a module's own top level defines."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def has_all(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
        for node in tree.body
    )


def test_public_names_are_exported_where_they_are_written():
    missing = []
    for path in find_modules(ROOT).values():
        if path.suffix == ".py" and path.name != "__main__.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if (names := public_names(tree)) and not has_all(tree):
                missing.append(f"{path.relative_to(ROOT)}: no __all__, though it defines {', '.join(names[:5])}")
    assert not missing, "\n".join(missing)
