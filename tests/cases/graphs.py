"""Graphs of several ops that put a lowering to the test: formats kept and left, views, fusion, reused buffers, shared operands.

They have no golden values: laws alone decide. Rows as in `ops`.
"""

# ruff: noqa: E501  (one case a line)

from cases import Case, K, W, X

GRAPHS = []
LOOSE = dict(golden=False, rtol=1e-4, atol=1e-5)


def row(name, build, *specs, **options):
    GRAPHS.append(Case("graph", name, build, specs, **dict(LOOSE, **options)))


def conv(C, x, w, strides=1, pad=True):
    return C.convolution(w, x, strides=(1, strides, strides), auto_padding=[False, pad, pad])


# ------------------------------------------------------------------------------ chains of 16 channels: a format of their own
x3, x16, w3, w16 = X(3, 6, 6), X(16, 6, 6), W(16, 3, 3, 3), W(16, 16, 3, 3)
one = W(32, 16, 1, 1)
row("layout/chain", lambda C, x, a, b: conv(C, C.tanh(conv(C, x, a)), b), x3, w3, w16)
row("layout/input_of_16", lambda C, x, a: C.sigmoid(conv(C, x, a)), x16, w16)
row("layout/stride", lambda C, x, a, b: conv(C, C.sigmoid(conv(C, x, a, 2)), b, 2), x3, w3, w16)
row("layout/valid", lambda C, x, a, b: conv(C, C.sigmoid(conv(C, x, a, 1, False)), b, 1, False), x3, w3, w16)
row("layout/1x1", lambda C, x, a, b: conv(C, conv(C, x, a), b), x3, w3, one)
row("layout/1x1_stride", lambda C, x, a, b: conv(C, conv(C, x, a), b, 2), x3, w3, one)
row("layout/odd_channels", lambda C, x, a, b, c: conv(C, C.tanh(conv(C, conv(C, x, a), b)), c), x3, w3, W(17, 16, 3, 3), W(16, 17, 3, 3))
row("layout/bias", lambda C, x, a, b: C.tanh(conv(C, x, a) + b), x3, w3, W(16, 1, 1))
row("layout/bias_twice", lambda C, x, a, b, c: conv(C, C.tanh(conv(C, x, a) + b), c) + b, x3, w3, W(16, 1, 1), w16)
row("layout/scale_and_shift", lambda C, x, a, b, c: conv(C, x, a) * b + c, x3, w3, W(16, 1, 1), W(16, 1, 1))
row("layout/spatial_mask", lambda C, x, a, m: conv(C, x, a) * m, x3, w3, W(1, 6, 6))
row("layout/column", lambda C, x, a, m: conv(C, x, a) * m, x3, w3, W(6, 1))
row("layout/whole_param", lambda C, x, a, m: conv(C, x, a) * m, x3, w3, W(16, 6, 6))
row("layout/number", lambda C, x, a: 2.0 * conv(C, x, a) - 1.0, x3, w3)
row("layout/times_plain", lambda C, x, y, a: conv(C, x, a) * y, x3, x16, w3)
row("layout/residual", lambda C, x, a, b: C.tanh(conv(C, C.tanh(conv(C, x, a)), b) + conv(C, x, a)), x3, w3, w16)
row("layout/residual_of_input", lambda C, x, b: C.tanh(conv(C, x, b) + x), x16, w16)
row("layout/two_readers", lambda C, x, a, b: C.combine(conv(C, conv(C, x, a), b), C.reduce_sum(conv(C, x, a))), x3, w3, w16)
row("layout/shared_convolution", lambda C, x, b: conv(C, C.tanh(conv(C, x, b)), b), x16, w16)
row("layout/flatten", lambda C, x, a, d: C.times(conv(C, x, a), d), x3, w3, W(16, 6, 6, 4))
row("layout/dense", lambda C, x, a, d: C.times(C.reshape(conv(C, x, a), (-1,)), d), x3, w3, W(576, 5))
row("layout/reshape", lambda C, x, a: C.reshape(conv(C, x, a), (6, 16, 6)) * 2.0, x3, w3)
row("layout/transpose", lambda C, x, a: C.transpose(conv(C, x, a), (1, 2, 0)) + 1.0, x3, w3)
row("layout/slice_channels", lambda C, x, a: C.slice(conv(C, x, a), 0, 3, 11) * 2.0, x3, w3)
row("layout/slice_16_of_32", lambda C, x, a, b: conv(C, C.slice(conv(C, x, a), 0, 16, 32), b), x16, W(32, 16, 3, 3), w16)
row("layout/slice_rows", lambda C, x, a, b: conv(C, C.slice(conv(C, x, a), 1, 1, 5), b), x3, w3, w16)
row("layout/splice", lambda C, x, a, b, c: conv(C, C.splice(conv(C, x, a), conv(C, x, b), axis=0), c), x3, w3, w3, W(16, 32, 3, 3))
row("layout/splice_odd", lambda C, x, a, b, c: conv(C, C.splice(conv(C, x, a), x, axis=0), c), x3, w3, w3, W(16, 19, 3, 3))
row("layout/pad", lambda C, x, a, b: conv(C, C.pad(conv(C, x, a), [(0, 0), (1, 1), (1, 1)]), b, 1, False), x3, w3, w16)
row("layout/softmax_channels", lambda C, x, a: C.softmax(conv(C, x, a), 0), x3, w3)
row("layout/reduce_channels", lambda C, x, a: C.reduce_mean(conv(C, x, a), 0), x3, w3)
row("layout/reduce_space", lambda C, x, a: C.reduce_mean(conv(C, x, a), (1, 2)), x3, w3)
row("layout/squeeze_excite", lambda C, x, a: (lambda h: h * C.sigmoid(C.reduce_mean(h, (1, 2))))(conv(C, x, a)), x3, w3)
row("layout/broadcast_batch", lambda C, x, a: (lambda h: h - C.reduce_mean(h, C.Axis.default_batch_axis()))(conv(C, x, a)), x3, w3, mixes_rows=True)
MAX, AVG = "MAX_POOLING", "AVG_POOLING"


def pool(C, x, kind, k, s, **kw):
    return C.pooling(x, getattr(C, kind), (k, k), strides=(s, s), **kw)


row("layout/max_pool", lambda C, x, a, b: conv(C, pool(C, conv(C, x, a), MAX, 2, 2), b), x3, w3, w16)
row("layout/max_pool_overlap", lambda C, x, a: pool(C, conv(C, x, a), MAX, 3, 2, auto_padding=[True, True]), x3, w3)
row("layout/avg_pool", lambda C, x, a, b: conv(C, pool(C, conv(C, x, a), AVG, 2, 2), b), x3, w3, w16)
row("layout/avg_pool_pad", lambda C, x, a: pool(C, conv(C, x, a), AVG, 3, 2, auto_padding=[True, True]), x3, w3)
row("layout/avg_pool_include", lambda C, x, a: pool(C, conv(C, x, a), AVG, 3, 2, auto_padding=[True, True], include_pad=True), x3, w3)
row("layout/global_pool", lambda C, x, a, d: C.times(pool(C, conv(C, x, a), AVG, 6, 6), d), x3, w3, W(16, 1, 1, 5))
row("layout/transposed", lambda C, x, a, b: C.convolution_transpose(b, conv(C, x, a), strides=(1, 2, 2), auto_padding=[False, True, True]), x3, w3, w16)
row("layout/groups", lambda C, x, a, b: C.convolution(b, conv(C, x, a), auto_padding=[False, True, True], groups=2), x3, W(32, 3, 3, 3), W(32, 16, 3, 3))
row("layout/depthwise", lambda C, x, a, b: C.convolution(b, conv(C, x, a), auto_padding=[False, True, True], groups=16), x3, w3, W(16, 1, 3, 3))
row("layout/dilated", lambda C, x, a, b: C.convolution(b, conv(C, x, a), auto_padding=[False, True, True], dilation=(1, 2, 2)), x3, w3, w16)
row("layout/1d", lambda C, x, a, b: C.convolution(b, C.tanh(C.convolution(a, x, auto_padding=[False, True])), auto_padding=[False, True]), X(3, 9), W(16, 3, 3), W(16, 16, 3))
row("layout/3d", lambda C, x, a, b: C.convolution(b, C.tanh(C.convolution(a, x, auto_padding=[False] + [True] * 3)), auto_padding=[False] + [True] * 3), X(2, 4, 3, 4), W(16, 2, 3, 3, 3), W(16, 16, 2, 2, 2))
row("layout/classification", lambda C, x, a, d, y: C.cross_entropy_with_softmax(C.times(C.tanh(conv(C, x, a)), d), y), x3, w3, W(16, 6, 6, 4), X(4, domain="onehot", grad=False))


def normed(C, x, scale, bias):
    shape = (x.shape[0],)
    state = [C.constant(v, shape=s, dtype=x.dtype) for v, s in ((0, shape), (1, shape), (0, ()))]
    return C.batch_normalization(x, scale, bias, state[0], state[1], True, running_count=state[2], use_cudnn_engine=False)


NORM = dict(mode="train", mixes_rows=True, rtol=1e-3, atol=1e-4)
g, s = W(16, domain="positive"), W(16)
row("layout/norm", lambda C, x, a, g, s: C.tanh(normed(C, conv(C, x, a), g, s)), x3, w3, g, s, **NORM)
row("layout/norm_chain", lambda C, x, a, g, s, b: conv(C, C.tanh(normed(C, conv(C, x, a), g, s)), b), x3, w3, g, s, w16, **NORM)
row("layout/norm_residual", lambda C, x, a, g, s, b: C.tanh(normed(C, conv(C, conv(C, x, a), b), g, s) + conv(C, x, a)), x3, w3, g, s, w16, **NORM)
row("layout/norm_first", lambda C, x, g, s, b: conv(C, C.tanh(normed(C, x, g, s)), b), x16, g, s, w16, **NORM)

# --------------------------------------------------------------------------------------------------- views and shared buffers
row("buffers/both_ends", lambda C, x: (lambda y: C.combine(y, y * 2.0))(x + 1.0), X(4, 5))
row("buffers/input_is_output", lambda C, x: C.combine(x * 1.0, C.exp(x)), X(4, 5))
row("buffers/operand_twice", lambda C, x, y: x * x + x * y + y * y, X(4, 5), X(4, 5))
row("buffers/five_readers", lambda C, x: (lambda t: C.sin(t) * C.cos(t) + C.exp(t) - t * C.reduce_sum(t, 1))(C.tanh(x)), X(4, 5))
row("buffers/diamond", lambda C, x, w: (lambda t: C.times(t, w) + C.times(C.sigmoid(t), w))(C.tanh(x)), X(5), W(5, 5))
row("buffers/ladder", lambda C, x, w: ladder(C, x, w, 12), X(6), W(6, 6))
row("buffers/reshape_of_input", lambda C, x: C.reshape(x, (5, 4)), X(4, 5))
row("buffers/reshape_twice", lambda C, x: C.reshape(C.reshape(C.tanh(x), (20,)), (2, 10)) + C.reshape(x, (2, 10)), X(4, 5))
row("buffers/slice_of_slice", lambda C, x: C.slice(C.slice(C.tanh(x), 0, 1, 5), 0, 1, 3) * 2.0, X(6, 5))
row("buffers/slices_overlap", lambda C, x: (lambda t: C.slice(t, 0, 0, 3) * C.slice(t, 0, 2, 5) + C.slice(t, 0, 1, 4))(C.tanh(x)), X(6, 5))
row("buffers/splice_of_slices", lambda C, x: (lambda t: C.splice(C.slice(t, 1, 2, 5), C.slice(t, 1, 0, 2), axis=1))(C.tanh(x)), X(6, 5))
row("buffers/transpose_twice", lambda C, x: C.transpose(C.transpose(C.tanh(x), (1, 0)), (1, 0)) + x, X(4, 5))
row("buffers/times_of_transpose", lambda C, x, w: C.times(C.transpose(x, (1, 0)), w), X(4, 5), W(4, 3))
row("buffers/times_of_slice", lambda C, x, w: C.times(C.slice(x, 0, 1, 4), C.slice(w, 0, 2, 5)), X(6), W(6, 3))
row("buffers/times_of_column", lambda C, x, w: C.times(C.slice(x, 1, 1, 4), w), X(4, 6), W(3, 2))
row("buffers/weights_shared_three_times", lambda C, x, w: C.times(C.tanh(C.times(C.tanh(C.times(x, w)), w)), w), X(5), W(5, 5))
row("buffers/param_transformed", lambda C, x, w: C.times(x, C.tanh(w) * 2.0), X(5), W(5, 5))
row("buffers/params_alone", lambda C, v, w: C.reduce_sum(C.tanh(C.times(v, w)) * 2.0), W(3, 5), W(5, 5))
row("buffers/no_batch_beside_batch", lambda C, x, v, w: x * C.reduce_sum(C.times(v, w)), X(4), W(3, 5), W(5, 5))
row("buffers/stop_in_the_middle", lambda C, x, w: C.times(C.stop_gradient(C.times(x, w)), w), X(5), W(5, 5), fd=False)


def ladder(C, x, w, steps):
    seen = [x]
    for i in range(steps):
        seen.append(C.tanh(C.times(seen[-1], w) + seen[max(0, i - 3)]) * 0.5)
    return seen[-1] + seen[3]


# ------------------------------------------------------------------------------------------------------------ pointwise groups
row("fusion/long", lambda C, x: long_chain(C, x, 60), X(4, 5))
row("fusion/wide", lambda C, *xs: wide(C, xs), *([X(4, 5) for _ in range(10)] + [W(4, 5) for _ in range(10)]))
row("fusion/broadcast_mix", lambda C, x, a, b, c, d: C.tanh(x * a + b) * c - d, X(3, 4, 5), W(5), W(3, 1, 1), X(4, 1), W(1))
row("fusion/broadcast_rank5", lambda C, x, y: C.tanh(x) * y, X(2, 1, 3, 1, 2), X(1, 2, 1, 2, 1))
row("fusion/broadcast_grows", lambda C, x, y, z: (x + y) * z, X(1, 5), X(4, 1), X(3, 4, 5))
row("fusion/broadcast_of_computed", lambda C, x, y: C.tanh(x) * C.exp(y) + C.tanh(x), X(5), X(4, 5))
row("fusion/reduce_and_back", lambda C, x: x * C.reduce_sum(C.tanh(x), 1) / C.reduce_max(x, 0), X(4, 5, domain="distinct"))
row("fusion/softmax_by_hand", lambda C, x: (lambda e: e / C.reduce_sum(e, 0))(C.exp(x - C.reduce_max(x, 0))), X(7, domain="distinct"))
row("fusion/batch_statistics", lambda C, x: (lambda m: (x - m) / C.sqrt(C.reduce_mean(C.square(x - m), C.Axis.default_batch_axis()) + 1.0))(C.reduce_mean(x, C.Axis.default_batch_axis())), X(5), mixes_rows=True, rows=6)
row("fusion/select", lambda C, x, y: C.element_select(C.less(x, y), C.sin(x), C.cos(y)) * C.greater(x, 0.0), X(4, 5), X(4, 5), fd=False)
row("fusion/gate", lambda C, x, h, w, u, b: (lambda z: C.sigmoid(z) * C.tanh(z + h) + (1.0 - C.sigmoid(z)) * h)(C.times(x, w) + C.times(h, u) + b), X(5), X(6), W(5, 6), W(6, 6), W(6))
row("fusion/constants", lambda C, x, k: C.tanh(x * k + 3.0) * (2.0 * k), X(4, 5), K(5))
row("fusion/same_work_twice", lambda C, x: C.tanh(x) * 2.0 + C.tanh(x) * 3.0, X(4, 5))


def long_chain(C, x, n):
    y = x
    for i in range(n):
        y = (C.tanh, C.sin, C.sigmoid)[i % 3](y) + (0.1 * x if i % 4 == 0 else 0.05 * i)
    return y


def wide(C, xs):
    y = xs[0]
    for i, v in enumerate(xs[1:]):
        y = y + C.tanh(v) * (1.0 + i) if i % 2 else y * v
    return C.tanh(y)


# -------------------------------------------------------------------------------------------------- sizes that split over threads
row("size/dense", lambda C, x, w, b: C.tanh(C.times(x, w) + b), X(150), W(150, 130), W(130), rows=70)
row("size/wide_pointwise", lambda C, x, y: C.tanh(x) * y + C.exp(-C.square(x)), X(211), X(211), rows=301)
row("size/reduce_all", lambda C, x: C.reduce_sum(C.square(x), C.Axis.all_axes()), X(211), rows=301, mixes_rows=True, fd=False)
row("size/reduce_rows", lambda C, x: C.reduce_log_sum_exp(x), X(211), rows=301)
row("size/reduce_columns", lambda C, x: C.reduce_max(x, 0) + C.reduce_sum(x, 0), X(30, 41, domain="distinct"), rows=40)
row("size/softmax", lambda C, x, y: C.cross_entropy_with_softmax(x, y), X(211), X(211, domain="onehot", grad=False), rows=151)
row("size/convolution", lambda C, x, a, b: conv(C, C.tanh(conv(C, x, a)), b), X(3, 16, 16), w3, w16, rows=9, fd=False)
row("size/pooling", lambda C, x: pool(C, x, MAX, 3, 2) + pool(C, x, AVG, 3, 2), X(16, 17, 17, domain="distinct"), rows=9, fd=False)
row("size/transpose", lambda C, x: C.transpose(x, (2, 0, 1)) * 2.0, X(17, 19, 23), rows=9)
row("size/param_gradient", lambda C, x, w: C.tanh(x * w), X(33), W(33), rows=701)
row("size/layer_norm", lambda C, x: C.layers.LayerNormalization()(x), X(97), rows=151)

NAMES = [c.name for c in GRAPHS]
assert len(NAMES) == len(set(NAMES)), "two graphs of one name"
