"""CNTK's module names under `cogkit`: a script's `from cntk.io import X` becomes `from cogkit.io import X`, wherever X is written here."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

__all__ = ["CNTK_MODULES"]

# CNTK's module (without `cntk.`) -> modules whose names it has, the first that has one gives it
CNTK_MODULES: dict[str, list[str]] = {
    "contrib": [],
    "contrib.netopt": ["cogkit.compress"],
    "contrib.netopt.factorization": ["cogkit.compress"],
    "contrib.netopt.quantization": ["cogkit.compress"],
    "core": ["cogkit"],
    "debugging.debug": ["cogkit.debugging", "cogkit.debugging.stepping"],
    "debugging.profiler": ["cogkit.debugging"],
    "device": ["cogkit.engine.device"],
    "distributed": ["cogkit.parallel"],
    "eval": ["cogkit.train"],
    "eval.evaluator": ["cogkit.train"],
    "evaluator": ["cogkit.train"],
    "io": ["cogkit.data"],
    "io.transforms": ["cogkit.data.transforms"],
    "layers.blocks": ["cogkit.layers", "cogkit.functions"],
    "layers.higher_order_layers": ["cogkit.layers"],
    "layers.layers": ["cogkit.layers"],
    "layers.models.attention": ["cogkit.layers"],
    "logging.progress_print": ["cogkit.logging"],
    "ops.functions": ["cogkit.functions", "cogkit.store", "cogkit"],
    "tensor": ["cogkit.variables"],
    "train.distributed": ["cogkit.parallel"],
    "train.trainer": ["cogkit.train"],
    "train.training_session": ["cogkit.train"],
}


class Face(types.ModuleType):
    """A module whose names are those of others, asked for when they are wanted."""

    def __init__(self, name: str, sources: list[str]):
        super().__init__(name, f"CNTK's name for {' and '.join(sources)}.")
        self.__path__: list[str] = []
        self._sources = sources

    def _modules(self) -> list[types.ModuleType]:
        return [importlib.import_module(name) for name in self._sources]

    @property
    def __all__(self) -> list[str]:
        return list(dict.fromkeys(n for m in self._modules() for n in getattr(m, "__all__", None) or _public(m)))

    def __getattr__(self, key: str) -> Any:
        if not key.startswith("__"):
            for module in self._modules():
                if hasattr(module, key):
                    return getattr(module, key)
        raise AttributeError(f"module {self.__name__!r} has no attribute {key!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__all__})


def _is_there(module: str) -> bool:
    """Whether a module of cogkit is in this version."""
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _public(module: types.ModuleType) -> list[str]:
    return [n for n, v in vars(module).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds CNTK's modules after all others were looked for."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package == "cogkit" and name in CNTK_MODULES and all(map(_is_there, CNTK_MODULES[name])):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Face(spec.name, CNTK_MODULES[spec.name.partition(".")[2]])

    def exec_module(self, module: types.ModuleType) -> None:
        pass


sys.meta_path.append(_Finder())
