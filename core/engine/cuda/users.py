"""User functions on the GPU: Python and C functions run on the host, on copies; kernels given as text run on the device."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from cogkit.engine.cuda import images
from cogkit.engine.cuda.driver import B, Launch
from cogkit.engine.cuda.sparsity import NULL
from cogkit.engine.cuda.table import Call, Host, blocks, f64, i64, kernel
from cogkit.engine.geometry import rows, shape
from cogkit.engine.table import Made
from cogkit.engine.user import native_arrays, run_backward, run_forward, run_native
from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.steps import Step
from cogkit.ops.native import kernel_in

__all__: list[str] = []

_ARRAYS, _RANK, _SETTINGS = 8, 8, 16  # of cogkit_user.cuh


def _array(v: Value, sizes: dict) -> tuple[tuple[int, ...], Any]:
    """Shape and element type of a value's buffer."""
    return (shape(v, sizes) if v.type.axes else v.type.shape), v.type.dtype


def _on_host(s: Step, sizes: dict, run: Any) -> Made:
    def f(given: list[np.ndarray], made: list[np.ndarray]) -> None:
        for to, result in zip(made, run(s.node, sizes, *given), strict=True):
            to[...] = result

    item = Host(f, [_array(v, sizes) for v in s.inputs], [_array(v, sizes) for v in s.outputs])
    return Call(len(item.inputs) + len(item.outputs), [item]), [(v, PLAIN) for v in (*s.inputs, *s.outputs)]


@kernel("user_forward")
def _user_forward(s: Step, sizes: dict) -> Made:
    return _on_host(s, sizes, run_forward)


@kernel("user_backward")
def _user_backward(s: Step, sizes: dict) -> Made:
    return _on_host(s, sizes, run_backward)


@kernel("native_forward", "native_backward")
def _native(s: Step, sizes: dict) -> Made:
    n = s.node
    node, back = n.attrs["call"], n.name == "native_backward"
    native = node.function.native
    name = "backward" if back else "forward"
    if native.cuda is None or not kernel_in(native.cuda, name):
        return _on_host(s, sizes, run_native)
    arrays = native_arrays(n)
    present = [v for v in arrays if v is not None]
    p, q = len(node.operands), len(node.outputs)
    groups = [arrays[:p], arrays[p : p + q], arrays[p + q : p + 2 * q], arrays[p + 2 * q :]]
    settings = node.settings
    checked = [
        *((len(g), _ARRAYS, "arrays of a kind") for g in groups),
        (len(settings), _SETTINGS, "numbers among its attributes"),
    ]
    checked += [(len(v.type.shape), _RANK, "axes") for v in present]
    for have, most, what in checked:
        if have > most:
            raise node.misfit(f"at most {most} {what} for a CUDA kernel", str(have))
    slot = {v: i for i, v in enumerate(present)}
    args: list[Any] = []
    for group in groups:  # 64-bit words that lie as those of a cogkit_call do
        for v in [*group, *[None] * (_ARRAYS - len(group))]:
            dims = () if v is None else v.type.shape
            words = [0, 0, 0, 0] if v is None else [rows(v.type, sizes), math.prod(dims), len(dims), v.type.dtype.itemsize]
            data = NULL if v is None else B(slot[v])
            args += [data, *map(i64, words), *map(i64, dims), *[i64(0)] * (_RANK - len(dims))]
    args += [f64(x) for x in [*settings, *[0.0] * (_SETTINGS - len(settings))]]
    most = max((math.prod(shape(v, sizes)) for v in n.outputs), default=0)
    if most == 0:
        return None
    module = images.module(f"user_{hashlib.sha256(native.cuda.encode()).hexdigest()[:16]}", native.cuda)
    call = Launch(f"{native.name}.{name}", module.function(name), (blocks(most),), (256,), args)
    return Call(len(present), [call]), [(v, PLAIN) for v in present]
