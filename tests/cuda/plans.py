"""Plans of a few nodes, run by the reference engine and by the CUDA engine."""

from __future__ import annotations

import os

import numpy as np
from cuda.conftest import REAL
from cuda.fakes import API, VARIABLES, build

import cogkit as C
from cogkit.engine.cuda import libraries
from cogkit.engine.cuda.device import device
from cogkit.engine.cuda.driver import Commands
from cogkit.engine.cuda.plan import CudaPlan
from cogkit.engine.reference import ReferencePlan
from cogkit.engine.seeding import Run
from cogkit.engine.spaces import Space
from cogkit.lowering.ir import Graph
from cogkit.op import Type

__all__ = [
    "LIBRARIES",
    "BATCH",
    "ORDERS",
    "STEPS",
    "alike",
    "commands",
    "compare",
    "explained",
    "in_orders",
    "libraries_in_use",
    "lowered",
    "normal",
]

BATCH = C.input_variable(1).dynamic_axes  # the row space of a batch
STEPS = C.sequence.input_variable(1).dynamic_axes  # that of the steps of sequences
ORDERS = ("fwd", "rev")  # of the emulation's threads; real ones run in any


LIBRARIES = (False, True)  # whether NVIDIA's libraries are used, or what stands in for them here


def libraries_in_use(patch, use):
    """Sets whether matrix products and convolutions go to NVIDIA's libraries; without a GPU to the stand-ins of tests/cuda/fakes."""
    patch.setenv("COGKIT_CUDA_LIBRARIES", str(int(use)))
    if use and not REAL:
        for name, variable in VARIABLES.items():
            patch.setenv(variable, str(build(name, API.parents[2] / "build" / "cuda_fakes")))
    libraries.forget()


def normal(rng, *shape, dtype=np.float32):
    """Normal numbers."""
    return rng.normal(size=shape).astype(dtype)


def in_orders(run):
    """What run() gives, the same bits in each order of threads."""
    found = []
    before = os.environ.get("CUDACPU_ORDER")
    try:
        for order in ORDERS:
            os.environ["CUDACPU_ORDER"] = order
            found.append(run())
    finally:
        os.environ.pop("CUDACPU_ORDER")
        if before is not None:
            os.environ["CUDACPU_ORDER"] = before
    for x, y in zip(*found, strict=True):
        np.testing.assert_array_equal(x, y)
    return found[0]


def lowered(build, operands, lengths=None):
    """(graph, feeds, sizes) of build(values ...) on operands: arrays, with rows where they are (array, axes)."""
    graph, feeds = Graph(), {}
    sizes = {} if lengths is None else {STEPS: Space.of(lengths)}
    values = []
    for operand in operands:
        array, axes = operand if isinstance(operand, tuple) else (operand, ())
        shape = array.shape[1:] if axes else array.shape
        leaf = C.input_variable(shape, dtype=array.dtype.type, dynamic_axes=list(axes))
        if axes:
            sizes.setdefault(axes, len(array))
        feeds[leaf] = array
        values.append(graph.leaf(leaf, Type(shape, array.dtype, tuple(axes))))
    made = build(*values)
    graph.outputs = list(made) if isinstance(made, (list, tuple)) else [made]
    graph.prune()
    return graph, {leaf: feeds[leaf] for leaf in graph.leaves if any(n.leaf is leaf for n in graph.nodes)}, sizes


def compare(build, *operands, rtol=2e-5, atol=2e-6, lengths=None):
    """Checks outputs of build(values ...) on the CUDA engine against the reference, and gives them with the plan.

    build: values of operands -> value or values; operands: arrays, or (array, axes) where they have rows.
    """
    found = []
    for plan_type in (ReferencePlan, CudaPlan):
        graph, feeds, sizes = lowered(build, operands, lengths)
        plan = plan_type(graph)
        run = lambda plan=plan, feeds=feeds, sizes=sizes: plan.run(feeds, sizes, Run(1, 0, 0))  # noqa: E731
        found.append(in_orders(run) if plan_type is CudaPlan else run())
    for wish, fact in zip(*found, strict=True):
        assert wish.shape == fact.shape and wish.dtype == fact.dtype
        alike(fact, wish, rtol, atol)
    return found[1], plan


def alike(fact, wish, rtol=2e-5, atol=2e-6):
    """Checks numbers; atol: of the largest one; float64 has a millionth of the tolerances."""
    scale = 1e-6 if wish.dtype == np.float64 else 1
    finite = np.abs(wish[np.isfinite(wish)])
    np.testing.assert_allclose(fact, wish, rtol * scale, atol * scale * max(1, finite.max(initial=0)))


def commands(make, *arrays):
    """The arrays of the buffers of the call make() after it has run, for each order of threads the same."""
    d = device()
    with d.active():
        call = make()

        def run():
            memory = [d.alloc(a.nbytes) for a in arrays]
            for m, a in zip(memory, arrays, strict=True):
                d.write(m.address, a)
            scratch = d.alloc(call.scratch)
            call.set_buffers([m.address for m in memory] + [scratch.address])
            Commands(call.items).run(d.stream_handle)
            return [d.read(m.address, a.shape, a.dtype) for m, a in zip(memory, arrays, strict=True)]

        return in_orders(run)


def explained(plan):
    """Names of the kernels that a plan has run."""
    return [c.implementation for b in plan.bindings.values() for c in b.calls]
