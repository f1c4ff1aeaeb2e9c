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
from cogkit import cntk_modules


class Face(cntk_modules.Face):
    """A module that has the names of those of cogkit; what none of them has is `Missing`."""

    def _modules(self) -> list[types.ModuleType]:
        return [m for m in map(_found, self._sources) if m is not None]

    def __getattr__(self, key: str):
        try:
            return super().__getattr__(key)
        except AttributeError:
            if key.startswith("__"):
                raise
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
    top._sources = MODULES[""]
    faces = {"": top}
    for name, sources in MODULES.items():
        if name:
            faces[name] = sys.modules[f"{__name__}.{name}"] = Face(f"{__name__}.{name}", sources)
    for name in [*MODULES, *SECOND_NAMES]:
        parent, _, leaf = name.rpartition(".")
        if name:
            setattr(faces[parent], leaf, faces[SECOND_NAMES.get(name, name)])
    for face in faces.values():  # what is a function in CNTK too (default_options) hides the module of that name
        for leaf in [key for key, value in vars(face).items() if isinstance(value, Face)]:
            hiding = [getattr(m, leaf) for m in face._modules() if hasattr(m, leaf)]
            if hiding and not isinstance(hiding[0], types.ModuleType):
                setattr(face, leaf, hiding[0])


_build()
if os.environ.get("CNTK_SUITE_PACKAGE") == __name__:  # so says the program that runs CNTK's tests
    from cntk_compat.streams import put_in_place

    put_in_place()
__version__ = "2.7"
