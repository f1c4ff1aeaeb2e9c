"""Convolutions of the CUDA engine, by our own kernels and by libraries, against the reference."""

import numpy as np
import pytest
from cuda.plans import BATCH, LIBRARIES, compare, explained, libraries_in_use, normal

from cogkit.engine.cuda import convolution, cudnn_graphs, libraries, products

FLOATS = {"f4": np.float32, "f8": np.float64}


@pytest.fixture(autouse=True)
def use(request, monkeypatch):
    """Whether libraries are used; by themselves tests are of our own kernels."""
    libraries_in_use(monkeypatch, getattr(request, "param", False))
    yield getattr(request, "param", False)
    libraries.forget()


def settings(rank, groups=1, strides=1, dilation=1, pads=(0, 0)):
    spread = lambda x: tuple(x) if isinstance(x, list) else (x,) * rank  # noqa: E731
    return {"strides": spread(strides), "dilation": spread(dilation), "pads": spread(pads), "groups": groups}


def check(x, w, dtype=np.float32, rows=True, seed=0, **options):
    """A convolution, and both of its transposes; x: (rows, channels, image), w: (outputs, channels / groups, window)."""
    rng = np.random.default_rng(seed)
    axes = BATCH if rows else ()
    a = settings(len(w) - 2, **options)
    x = x if rows else x[1:]
    _, plan = compare(
        lambda v, u: v.graph.node("conv", [v, u], **a),
        (normal(rng, *x, dtype=dtype), axes),
        normal(rng, *w, dtype=dtype),
        atol=1e-5,
    )
    y = plan.graph.outputs[0].type.shape
    dy = normal(rng, *x[:rows], *y, dtype=dtype)
    names = explained(plan)
    _, plan = compare(
        lambda v, u: v.graph.node("conv_dx", [v, u], shape=tuple(x[rows:]), **a),
        (dy, axes),
        normal(rng, *w, dtype=dtype),
        atol=1e-5,
    )
    names += explained(plan)
    _, plan = compare(
        lambda v, u: v.graph.node("conv_dw", [v, u], shape=tuple(w), **a),
        (normal(rng, *x, dtype=dtype), axes),
        (dy, axes),
        atol=1e-5,
    )
    return " ".join(names + explained(plan))


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)
@pytest.mark.parametrize(
    "x, w, options",
    [
        ((2, 3, 7), (5, 3, 3), {}),
        ((2, 3, 7), (5, 3, 3), {"strides": 2, "pads": (1, 1)}),
        ((2, 3, 6, 5), (4, 3, 3, 2), {"pads": [(0, 2), (1, 0)]}),
        ((2, 3, 7, 6), (4, 3, 3, 3), {"strides": [2, 3], "dilation": [1, 2], "pads": [(1, 0), (2, 1)]}),
        ((2, 3, 7, 7), (4, 3, 2, 2), {"strides": 3}),
        ((2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2, "pads": (1, 1)}),
        ((2, 4, 5, 5), (4, 1, 3, 3), {"groups": 4, "pads": (1, 1), "strides": 2}),
        ((2, 20, 5, 5), (20, 1, 3, 3), {"groups": 20, "pads": (1, 1)}),
        ((2, 2, 4, 5, 3), (3, 2, 2, 3, 2), {"strides": [1, 2, 1], "pads": [(1, 0), (1, 1), (0, 1)]}),
        ((1, 1, 1, 1), (1, 1, 3, 3), {"pads": (1, 1)}),
        ((3, 10, 4, 4), (9, 10, 1, 1), {}),
    ],
)
def test_forms(x, w, options, dtype, rows, use):
    names = check(x, w, dtype, rows, **options)
    assert names.count("cudnn_conv") == (3 if use else 0)


def test_empty():
    check((0, 3, 5, 5), (4, 3, 3, 3))
    check((2, 0, 5, 5), (4, 0, 3, 3))
    check((2, 3, 5, 5), (0, 3, 3, 3))
    check((2, 3, 0, 5), (4, 3, 3, 3), pads=(2, 2))


TILES = [(dtype, tile) for dtype in FLOATS for tile in convolution.TILES[dtype]]


@pytest.mark.parametrize("dtype, tile", TILES, ids=str)
def test_tiles(dtype, tile, monkeypatch):
    """Each tile: more than one of them each way, ends that do not fill one, sums of several slices; sums in parts."""
    monkeypatch.setitem(convolution.TILES, dtype, [tile])
    down, across, _ = tile
    names = check((3, 5, 7, 8), (down + 3, 5, 3, 3), FLOATS[dtype], strides=[1, 2], pads=(1, 1))
    assert f"gather_{down}x{across}_{dtype}" in names and f"scatter_{down}x{across}_{dtype}" in names
    monkeypatch.setattr(products, "LEAST_SLICES", 2)
    names = check((2, 33, 6, 9), (7, 33, 2, 3), FLOATS[dtype], pads=[(1, 0), (1, 1)])
    assert f"sum_parts_{dtype}" in names


@pytest.mark.parametrize("use", LIBRARIES, indirect=True)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("relu", [False, True])
def test_bias_and_relu(groups, relu, use):
    rng = np.random.default_rng(1)
    for channels in (6, 132):  # sums in one part, and in several
        x, w, bias = normal(rng, 2, channels, 4, 5), normal(rng, 12, channels // groups, 3, 3), normal(rng, 12, 1, 1)
        bias[0] = 1 if use else np.nan  # stays NaN
        a = settings(2, groups, pads=(1, 1))

        def build(v, u, b, a=a):
            y = v.graph.node("conv", [v, u], **a) + b
            return y.relu() if relu else y

        _, plan = compare(build, (x, BATCH), w, bias, atol=1e-5)
        assert len(plan.steps) == 1
        name = explained(plan)[0]
        assert name.startswith("cudnn_conv_bias") if use else channels == 6 or ("sum_parts" in name) == (groups < 6)


def test_bias_of_nothing():
    """Where there are no input channels the bias is what there is."""
    a = settings(2)
    x, w = np.zeros((2, 0, 3, 3), np.float32), np.zeros((4, 0, 2, 2), np.float32)
    compare(lambda v, u, b: v.graph.node("conv", [v, u], **a) + b, (x, BATCH), w, np.arange(4, dtype=np.float32).reshape(4, 1, 1))


@pytest.mark.parametrize("use", [True], indirect=True)
def test_library_without_bias(use, monkeypatch):
    """Where cuDNN has no plan with bias and relu they come after one without."""
    whole = cudnn_graphs.convolution
    monkeypatch.setattr(cudnn_graphs, "convolution", lambda *a, **k: None if k.get("bias") else whole(*a, **k))
    rng = np.random.default_rng(2)
    x, w, bias = normal(rng, 2, 3, 4, 5), normal(rng, 6, 3, 3, 3), normal(rng, 6, 1, 1)
    bias[0] = np.nan
    a = settings(2, pads=(1, 1))
    _, plan = compare(lambda v, u, b: (v.graph.node("conv", [v, u], **a) + b).relu(), (x, BATCH), w, bias, atol=1e-5)
    assert all(name in explained(plan)[0] for name in ("cudnn_conv_f4", "sum_parts_f4"))
