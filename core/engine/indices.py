"""Indices into the first axis of a table: numbers, truncated towards zero."""

from __future__ import annotations

import numpy as np

from cogkit.errors import Misfit
from cogkit.lowering.ir import Node

__all__ = ["bad_index", "checked"]


def bad_index(n: Node, size: int, index: float) -> Misfit:
    """The error of an index that names no row of a table of `size` rows; it names the user's node."""
    return n.misfit(f"indices in [0, {size})", f"{index:.0f}" if index.is_integer() else f"{index:g}")


def checked(n: Node, indices: np.ndarray, size: int) -> np.ndarray:
    """The indices as whole numbers. One that names no row is -1 where it stands for a row of zeros, else it raises `bad_index`."""
    good = (indices >= 0) & (indices < size)
    if not good.all() and not n.attrs.get("zeros"):
        raise bad_index(n, size, float(indices[~good].ravel()[0]))
    return np.where(good, indices, -1).astype(np.int64)
