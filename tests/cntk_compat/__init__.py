"""CNTK 2.7's module names over cogkit, so that CNTK's own tests can be run against it; see `suite` and `make test-cntk`.

A module of CNTK is a face over modules of cogkit: it holds their names, and those that only CNTK's tests need (`internals`, `swig`).
What cogkit does not have is a `Missing`, so that a test file that imports such a name loses the tests that use it, not all.
"""

import importlib
import os
import sys
import types

from cntk_compat.missing import Missing
from cntk_compat.names import MODULES, SECOND_NAMES


class Face(types.ModuleType):
    """A module that holds the names of others; where two have one, the first gives it."""

    def take(self, sources: list[types.ModuleType]) -> None:
        """Holds the names of these modules, but not the modules inside them."""
        self._sources = sources
        self.__path__ = self.__dict__.get("__path__", [])
        for source in reversed(sources):
            for key in getattr(source, "__all__", None) or [n for n in vars(source) if not n.startswith("_")]:
                value = getattr(source, key)
                if not isinstance(value, types.ModuleType):
                    setattr(self, key, value)

    def __getattr__(self, key: str):
        if key.startswith("__"):
            raise AttributeError(f"module {self.__name__} has no attribute {key!r}")
        for source in self._sources:
            if hasattr(source, key):
                return getattr(source, key)
        return Missing(f"{self.__name__}.{key}")


def _found(name: str) -> types.ModuleType | None:
    """A module by name, or None where cogkit does not have it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name is None or not (name == e.name or name.startswith(e.name + ".")):
            raise
        return None


def _build() -> None:
    top = sys.modules[__name__]
    top.__class__ = Face
    faces = {"": top}
    for name in MODULES:
        if name:
            faces[name] = sys.modules[f"{__name__}.{name}"] = Face(f"{__name__}.{name}", f"CNTK's cntk.{name}.")
    for name in [*MODULES, *SECOND_NAMES]:
        parent, _, leaf = name.rpartition(".")
        if name:
            setattr(faces[parent], leaf, faces[SECOND_NAMES.get(name, name)])
    for name, sources in MODULES.items():  # last: what is a function in CNTK too (default_options) hides the module of that name
        faces[name].take([m for m in map(_found, sources) if m is not None])


_build()
if os.environ.get("CNTK_SUITE_PACKAGE") == __name__:  # so says the program that runs CNTK's tests
    from cntk_compat.streams import put_in_place

    put_in_place()
__version__ = "2.7"
