"""Places: how long values live, what is written over what, and assignments that need no copy."""

import math

import numpy as np
import pytest
from lowering.lowered import graph_of, placed
from lowering.random_graphs import KINDS, make

import cogkit as C
from cogkit.engine.cpu.plan import CpuPlan
from cogkit.lowering.layout import holder

F4 = np.float32


def parameter(*shape):
    return C.parameter(shape, init=0.5)


def arena(stores):
    return [b for b in {id(b): b for b in stores.values()}.values() if b.kind == "arena"]


def kinds(steps):
    return [s.kind for s in steps]


# -------------------------------------------------------------------------------------------------------------- writing over
def test_a_program_writes_over_what_dies_with_it():
    x = C.input_variable((4, 5))
    y = C.transpose(C.tanh(C.transpose(x, (1, 0))) * 2.0, (1, 0))
    _, stores = placed(y)
    assert len(arena(stores)) == 1  # the transposed value, written over by the program


def test_what_is_read_later_is_not_written_over():
    x = C.input_variable((4, 5))
    t = C.transpose(x, (1, 0))
    _, stores = placed(C.transpose(C.tanh(t), (1, 0)) + C.transpose(C.transpose(t, (1, 0)), (0, 1)))
    values = {(v.producer.name, v.producer.serial): b for (v, _), b in stores.items()}
    first = [b for (name, _), b in values.items() if name == "transpose"][0]
    tanh = [b for (name, _), b in values.items() if name == "tanh"][0]
    assert first is not tanh


def test_an_operand_of_another_shape_is_not_written_over():
    x = C.input_variable((4, 5))
    column = C.transpose(C.reduce_sum(C.transpose(x, (1, 0)), 0), (1, 0))
    _, stores = placed(C.transpose(column * C.transpose(C.transpose(x, (1, 0)), (1, 0)), (1, 0)))
    by = {v.type.shape: b for (v, _), b in stores.items() if v.producer.name in ("transpose", "mul")}
    assert len({id(b) for b in by.values()}) == len(by)


def test_what_a_sum_reads_is_not_written_over():
    """A program adds up its operand after it has written its results."""
    x = C.input_variable((16,))
    w = parameter(16, 16)
    h = C.times(x, w)
    y = C.times(C.exp(h) - h, w)
    e = C.combine([y, C.reduce_sum(h, C.Axis.all_axes()), C.reduce_sum(C.square(h), C.Axis.all_axes())])
    data = np.random.RandomState(0).randn(9, 16).astype(F4)
    got = e.eval({x: data})
    with C.device.use_engine("reference"):
        want = e.eval({x: data})
    for a, b in zip(got.values(), want.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_what_another_part_of_the_same_call_reads_is_not_written_over():
    """Two equal programs over other shapes are one call; the second one reads what the first one reads too."""
    x, y, z = (C.input_variable((40, 50)) for _ in range(3))
    a, b, c = (C.transpose(v, (1, 0)) for v in (x, y, z))
    first, second = C.sin(a) * b, C.sin(C.reshape(b, (2000,))) * C.reshape(c, (2000,))
    e = C.combine([C.transpose(first, (1, 0)), C.reduce_sum(C.reshape(second, (2, 1000)), 0)])
    data = [np.random.RandomState(i).randn(3, 40, 50).astype(F4) for i in range(3)]
    got = e.eval(dict(zip((x, y, z), data, strict=True)))
    with C.device.use_engine("reference"):
        want = e.eval(dict(zip((x, y, z), data, strict=True)))
    for a, b in zip(got.values(), want.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_feeds_and_variables_are_never_written_over():
    x, p = C.input_variable((4, 5)), parameter(4, 5)
    _, stores = placed(C.transpose(C.tanh(x) + C.sin(p), (1, 0)))
    assert all(b.first >= 0 for b in arena(stores))
    e = C.transpose(C.tanh(x) + C.sin(p), (1, 0))
    data = np.ones((3, 4, 5), F4)
    e.eval({x: data})
    assert np.all(data == 1) and np.all(p.value == 0.5)


# --------------------------------------------------------------------------------------------------------------- assignments
def test_an_update_is_done_in_place():
    p, g = parameter(3, 4), C.input_variable((3, 4), dynamic_axes=[])
    steps, stores = placed(effects=[C.assign(p, p - g * 0.1)])
    assert kinds(steps) == ["pointwise"] and not arena(stores)


def test_an_update_and_its_state_are_one_program_in_place():
    p, m, g = parameter(3, 4), parameter(3, 4), C.input_variable((3, 4), dynamic_axes=[])
    moved = m * 0.9 + g
    steps, stores = placed(effects=[C.assign(m, moved), C.assign(p, p - moved * 0.1)])
    assert kinds(steps) == ["pointwise"] and not arena(stores)


@pytest.mark.parametrize("why", ["read later", "transposed", "broadcast of itself", "summed", "wanted"])
def test_an_update_that_would_be_read_wrongly_is_a_copy_at_the_end(why):
    p = parameter(4, 4)
    new = p * 0.5
    outputs = []
    if why == "read later":
        outputs = [C.times(C.exp(C.times(C.input_variable((4,)), p)), p)]
    elif why == "transposed":
        new = C.transpose(C.tanh(C.transpose(p, (1, 0))), (1, 0))
    elif why == "broadcast of itself":
        new = p * C.slice(p, 0, 0, 1)
    elif why == "summed":
        outputs = [C.reduce_sum(p * p)]
    else:
        outputs = [new]
    steps, _ = placed(*outputs, effects=[C.assign(p, new)])
    if why == "broadcast of itself":  # the slice is a step of its own: what it took is safe
        assert kinds(steps) == ["take", "pointwise"] or kinds(steps)[-1] == "assign"
    else:
        assert kinds(steps)[-1] == "assign"


def test_a_value_written_to_two_variables_is_computed_once():
    p, q, g = parameter(3), parameter(3), C.input_variable((3,), dynamic_axes=[])
    new = C.tanh(g)
    steps, _ = placed(effects=[C.assign(p, new), C.assign(q, new)])
    assert kinds(steps) == ["pointwise", "assign"]


def test_of_two_assignments_one_is_dropped():
    p, g = parameter(3), C.input_variable((3,), dynamic_axes=[])
    steps, _ = placed(effects=[C.assign(p, g), C.assign(p, g * 2.0)])
    assert kinds(steps) == ["pointwise"]


# ---------------------------------------------------------------------------------------------------------------------- law
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_overwritten_before_its_last_reader(kind):
    """Runs the steps on names instead of numbers: each storage holds the value that its reader expects."""
    for seed in range(200, 230):
        m = make(seed, 25, kind)
        g = graph_of(
            *m.outputs,
            root=None if m.root is None else C.combine([m.root]),
            wrt=m.wrt,
            effects=[C.combine([v]) for v in m.effects],
        )
        plan = CpuPlan(g)
        sizes = dict.fromkeys(plan.spaces, 3)
        b = plan.binding(sizes)
        held: dict = {}  # byte range of the arena -> what lies there
        for s in plan.steps:
            if s.kind == "assign":
                reads, writes = [(s.inputs[1], s.layouts[s.inputs[1]])], []
            elif s.kind == "save":
                reads, writes = [(s.inputs[0], "plain")], [(s.inputs[0], "saved")]
            elif s.kind == "reorder":
                reads, writes = [(s.inputs[0], s.attrs["source"])], [(s.inputs[0], s.attrs["target"])]
            else:
                reads, writes = [(v, s.layouts[v]) for v in s.inputs], [(v, s.layouts[v]) for v in s.outputs]
            for v, layout in reads:
                key = holder(v, layout)
                store = plan.stores[key]
                if store.kind == "arena":
                    assert held.get(b.offset[id(store)]) == key, f"seed {seed}: {v!r} is gone before {s!r}"
            for v, layout in writes:
                key = holder(v, layout)
                store = plan.stores[key]
                if store.kind != "arena":
                    continue
                at, size = b.offset[id(store)], store.bytes(sizes)
                for other in list(held):
                    if other < at + size and at < other + _size(plan, held[other], sizes):
                        del held[other]
                held[at] = key


def _size(plan, key, sizes):
    v = key[0]
    return math.prod(v.type.shape) * v.type.dtype.itemsize * (sizes[v.type.axes] if v.type.axes else 1)
