"""Nodes of a lowered graph, run as a plan of their own on an engine: for tests of kernels without the ops around them."""

import os

import numpy as np
import pytest

from cogkit.axis import Axis
from cogkit.engine import ENGINES
from cogkit.engine.seeding import Run
from cogkit.engine.spaces import Space
from cogkit.lowering.ir import Graph
from cogkit.op import Type
from cogkit.variables import Input

__all__ = ["BATCH", "OTHER", "STEPS", "agree", "run", "spaces"]

BATCH = (Axis.default_batch_axis(),)
STEPS = (*BATCH, Axis.default_dynamic_axis())
OTHER = (*BATCH, Axis.new_unique_dynamic_axis("other"))


def spaces(lengths, other=None):
    """Row spaces of sequences of these lengths (and other ones), and of their batch."""
    sizes = {BATCH: len(lengths), STEPS: Space.of(lengths)}
    return sizes if other is None else {**sizes, OTHER: Space.of(other)}


def run(engine, build, feeds, sizes=None, times=1, seed=3, step=5):
    """The arrays that build(graph, values ...) gives. feeds: (array, row space) pairs; times: runs, of which the last counts."""
    sizes = {BATCH: 1, **(sizes or {})}
    graph, variables, values = Graph(sizes), [], []
    for array, axes in feeds:
        array = np.asarray(array)
        kind = Type(array.shape[1:] if axes else array.shape, array.dtype, axes)
        variables.append(Input(kind.shape, kind.dtype, False, False, axes, "x"))
        values.append(graph.leaf(variables[-1], kind))
    made = build(graph, *values)
    graph.outputs = made if isinstance(made, list) else [made]
    plan = ENGINES[engine](graph)
    given = {v: np.ascontiguousarray(a) for v, (a, _) in zip(variables, feeds, strict=True)}
    for _ in range(times):
        found = plan.run(given, sizes, Run(seed, step, 0))
    return found


def agree(build, feeds, sizes=None, rtol=0.0, atol=0.0, **more):
    """The CUDA engine gives what the reference does, run one by one with threads in order, and as a graph with threads in reverse."""
    want = run("reference", build, feeds, sizes, **more)
    for times, order in ((1, "fwd"), (2, "rev")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CUDACPU_ORDER", os.environ.get("CUDACPU_ORDER", order))
            got = run("cuda", build, feeds, sizes, times, **more)
        for w, g in zip(want, got, strict=True):
            w = np.asarray(w)
            assert (g.shape, g.dtype) == (w.shape, w.dtype)
            if rtol or atol:
                np.testing.assert_allclose(g, w, rtol=rtol, atol=atol)
            else:
                np.testing.assert_array_equal(g, w)
    return want
