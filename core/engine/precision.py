"""What GPUs round operands of matrix products and convolutions to."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

__all__ = ["ProductPrecision", "current_product_precision", "precision_for", "product_precision", "set_product_precision"]

_SCALES = {"float32": 1.0, "tf32": 1.0, "bfloat16": 1.0, "float16": 1024.0}  # of the loss, where none is given


class ProductPrecision(NamedTuple):
    """A precision by its name, and by how much losses are scaled for their gradients."""

    name: str = "float32"
    loss_scale: float = 1.0


_default: list[ProductPrecision] = []  # that of all threads, once it is known
_inside: ContextVar[ProductPrecision | None] = ContextVar("product precision", default=None)


def _made(what: str, precision: str, loss_scale: float | None) -> ProductPrecision:
    if precision not in _SCALES:
        raise ValueError(f"{what}: expected one of {', '.join(_SCALES)}, got {precision!r}")
    scale = _SCALES[precision] if loss_scale is None else float(loss_scale)
    if not 0 < scale < math.inf:
        raise ValueError(f"{what}: expected a loss_scale above 0, got {loss_scale}")
    return ProductPrecision(precision, scale)


def set_product_precision(precision: str, loss_scale: float | None = None) -> None:
    """From here on GPUs round operands of float32 products: 'float32' (not at all), 'tf32' (10 bits of mantissa), 'bfloat16', 'float16'.

    Of matrix products and convolutions, forward and for both gradients; sums and results are float32, and so are values, parameters,
    gradients and learners' states. Float64, sparse operands and the other engines are not touched. What is compiled already (a
    trainer after its first minibatch) keeps the precision that it was compiled with. Until one is set it is that of
    COGKIT_CUDA_PRECISION, or 'tf32' where COGKIT_CUDA_TF32 is 1, else 'float32'.

    loss_scale: gradients are computed of the loss times this and divided by it at the end, so that small ones are numbers of
    float16 too; a power of two rounds nothing (None: 1024 for 'float16', else 1). Functions of the user's get gradients that are
    scaled; gradients that come as lists of rows come whole where it is not 1. With 'float16', an operand beyond its 65504 is a
    `ValueError` that names the node, raised before any parameter is updated.
    Raises `ValueError` for another name, or a scale that is not above 0.
    """
    _default[:] = [_made("set_product_precision", precision, loss_scale)]


@contextmanager
def product_precision(precision: str, loss_scale: float | None = None) -> Iterator[None]:
    """The same for what this thread compiles inside the `with` block."""
    token = _inside.set(_made("product_precision", precision, loss_scale))
    try:
        yield
    finally:
        _inside.reset(token)


def current_product_precision() -> ProductPrecision:
    """The precision in which this thread compiles now. Raises `ValueError` where COGKIT_CUDA_PRECISION names none."""
    found = _inside.get()
    if found is not None:
        return found
    if not _default:
        given = os.environ.get("COGKIT_CUDA_PRECISION") or ("tf32" if os.environ.get("COGKIT_CUDA_TF32") == "1" else "float32")
        _default.append(_made("COGKIT_CUDA_PRECISION", given, None))
    return _default[0]


def precision_for(engine: str) -> ProductPrecision:
    """The precision in which this thread compiles for an engine now: others than the CUDA engine have but one."""
    return current_product_precision() if engine.startswith("cuda") else ProductPrecision()
