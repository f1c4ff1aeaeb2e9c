"""The engines: plans, their executor, values, device, random numbers.

An engine compiles a lowered graph to a plan: an object with `run(feeds, sizes, run)` that gives the arrays of the graph's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["ENGINES", "current_engine", "half_forms", "use_engine"]

ENGINES: dict[str, Callable[..., Any]] = {}  # name -> compile(graph) -> plan
_current = ["cpu"]


def _reference(graph):
    from cogkit.engine.reference import ReferencePlan

    return ReferencePlan(graph)


def _cpu(graph):
    from cogkit.engine.cpu.plan import CpuPlan

    return CpuPlan(graph)


def _cuda(graph):
    from cogkit.engine.cuda.plan import CudaPlan

    return CudaPlan(graph)


ENGINES["reference"] = _reference
ENGINES["cpu"] = _cpu
ENGINES["cuda"] = _cuda


def half_forms(name: str) -> frozenset[str]:
    """The ops that an engine runs on half precision as it is; for others it is widened to float32."""
    if name == "reference":
        from cogkit.engine.reference import HALF_FORMS
    elif name == "cuda":
        from cogkit.engine.cuda.table import HALF_FORMS
    else:
        from cogkit.engine.cpu.kernels import HALF_FORMS
    return HALF_FORMS


def current_engine() -> str:
    """Name of the engine that new plans are made for."""
    return _current[-1]


@contextmanager
def use_engine(name: str) -> Iterator[None]:
    """Makes plans for another engine inside the `with` block: 'cpu', 'cuda' or 'reference'.

    Raises `ValueError` for an unknown one, `DeviceError` for 'cuda' where there is no GPU to use.
    """
    if name not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {name!r}")
    if name == "cuda":
        from cogkit.engine.cuda.device import device

        device()
    _current.append(name)
    try:
        yield
    finally:
        _current.pop()
