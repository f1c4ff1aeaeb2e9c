"""User functions on the CPU: their calls in a plan."""

from __future__ import annotations

from typing import Any

from cogkit.engine.cpu.kernels import fits, kernel
from cogkit.engine.cpu.user import NativeCall, PythonCall
from cogkit.engine.geometry import rows, shape
from cogkit.engine.table import Made
from cogkit.engine.user import native_arrays, run_backward, run_forward
from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.steps import Step

__all__: list[str] = []


def _array(v: Value, sizes: dict) -> tuple[tuple[int, ...], Any]:
    """Shape and element type of a value's buffer."""
    return (shape(v, sizes) if v.type.axes else v.type.shape), v.type.dtype


def _python(s: Step, sizes: dict) -> tuple[Any, list, list]:
    n = s.node
    run = run_forward if n.name == "user_forward" else run_backward
    return lambda *x: run(n, sizes, *x), [_array(v, sizes) for v in s.inputs], [_array(v, sizes) for v in s.outputs]


@kernel("user_forward", "user_backward")
def _user(s: Step, sizes: dict) -> Made:
    return PythonCall(*_python(s, sizes)), [(v, PLAIN) for v in (*s.inputs, *s.outputs)]


@kernel("native_forward", "native_backward")
def _native(s: Step, sizes: dict) -> Made:
    n = s.node
    node = n.attrs["call"]
    back = n.name == "native_backward"
    arrays = native_arrays(n)
    present = [v for v in arrays if v is not None]
    call = NativeCall(node.c_function(back), back, len(node.operands), len(node.outputs), _described(present, sizes),
                      node.settings, [v is not None for v in arrays], node.place)  # fmt: skip
    return call, [(v, PLAIN) for v in present]


def _described(values: list[Value], sizes: dict) -> list[tuple]:
    return [(v.type.shape, rows(v.type, sizes), v.type.dtype) for v in values]


@fits("native_forward")
def _fit_native(call: NativeCall, s: Step, sizes: dict) -> bool:
    call.resize(_described([v for v in native_arrays(s.node) if v is not None], sizes))
    return True


@fits("native_backward")
def _fit_native_backward(call: NativeCall, s: Step, sizes: dict) -> bool:
    return _fit_native(call, s, sizes)


@fits("user_forward")
def _fit_forward(call: PythonCall, s: Step, sizes: dict) -> bool:
    call.resize(*_python(s, sizes))
    return True


@fits("user_backward")
def _fit_backward(call: PythonCall, s: Step, sizes: dict) -> bool:
    return _fit_forward(call, s, sizes)
