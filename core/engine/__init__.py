"""The engines: plans, their executor, values, device, random numbers.

An engine compiles a lowered graph to a plan: an object with `run(feeds, sizes, run)` that gives the arrays of the graph's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["ENGINES", "compile_graph", "current_engine", "half_forms", "set_engine", "use_engine"]

ENGINES: dict[str, Callable[..., Any]] = {}  # name -> compile(graph) -> plan
_current = ["cpu"]


def _reference(graph):
    from cogkit.engine.reference import ReferencePlan

    return ReferencePlan(graph)


def _cpu(graph):
    from cogkit.engine.cpu.plan import CpuPlan

    return CpuPlan(graph)


def _cuda(graph, number=0):
    from cogkit.engine.cuda.plan import CudaPlan

    return CudaPlan(graph, int(number))


ENGINES["reference"] = _reference
ENGINES["cpu"] = _cpu
ENGINES["cuda"] = _cuda


def compile_graph(engine: str, graph: Any) -> Any:
    """The plan of a lowered graph. engine: 'cpu', 'reference', or 'cuda' and 'cuda:N' for GPU N."""
    name, _, number = engine.partition(":")
    return ENGINES[name](graph, *([number] if number else []))


def half_forms(name: str) -> frozenset[str]:
    """The ops that an engine runs on half precision as it is; for others it is widened to float32."""
    if name == "reference":
        from cogkit.engine.reference import HALF_FORMS
    elif name.startswith("cuda"):
        from cogkit.engine.cuda.table import HALF_FORMS
    else:
        from cogkit.engine.cpu.kernels import HALF_FORMS
    return HALF_FORMS


def current_engine() -> str:
    """Name of the engine that new plans are made for."""
    return _current[-1]


def _check(name: str) -> None:
    kind, _, number = name.partition(":")
    if kind not in ENGINES or (number and (kind != "cuda" or not number.isdigit())):
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    if kind == "cuda":
        from cogkit.engine.cuda.device import device

        device(int(number or 0))


def set_engine(name: str) -> None:
    """Makes plans for another engine from here on. Raises as `use_engine`."""
    _check(name)
    _current[0] = name


@contextmanager
def use_engine(name: str) -> Iterator[None]:
    """Makes plans for another engine inside the `with` block: 'cpu', 'cuda' (or 'cuda:N' for GPU N) or 'reference'.

    Raises `ValueError` for an unknown one, `DeviceError` for 'cuda' where there is no such GPU.
    """
    _check(name)
    _current.append(name)
    try:
        yield
    finally:
        _current.pop()
