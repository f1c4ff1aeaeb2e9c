"""Formats: chains of images keep theirs, copies stand at the borders, once each; views are taken from plain values."""

import numpy as np
import pytest
from lowering.lowered import graph_of, placed

import cogkit as C
from cogkit.engine.executable import Executable
from cogkit.lowering.fuse import fuse
from cogkit.lowering.layout import PLAIN, assign_layouts

pytest.importorskip("cogkit.engine.cpu.onednn")
F4 = np.float32


def image(channels=3, size=6):
    return C.input_variable((channels, size, size), needs_gradient=True)


def kernel(o, i, k=3):
    return C.parameter((o, i, k, k), init=C.glorot_uniform(seed=1))


def conv(x, o, k=3):
    return C.convolution(kernel(o, x.shape[0], k), x, auto_padding=[False, True, True])


def reorders(steps):
    return [(s.attrs["source"], s.attrs["target"]) for s in steps if s.kind == "reorder"]


def test_a_chain_is_copied_at_its_end_alone():
    y = conv(C.relu(conv(C.tanh(conv(image(), 16)), 32)), 16)
    assert reorders(placed(y)[0]) == [("c16", "plain")]


def test_an_input_of_16_channels_is_copied_once():
    x = image(16)
    assert reorders(placed(C.reduce_sum(conv(x, 16) * conv(x, 16)))[0]) == [("plain", "c16")]


def test_what_is_between_follows():
    """Normalisation, activation, pooling and addition take and give the format that is there."""
    x = image(16)
    h = C.layers.BatchNormalization(map_rank=1)(conv(x, 16))
    h = C.layers.MaxPooling((2, 2), strides=(2, 2))(C.relu(h + x))
    steps, _ = placed(C.reduce_sum(conv(h, 16)))
    assert reorders(steps) == [("plain", "c16")]


def test_training_a_residual_block_copies_only_at_borders():
    x = image(16)
    h = C.relu(C.layers.BatchNormalization(map_rank=1)(conv(x, 16)))
    h = C.relu(C.layers.BatchNormalization(map_rank=1)(conv(h, 16)) + x)
    loss = C.reduce_sum(C.square(C.layers.GlobalAveragePooling()(h)))
    wrt = [v for v in loss.parameters]
    steps, _ = placed(root=loss, wrt=wrt)
    assert reorders(steps) == [("plain", "c16")]


def test_odd_channels_are_plain():
    assert reorders(placed(conv(conv(image(), 17), 5))[0]) == []


def test_channels_without_extent_are_plain():
    """(16, 1, 1) is the same bytes in both formats."""
    assert reorders(placed(conv(C.tanh(conv(image(16, 1), 16, 1)), 16, 1))[0]) == []


def test_a_view_of_another_shape_reads_the_plain_value():
    y = conv(image(), 16)
    assert reorders(placed(C.reshape(y, (6, 16, 6)) * 2.0)[0]) == [("c16", "plain")]


def test_a_view_of_the_same_shape_keeps_the_format():
    y = conv(C.stop_gradient(C.tanh(conv(image(), 16))), 16)
    assert reorders(placed(y)[0]) == [("c16", "plain")]


def test_two_readers_share_a_copy():
    y = conv(image(), 16)
    steps, _ = placed(C.transpose(y, (1, 2, 0)), C.slice(y, 0, 0, 3), y)
    assert reorders(steps) == [("c16", "plain")]


@pytest.mark.parametrize("shape", [(576,), (36, 16), (16, 36), (1, 16, 6, 6), (16, 6, 6, 1), (32, 3, 6), (48, 4, 3)])
def test_a_convolution_of_a_reshaped_convolution(shape):
    """Through a view and back: the values and gradients are the reference's."""
    x = image()
    a, b = kernel(16, 3), kernel(16, 16)
    h = C.tanh(C.convolution(a, x, auto_padding=[False, True, True]))
    y = C.convolution(b, C.reshape(C.reshape(h, shape), (16, 6, 6)) + h, auto_padding=[False, True, True])
    again = C.convolution(kernel(16, shape[0]), C.reshape(h, shape), auto_padding=[False, True, True]) if len(shape) == 3 else y
    loss = C.reduce_sum(C.square(y)) + C.reduce_sum(C.sin(again))
    found = {}
    data = np.random.RandomState(0).randn(3, 3, 6, 6).astype(F4)
    for engine in ("cpu", "reference"):
        found[engine] = Executable([y.output, again.output], roots=loss.output, wrt=[x, a, b], training=True, engine=engine).run(
            {x: data}
        )
    for got, want in zip(found["cpu"], found["reference"], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=2e-4 * np.abs(want).max())


def test_an_engine_without_formats_copies_nothing():
    g = graph_of(conv(C.relu(conv(image(16), 16)), 16))
    steps = assign_layouts(fuse(g), g.outputs, lambda s, formats: ([PLAIN] * len(s.inputs), [PLAIN] * len(s.outputs)))
    assert reorders(steps) == [] and all(set(s.layouts.values()) == {PLAIN} for s in steps)


def test_a_chooser_that_changes_its_mind_is_served():
    """Each step gets the formats it asked for, from a copy where there is none yet."""
    x = image(16)
    g = graph_of(C.reduce_sum(C.square(conv(C.tanh(conv(C.tanh(conv(x, 16)), 16)), 16))))
    turn = []

    def choose(step, formats):
        turn.append(step)
        want = "c16" if len(turn) % 2 else PLAIN
        return [want if v.type.shape == (16, 6, 6) else PLAIN for v in step.inputs], [PLAIN] * len(step.outputs)

    steps = assign_layouts(fuse(g), g.outputs, choose)
    have = {(v, PLAIN) for v in g.leaves.values()}
    for s in steps:
        if s.kind == "reorder":
            assert (s.inputs[0], s.attrs["source"]) in have
            have.add((s.inputs[0], s.attrs["target"]))
        else:
            assert all(((v, s.layouts[v]) in have) for v in s.inputs), s
            have.update((v, s.layouts[v]) for v in s.outputs)
    assert len(reorders(steps)) >= 3
