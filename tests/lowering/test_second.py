"""Rules of gradients are written in ops, so a gradient can be differentiated again: the law that its slope is what comes out."""

import numpy as np
import pytest
from cases import Built, draw, stream
from cases.ops import CASES

import cogkit as C
from cogkit.engine import ENGINES
from cogkit.engine.feeds import bind_feeds
from cogkit.engine.seeding import Run
from cogkit.lowering.gradient import gradients
from cogkit.lowering.resolve import resolve
from cogkit.lowering.sparse import dense
from cogkit.variables import Input

F8 = np.float64
SMOOTH = [c for c in CASES if c.diff and c.fd and c.mode == "eval" and any(s.grad and s.role != "const" for s in c.specs)]


def twice(case, engine):
    """A function of an operand's value: (gradient, its product with a direction by the gradient's own gradient), and where to begin."""
    built = Built(C, case, F8, case.rows)
    operand = built.wrt["d0"] if "d0" in built.wrt else next(iter(built.wrt.values()))
    y = built.outputs[0]
    arrays, types, sizes = bind_feeds(built.feed)
    graph, (out,) = resolve([y], types, False, sizes)
    x = graph.leaf(operand, types.get(operand, operand.type))
    root, along = (Input(t.shape, F8, False, False, t.axes, "fed") for t in (out.type, x.type))
    d = dense(gradients(graph, {out: graph.leaf(root, out.type)}, [x])[0])
    dd = dense(gradients(graph, {d: graph.leaf(along, x.type)}, [x])[0])
    graph.outputs = [d, dd]
    graph.prune()
    plan = ENGINES[engine](graph)
    start = np.array(arrays[operand] if operand in arrays else operand.value)
    v = np.asarray(draw(stream(case.name, "again"), start.shape, "any"), F8)
    rows = dict(sizes)
    for made in graph.spaces:  # batches made of axes
        rows[made.axes] = made.kind[1]
    feeds = dict(arrays)
    feeds[along] = v
    feeds[root] = np.asarray(draw(stream(case.name, "root again"), shape_of(out, rows), "any"), F8)

    def run(value):
        if operand in arrays:
            feeds[operand] = np.ascontiguousarray(value)
        else:
            operand.value = value
        return plan.run(feeds, rows, Run(0, 1))

    return run, start, v


def shape_of(value, rows):
    return ((rows[value.type.axes],) if value.type.axes else ()) + value.type.shape


@pytest.mark.parametrize("engine", ["reference", "cpu"])
@pytest.mark.parametrize("case", SMOOTH, ids=[c.name for c in SMOOTH])
def test_a_gradient_of_a_gradient_is_its_slope(case, engine):
    run, x, v = twice(case, engine)
    h = 1e-5
    slope = sum(s * float(np.sum(np.array(run(x + s * h * v)[0]) * v)) for s in (1, -1)) / (2 * h)
    terms = np.array(run(x)[1]) * v
    assert abs(slope - terms.sum()) <= 1e-5 * max(1.0, abs(slope), float(np.abs(terms).sum()))
