"""User functions on the CPU: their calls in a plan."""

from __future__ import annotations

from typing import Any

from cogkit.engine.cpu.kernels import Made, fits, kernel, rows, shape
from cogkit.engine.cpu.user import PythonCall
from cogkit.engine.user import run_backward, run_forward
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


@fits("user_forward")
def _fit_forward(call: PythonCall, s: Step, sizes: dict) -> bool:
    call.resize(*_python(s, sizes))
    return True


@fits("user_backward")
def _fit_backward(call: PythonCall, s: Step, sizes: dict) -> bool:
    return _fit_forward(call, s, sizes)
