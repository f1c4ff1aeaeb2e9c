"""Graphs drawn at random: ops over images, views, products and reductions in any order, several outputs, one gradient."""

import numpy as np


class Drawn:
    """The graph of a seed in one element type: `outputs` (the first is the root of gradients), `wrt`, `feed`, `story`."""

    def __init__(self, C, seed, dtype):
        self.C, self.rng, self.dtype = C, np.random.RandomState(seed), dtype
        self.params, self.story = [], []
        channels, size = self.one_of([3, 16, 32, 5]), self.one_of([4, 5, 6, 8])
        x = C.input_variable((channels, size, size), dtype=dtype, needs_gradient=True, name="x")
        self.values = [x]
        for _ in range(self.rng.randint(3, 14)):
            step = self.one_of(STEPS)
            y = step(self)
            if y is not None and np.prod(y.shape) < 4000:
                self.values.append(y.output)
                self.story.append(f"{step.__name__} {y.shape}")
        beside = [v for v in self.values[1:-1] if self.rng.rand() < 0.25]
        root = C.reduce_sum(C.tanh(self.values[-1]))
        for v in beside:
            root = root + 0.3 * C.reduce_sum(C.sin(v))
        self.outputs = [root.output, *beside]
        self.function = C.combine(*self.outputs)
        used = {p.uid for p in self.function.parameters} | {a.uid for a in self.function.arguments}
        self.wrt = [v for v in [*self.params, x] if v.uid in used]
        self.feed = {x: self.rng.randn(self.rng.randint(1, 6), channels, size, size).astype(dtype)}

    def one_of(self, items):
        return items[self.rng.randint(len(items))]

    def value(self, fits=lambda v: True):
        """A value made before, mostly one of the last four."""
        found = [v for v in self.values if fits(v)]
        if not found:
            return None
        return self.one_of(found[-4:] if self.rng.rand() < 0.7 else found)

    def parameter(self, *shape):
        p = self.C.parameter(init=(self.rng.randn(*shape) * 0.4).astype(self.dtype), dtype=self.dtype, name=f"p{len(self.params)}")
        self.params.append(p)
        return p

    def run(self):
        """Outputs of inference, outputs of training, gradients."""
        found = self.function.eval(self.feed)
        first = [np.asarray(found[o]) for o in self.outputs] if len(self.outputs) > 1 else [np.asarray(found)]
        root = self.outputs[0]
        state, outs = self.function.forward(self.feed, self.outputs, {root})
        grads = self.function.backward(state, {root: np.ones_like(np.asarray(outs[root]))}, set(self.wrt))
        return first, [np.asarray(outs[o]) for o in self.outputs], [np.asarray(grads[v]) for v in self.wrt]


def image(v):
    return len(v.shape) == 3


def some_axes(v):
    return len(v.shape) > 0


def convolution(g):
    v = g.value(image)
    c = v.shape[0]
    out, stride, k = g.one_of([16, 32, 7, 16]), g.one_of([1, 2]), g.one_of([1, 3, 3, 2])
    if min(v.shape[1:]) < k:
        return None
    groups = 2 if c == out == 32 and g.rng.rand() < 0.3 else 1
    pads = [False, bool(g.rng.rand() < 0.7), True]
    return g.C.convolution(g.parameter(out, c // groups, k, k), v, strides=(1, stride, stride), auto_padding=pads, groups=groups)


def pooling(g):
    v = g.value(image)
    if min(v.shape[1:]) < 2:
        return None
    kind, stride = g.one_of([g.C.MAX_POOLING, g.C.AVG_POOLING]), g.one_of([1, 2, 2])
    return g.C.pooling(v, kind, (2, 2), strides=(stride, stride), auto_padding=[bool(g.rng.rand() < 0.3)] * 2)


def unary(g):
    f = g.one_of([g.C.tanh, g.C.sigmoid, g.C.sin, g.C.relu, g.C.square, g.C.exp])
    return g.C.tanh(f(g.value()))


def binary(g):
    v = g.value()
    f = g.one_of([g.C.plus, g.C.minus, g.C.element_times, g.C.element_max])
    return f(v, g.value(lambda u: u.shape == v.shape))


def with_parameter(g):
    v = g.value(some_axes)
    return g.one_of([g.C.plus, g.C.element_times])(v, g.parameter(*[g.one_of([n, 1]) for n in v.shape])) if v is not None else None


def reshape(g):
    v = g.value(image)
    c, h, w = v.shape
    return g.C.reshape(v, g.one_of([(c * h * w,), (c, h * w), (h, c, w), (c * h, 1, w)]))


def transpose(g):
    v = g.value(lambda v: len(v.shape) > 1)
    return g.C.transpose(v, tuple(int(i) for i in g.rng.permutation(len(v.shape))))


def slice(g):
    v = g.value(lambda v: max(v.shape, default=0) > 2)
    if v is None:
        return None
    axis = int(np.argmax(v.shape))
    n = v.shape[axis]
    begin = g.rng.randint(0, n - 1)
    end = g.rng.randint(begin + 1, n + 1)
    if n % 32 == 0 and g.rng.rand() < 0.5:
        begin, end = 0, n // 2
    return g.C.slice(v, axis, int(begin), int(end))


def splice(g):
    v = g.value(some_axes)
    axis = int(g.rng.randint(len(v.shape)))
    rest = v.shape[:axis] + v.shape[axis + 1 :]
    return g.C.splice(v, g.value(lambda u: len(u.shape) == len(v.shape) and u.shape[:axis] + u.shape[axis + 1 :] == rest), axis=axis)


def reduction(g):
    v = g.value(some_axes)
    f = g.one_of([g.C.reduce_mean, g.C.reduce_max, g.C.reduce_sum, g.C.reduce_log_sum_exp])
    return g.C.tanh(f(v, int(g.rng.randint(len(v.shape)))))


def product(g):
    v = g.value(some_axes)
    return g.C.times(v, g.parameter(v.shape[-1], g.rng.randint(2, 9)))


def dense(g):
    v = g.value(some_axes)
    return g.C.times(v, g.parameter(*v.shape, g.rng.randint(2, 9))) if np.prod(v.shape) < 400 else None


def normalisation(g):
    v = g.value(image)
    shape = (v.shape[0],)
    state = [g.C.constant(value, shape=s, dtype=g.dtype) for value, s in ((0, shape), (1, shape), (0, ()))]
    y = g.C.batch_normalization(v, g.parameter(*shape), g.parameter(*shape), state[0], state[1], True, running_count=state[2])
    return g.C.tanh(y)


STEPS = [convolution, convolution, convolution, pooling, unary, binary, binary, with_parameter, reshape, transpose, slice, splice,
         reduction, product, dense, normalisation]  # fmt: skip
