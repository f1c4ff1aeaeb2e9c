"""Errors of cogkit and the one form in which they speak.

`ValueError` for values, `TypeError` for kinds; the classes below for files, data, devices and ranks.
"""

from __future__ import annotations

import os
import sys
from types import FrameType

__all__ = ["DataError", "DeviceError", "ModelFileError", "RankError", "UserFunctionError"]

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_HOUSES = tuple(os.path.join(os.path.dirname(_PACKAGE), d) + os.sep for d in ("layers", "data", "parallel")) + (
    _PACKAGE + os.sep,
)


class DataError(ValueError):
    """A data set, stream or sample is missing, malformed or not what its description says."""


class ModelFileError(DataError):
    """A model or checkpoint file is cut, forged, of an unknown version, or does not fit the model."""


class DeviceError(RuntimeError):
    """A device or engine is missing or cannot do what was asked of it."""


class RankError(RuntimeError):
    """A rank of a parallel training is gone, late, or disagrees with the others."""


class UserFunctionError(RuntimeError):
    """A function of the user's own failed while a graph was built or run; the exception it raised is the cause."""


def user_line(frame: FrameType | None = None) -> str:
    """`file.py:12` of the innermost caller outside cogkit, from this frame outwards; '' when there is none."""
    frame = frame or sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_HOUSES) and not name.startswith("<frozen"):
            return f"{os.path.basename(name)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class Misfit(ValueError):
    """A node whose operands do not fit: a `ValueError` that keeps its parts, so that a layer can put its own name to it."""

    def __init__(self, label: str, name: str, where: str, *what: str, layer: bool = False):
        super().__init__(sentence(label, name, where, *what))
        self.label, self.name, self.where, self.what, self.layer = label, name, where, what, layer

    def inside(self, label: str, name: str, where: str) -> Misfit:
        """The same, told of the block around it: the innermost layer speaks for the nodes that it made itself, which bear its line."""
        if self.layer:
            return Misfit(self.label, self.name or name, self.where, *self.what, layer=True)
        if self.where == where:
            return Misfit(label, name, where, *self.what, layer=True)
        return self


def here(message: str) -> str:
    """`Label: expected ...` with the user's line after the label: for wrong arguments, found before there is a node."""
    label, rest = message.split(":", 1)
    where = user_line()
    return f"{label} ({where}):{rest}" if where else message


def sentence(label: str, name: str, where: str, wish: str, fact: str, way: str = "") -> str:
    """One sentence with the place, the wish, the fact and the way out."""
    place = label + (f" '{name}'" if name else "") + (f" ({where})" if where else "")
    return f"{place}: expected {wish}, got {fact}" + (f"; {way}" if way else "")
