"""Random graphs of everything that a lowering treats differently, and the comparison of what two engines make of them.

A graph is a function of (seed, number of ops, kind) alone, so that a failing one can be made smaller: `python tests/lowering/random_graphs.py`
runs many and prints the smallest form of each failure.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, NamedTuple

import numpy as np

import cogkit as C
from cogkit.engine.executable import Executable
from cogkit.engine.feeds import bind_feeds
from cogkit.variables import aligned_empty

__all__ = ["KINDS", "Made", "check", "check_training", "difference", "make", "shrink"]

KINDS = ("pointwise", "matrix", "image", "mixed", "rare", "wide")
UNARY = [C.tanh, C.sigmoid, C.relu, C.sin, C.cos, C.abs, C.negate, C.square, C.softplus, C.elu, C.leaky_relu, C.stop_gradient]
BINARY = [
    C.plus,
    C.plus,
    C.minus,
    C.element_times,
    C.element_times,
    C.element_max,
    C.element_min,
    C.greater,
    C.less_equal,
    C.log_add_exp,
]
BATCH = C.Axis.default_batch_axis()


class Made(NamedTuple):
    """A graph with what is wanted of it. inputs: (variable, shape); variables: parameters and constants, whose values count too."""

    inputs: list[tuple[Any, tuple[int, ...]]]
    variables: list[Any]
    outputs: list[Any]
    sums: list[Any]
    root: Any
    wrt: list[Any]
    effects: list[Any]


class _Maker:
    """Grows a graph by one op at a time, from values that are there."""

    def __init__(self, seed: int, dtype: Any, kind: str):
        self.rng = np.random.default_rng([seed, KINDS.index(kind)])
        self.dtype, self.kind = dtype, kind
        self.inputs: list[tuple[Any, tuple[int, ...]]] = []
        self.variables: list[Any] = []
        self.values: list[Any] = []
        self.effects: list[Any] = []
        self.normed: list[Any] = []

    # choices --------------------------------------------------------------------------------------------------------------------

    def one(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def some(self, fits: Any = None) -> Any:
        """A value, more often one of the last; None where none fits."""
        found = [v for v in self.values if fits is None or fits(v)]
        if not found:
            return None
        return self.one(found[-4:]) if self.chance(0.6) else self.one(found)

    # leaves ---------------------------------------------------------------------------------------------------------------------

    def input(self, *shape: int) -> Any:
        v = C.input_variable(shape, dtype=self.dtype, needs_gradient=True)
        self.inputs.append((v, shape))
        return v

    def parameter(self, *shape: int, scale: float = 1.0, constant: bool = False) -> Any:
        value = self.rng.normal(size=shape) * scale
        make = C.constant if constant else C.parameter
        v = C.constant(value, shape=shape, dtype=self.dtype, name="k") if constant else make(shape, init=value, dtype=self.dtype)
        self.variables.append(v)
        return v

    def leaves(self) -> None:
        if self.kind in ("pointwise", "mixed"):
            a, b = self.one([(4, 5), (3, 7), (16, 3), (1, 6), (2, 2)])
            shapes = [(a, b), (a, b), (b,), (a, 1), (1, b), (), (1,)]
            for _ in range(3):
                self.values.append(self.input(*self.one(shapes)))
            self.values.append(self.input(a, b))
            for _ in range(3):
                self.values.append(self.parameter(*self.one(shapes), constant=self.chance(0.3)))
        if self.kind in ("matrix", "mixed"):
            for _ in range(2):
                self.values.append(self.input(self.one([4, 7, 16])))
            self.values.append(self.parameter(self.one([4, 7, 16])))
            self.values.append(self.input(self.one([2, 3]), self.one([4, 7])))
        if self.kind in ("image", "mixed"):
            size = self.one([4, 5, 6])
            for channels in (3, 16):
                self.values.append(self.input(channels, size, size))
            self.values.append(self.parameter(16, 1, 1))
        if self.kind == "rare":
            for shape in ((3, 9), (16, 6), (2, 4, 3, 4), (16, 3, 4, 2), (5,), (3, 5, 5)):
                if self.chance(0.6):
                    self.values.append(self.input(*shape))
            self.values.append(self.input(4, 5))
            self.values.append(self.parameter(4, 5))
        if self.kind == "wide":  # large enough for several threads
            for channels in (3, 16):
                self.values.append(self.input(channels, 16, 16))
            self.values.append(self.parameter(16, 1, 1))

    # ops: each gives a value or None where nothing fits ---------------------------------------------------------------------------

    def unary(self) -> Any:
        x = self.some()
        pick = int(self.rng.integers(len(UNARY) + 5))
        if pick < len(UNARY):
            return UNARY[pick](x)
        return [
            lambda: C.log(1.0 + x * x),
            lambda: C.sqrt(1.0 + x * x),
            lambda: C.exp(-(x * x)),
            lambda: x * 0.5 - 1.0,
            lambda: C.element_select(C.greater(x, 0.25), x, -0.5 * x),
        ][pick - len(UNARY)]()

    def binary(self) -> Any:
        x = self.some()
        y = self.some(lambda v: broadcasts(x.shape, v.shape))
        if y is None:
            y = self.parameter(*(n if self.chance(0.7) else 1 for n in x.shape))
        if self.chance(0.1):
            return x / (1.0 + y * y)
        if self.chance(0.1):
            return C.element_select(C.greater(x, y), x, y * 2.0)
        f = self.one(BINARY)
        return f(x, y) if self.chance(0.5) else f(y, x)

    def bias(self) -> Any:
        x = self.some(lambda v: len(v.shape) in (1, 3))
        if x is None:
            return None
        b = self.parameter(*((x.shape[0], 1, 1) if len(x.shape) == 3 else x.shape))
        y = x + b if self.chance(0.5) else b + x
        return C.relu(y) if self.chance(0.5) else y

    def reduce(self) -> Any:
        x = self.some(lambda v: len(v.shape) > 0)
        if x is None:
            return None
        f = self.one(
            [C.reduce_sum, C.reduce_sum, C.reduce_mean, C.reduce_max, C.reduce_min, C.reduce_log_sum_exp, C.reduce_sum_square]
        )
        axes: Any = self.one([None, 0, -1, tuple(range(len(x.shape))), tuple(range(1, len(x.shape))) or None])
        return f(x, axes, keepdims=True if axes is None else self.chance(0.7))

    def reduce_rows(self) -> Any:
        x = self.some(batched)
        if x is None:
            return None
        if self.chance(0.3):
            return self.one([C.reduce_sum, C.reduce_mean, C.reduce_max])(x, C.Axis.all_axes())
        if self.chance(0.3) and x.shape:
            return self.one([C.reduce_sum, C.reduce_mean])(x, (BATCH, *range(1, len(x.shape))))
        return self.one([C.reduce_sum, C.reduce_mean, C.reduce_min])(x, BATCH)

    def softmax(self) -> Any:
        x = self.some(lambda v: len(v.shape) > 0)
        return None if x is None else self.one([C.softmax, C.log_softmax])(x, self.one([0, -1]))

    def view(self) -> Any:
        x = self.some(lambda v: len(v.shape) > 0)
        if x is None:
            return None
        size = int(np.prod(x.shape))
        shapes = [(size,), (1, size), tuple(reversed(x.shape)), (*x.shape, 1)]
        if size % 16 == 0 and size > 16:
            shapes += [(16, 1, size // 16), (size // 16, 4, 4), (16, size // 16)]
        return C.reshape(x, self.one(shapes))

    def move(self) -> Any:
        x = self.some(lambda v: len(v.shape) > 0 and min(v.shape) > 0)
        if x is None:
            return None
        axis = int(self.rng.integers(len(x.shape)))
        n = x.shape[axis]
        pick = int(self.rng.integers(4))
        if pick == 0:
            begin = int(self.rng.integers(n))
            return C.slice(x, axis, begin, int(self.rng.integers(begin + 1, n + 1)))
        if pick == 1 and len(x.shape) > 1:
            return C.transpose(x, tuple(int(i) for i in self.rng.permutation(len(x.shape))))
        if pick == 2:
            return C.pad(x, [(int(self.rng.integers(2)), int(self.rng.integers(2))) for _ in x.shape])
        y = self.some(
            lambda v: (
                len(v.shape) == len(x.shape)
                and all(a == b for i, (a, b) in enumerate(zip(v.shape, x.shape, strict=True)) if i != axis)
            )
        )
        return None if y is None or x.shape[axis] + y.shape[axis] > 64 else C.splice(x, y, axis=axis)

    def times(self) -> Any:
        x = self.some(lambda v: 1 <= len(v.shape) <= 3 and 0 < np.prod(v.shape) <= 1024)
        if x is None:
            return None
        y = self.some(lambda v: len(v.shape) == 2 and v.shape[0] == x.shape[-1]) if self.chance(0.3) else None
        if y is None:
            inner = x.shape if self.chance(0.3) else x.shape[-1:]
            y = self.parameter(*inner, self.one([1, 4, 7, 16]), scale=np.prod(inner) ** -0.5)
        return C.times(x, y)

    def convolution(self) -> Any:
        x = self.some(lambda v: len(v.shape) == 3 and v.shape[0] <= 64 and min(v.shape) > 0)
        if x is None:
            return None
        c, h, w = x.shape
        k = (min(h, self.one([1, 2, 3, 3])), min(w, self.one([1, 3])))
        filters, groups = self.one([3, 16, 16, 32]), 1
        if c % 2 == 0 and filters % 2 == 0 and self.chance(0.15):
            groups = 2
        if c == filters and self.chance(0.1):
            groups = c
        kernel = self.some(lambda v: v.shape == (filters, c // groups, *k) and not batched(v)) if self.chance(0.5) else None
        if kernel is None:
            kernel = self.parameter(filters, c // groups, *k, scale=(c // groups * k[0] * k[1]) ** -0.5)
        stride = self.one([1, 1, 1, 2])
        pad = self.chance(0.7)
        if self.chance(0.1) and groups == 1:
            turned = self.parameter(c, filters, *k, scale=(c * k[0] * k[1]) ** -0.5)
            return C.convolution_transpose(turned, x, strides=(1, stride, stride), auto_padding=[False, pad, pad])
        return C.convolution(kernel, x, strides=(1, stride, stride), auto_padding=[False, pad, pad], groups=groups)

    def pool(self) -> Any:
        x = self.some(lambda v: len(v.shape) == 3 and min(v.shape[1:]) >= 2)
        if x is None:
            return None
        if self.chance(0.2):
            return C.layers.GlobalAveragePooling()(x)
        pad = self.chance(0.4)
        window = (2, 2) if self.chance(0.6) or min(x.shape[1:]) < 3 else (3, 3)
        return C.pooling(x, self.one([C.MAX_POOLING, C.AVG_POOLING]), window, strides=(2, 2), auto_padding=[pad, pad])

    def norm(self) -> Any:
        x = self.some(lambda v: len(v.shape) == 3 and batched(v) and min(v.shape) > 0)
        if x is None:
            return None
        again = [s for s in self.normed if s[0].shape == x.shape[:1]]
        if again and self.chance(0.3):
            state = self.one(again)
        else:
            n = x.shape[0]
            mean, count = (C.constant(0, shape=s, dtype=self.dtype, name="m") for s in ((n,), ()))
            variance = C.constant(1, shape=(n,), dtype=self.dtype, name="v")
            self.variables += [mean, variance, count]
            state = (self.parameter(n), self.parameter(n), mean, variance, count)
            self.normed.append(state)
        scale, bias, mean, variance, count = state
        return C.batch_normalization(
            x,
            scale,
            bias,
            mean,
            variance,
            True,
            running_count=count,
            normalization_time_constant=self.one([0, 7, -1]),
            epsilon=0.1,
        )

    def volume(self) -> Any:
        """Convolutions and pools of one and three spatial axes, dilated ones."""
        x = self.some(lambda v: len(v.shape) in (2, 4) and 0 < v.shape[0] <= 48 and min(v.shape) > 1)
        if x is None:
            x = self.some(lambda v: len(v.shape) == 3 and v.shape[0] <= 48 and min(v.shape) > 2)
            if x is None:
                return None
            kernel = self.parameter(self.one([3, 16]), x.shape[0], 2, 2, scale=(x.shape[0] * 4) ** -0.5)
            return C.convolution(kernel, x, auto_padding=[False, True, True], dilation=(1, 2, 2))
        rank = len(x.shape) - 1
        if self.chance(0.3):
            return C.pooling(x, self.one([C.MAX_POOLING, C.AVG_POOLING]), (2,) * rank, strides=(2,) * rank)
        k = tuple(min(n, self.one([1, 2, 3])) for n in x.shape[1:])
        kernel = self.parameter(self.one([3, 16]), x.shape[0], *k, scale=(x.shape[0] * np.prod(k)) ** -0.5)
        return C.convolution(kernel, x, strides=(1,) * (rank + 1), auto_padding=[False] + [self.chance(0.7)] * rank)

    def pick(self) -> Any:
        """Ops whose results are indices, or that take them."""
        x = self.some(lambda v: len(v.shape) > 0 and min(v.shape) > 0)
        if x is None:
            return None
        pick = int(self.rng.integers(4))
        if pick == 0:
            return self.one([C.argmax, C.argmin])(x, self.one([0, -1]))
        if pick == 1:
            return C.hardmax(x)
        if pick == 2:
            return C.reduce_prod(C.tanh(x), self.one([0, -1])) * 3.0
        rows = C.slice(C.greater(x, -0.5) + C.greater(x, 0.5), -1, 0, 1)  # never nan
        return C.gather(self.parameter(4, 3), rows) if len(x.shape) < 3 else C.one_hot(rows, 4)

    def layer_norm(self) -> Any:
        x = self.some(lambda v: len(v.shape) > 0 and v.shape[-1] > 1)
        if x is None:
            return None
        scale, bias = self.parameter(*x.shape[-1:]), self.parameter(*x.shape[-1:])
        d = x - C.reduce_mean(x, -1)
        return d / C.sqrt(C.reduce_mean(C.square(d), -1) + 0.1) * scale + bias

    def dropout(self) -> Any:
        x = self.some()
        return None if x is None else C.dropout(x, 0.25)

    def assign(self) -> Any:
        """Writes to a variable, from where it can be done; what it gives may be used on."""
        target = self.one(self.variables)
        shape = target.shape
        value = self.some(lambda v: v.shape == shape and not batched(v) and v is not target)
        if value is None or self.chance(0.3):
            value = self.some(lambda v: v.shape == shape and batched(v))
            value = target * 0.5 + 1.0 if value is None else C.reduce_mean(value, BATCH)
            if self.chance(0.5):
                value = target * 0.9 + value * 0.1
        made = C.assign(target, value)
        self.effects.append(made)
        return made

    # fmt: off
    OPS = {  # how often each is tried
        "pointwise": dict(unary=2, binary=3, reduce=1, reduce_rows=1, view=1, move=1, dropout=1, assign=1),
        "matrix": dict(unary=1, binary=2, bias=2, times=3, softmax=1, reduce_rows=1, view=1, move=1, assign=1),
        "image": dict(unary=1, binary=1, bias=2, convolution=4, pool=1, norm=2, reduce=1, view=1, move=1, reduce_rows=1),
        "wide": dict(unary=2, binary=2, bias=1, convolution=2, norm=1, pool=1, reduce=1, reduce_rows=1, view=1, move=1, softmax=1, dropout=1),
        "rare": dict(unary=1, binary=1, volume=3, pick=2, layer_norm=1, reduce=1, view=1, move=1, bias=1, assign=1),
        "mixed": dict(unary=4, binary=6, bias=4, convolution=4, times=3, pool=1, norm=2, softmax=1, reduce=2, reduce_rows=3, view=3, move=3,
                      dropout=1, assign=2),
    }
    # fmt: on

    def grow(self, ops: int) -> None:
        self.leaves()
        names = [name for name, times in self.OPS[self.kind].items() for _ in range(times)]
        done = tries = 0
        while done < ops and tries < 20 * ops:
            tries += 1
            y = getattr(self, self.one(names))()
            if y is None:
                continue
            y = y.output
            if np.prod(y.shape) > (16384 if self.kind == "wide" else 4096) or len(y.shape) > 4:
                continue
            done += 1
            self.values.append(y)


def batched(v: Any) -> bool:
    return len(v.dynamic_axes) > 0


def broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether shapes may meet in a pointwise op, without growing much."""
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))


def make(seed: int, ops: int, kind: str, dtype: Any = np.float32) -> Made:
    """The graph of a seed: the same with any element type; with fewer ops it is a part of the one with more."""
    C.random.set_seed(seed)
    m = _Maker(seed, dtype, kind)
    m.grow(ops)
    rng = m.rng = np.random.default_rng([seed, 99])  # what is wanted does not change what was grown
    floats = [v for v in m.values if np.prod(v.shape) > 0]
    wanted = [m.one(floats[-8:]) for _ in range(int(rng.integers(0, 4)))] + ([m.one(m.values)] if m.chance(0.2) else [])
    sums = [m.one(floats[-5:])] if m.chance(0.5) else []
    root = next((v for v in reversed(floats) if v.is_output), None) if m.chance(0.85) else None
    wrt = []
    if root is not None:
        can = [v for v in C.combine([root]).inputs if v.is_parameter or v.is_input]
        wrt = [v for v in can if m.chance(0.8)]
        root = root if wrt else None
    effects = [e.output for e in m.effects if m.chance(0.8)]
    if not wanted and not wrt and not sums and not effects:
        wanted = [floats[-1]]
    return Made(m.inputs, m.variables, wanted, sums, root, wrt, effects)


def results(made: Made, engine: str, seed: int, rows: tuple[int, ...], reuse: bool = False) -> list[np.ndarray]:
    """All that can be seen of some runs: outputs, sums, gradients of each, and the variables afterwards."""
    e = Executable(
        made.outputs, made.sums, made.root, made.wrt, training=True, effects_of=made.effects, reuse=reuse, engine=engine
    )
    found: list[np.ndarray] = []
    for step, n in enumerate(rows):
        rng = np.random.default_rng([seed, 7, step])
        feeds = {v: rng.normal(size=(n, *shape)).astype(v.dtype) for v, shape in made.inputs}
        feeds = {v: a for v, a in feeds.items() if any(v is w for w in e.arguments)}
        untouched = [] if engine == "reference" else spoil(e, feeds, seed % 2 == 1)
        found += [np.array(a) for a in e.run(feeds, step=step)]
        assert all(np.all(room == 255) for room in untouched), "a kernel wrote beyond its buffers"
        found += [np.array(v.data) for v in made.variables]
    return found


def spoil(e: Executable, feeds: dict, apart: bool) -> list[np.ndarray]:
    """Fills the memory of a plan with nan, so that reading what nothing wrote shows; gives the bytes that no kernel may write.

    apart: every buffer gets a place of its own with room around it.
    """
    _, types, sizes = bind_feeds(feeds)
    plan = e.plan(types)
    b = plan.binding(sizes)
    taken = []
    if apart:
        at = 512
        for buffer in (s for s in plan.buffers if s.kind == "arena"):
            b.offset[id(buffer)] = at
            taken.append((at, buffer.bytes(sizes)))
            at += (buffer.bytes(sizes) + 575) // 64 * 64
        b.scratch_at = at
        b.bytes = at + (b.scratch + 63) // 64 * 64
    plan.arena = aligned_empty((b.bytes + 4096,), np.dtype(np.uint8))
    plan.arena[...] = 255
    for array in b.outputs.values():
        array[...] = 255
    ends = [0, *(at + size for at, size in taken)] if apart else []
    starts = [*(at for at, _ in taken), b.scratch_at] if apart else []
    return [plan.arena[i:j] for i, j in zip(ends, starts, strict=True)] + [plan.arena[b.bytes :]]


def check(seed: int, ops: int, kind: str, double: bool = False) -> str | None:
    """What differs between the cpu engine and the reference, or None.

    In float32 a result may be off by what float32 arithmetic itself is off, as the reference in both types tells.
    """
    rng = np.random.default_rng([seed, 5])
    rows = tuple(
        int(n) for n in rng.choice([11, 40] if kind == "wide" else [0, 1, 2, 3, 5, 8, 33], size=2 if kind == "wide" else 3)
    )
    f8 = results(make(seed, ops, kind, np.float64), "reference", seed, rows)
    if double:
        return difference(results(make(seed, ops, kind, np.float64), "cpu", seed, rows), f8, f8, 1e-9)
    f4 = results(make(seed, ops, kind), "reference", seed, rows)
    return difference(results(make(seed, ops, kind), "cpu", seed, rows, bool(rng.integers(2))), f4, f8, 1e-4)


def trained(seed: int, ops: int, kind: str, dtype: Any, engine: str) -> list[np.ndarray]:
    """Losses and variables of some minibatches of training by two learners."""
    made = make(seed, ops, kind, dtype)
    rng = np.random.default_rng([seed, 11])
    if made.root is None:
        return []
    loss = C.reduce_sum(C.sin(made.root) * 0.1)
    parameters = [v for v in loss.parameters if rng.random() < 0.9]
    if not parameters or not loss.arguments:
        return []
    first, rest = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
    momentum = float(rng.choice([0.0, 0.9]))
    with C.device.use_engine(engine):
        learners = [C.adam(rest, 0.01, 0.9, gradient_clipping_threshold_per_sample=float(rng.choice([np.inf, 0.5])))]
        if first:
            learners.append(C.momentum_sgd(first, 0.01, momentum, l2_regularization_weight=0.01))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = C.Trainer(None, (loss, C.reduce_mean(C.abs(made.root))), learners)
        found = []
        for step, n in enumerate((4, 7, 4, 1)):
            data = np.random.default_rng([seed, 7, step])
            feeds = {v: data.normal(size=(n, *shape)).astype(v.dtype) for v, shape in made.inputs}
            trainer.train_minibatch({v: a for v, a in feeds.items() if v in trainer.loss_function.arguments})
            found.append(np.array(trainer.previous_minibatch_loss_average))
            found += [np.array(v.data) for v in made.variables]
    return found


def check_training(seed: int, ops: int, kind: str) -> str | None:
    """What differs when the engines train a graph, or None."""
    f4, f8 = trained(seed, ops, kind, np.float32, "reference"), trained(seed, ops, kind, np.float64, "reference")
    return difference(trained(seed, ops, kind, np.float32, "cpu"), f4, f8, 1e-3)


def difference(got: list[np.ndarray], like: list[np.ndarray], truth: list[np.ndarray], rtol: float) -> str | None:
    largest = max((float(np.max(np.abs(c), where=np.isfinite(c), initial=0)) for c in truth), default=0.0)
    for i, (a, b, c) in enumerate(zip(got, like, truth, strict=True)):
        if a.shape != c.shape:
            return f"result {i}: shape {a.shape} instead of {c.shape}"
        if np.any(np.isnan(c)):
            return None  # a mean over no rows; nobody promises what comes of it
        if a.size == 0 or not np.all(np.isfinite(c)) or np.max(np.abs(c)) > 1e6:
            continue
        scale = max(float(np.max(np.abs(c))), 0.3, 0.01 * min(largest, 1e3))  # what cancels out was large before
        unsure = float(np.max(np.abs(b.astype(np.float64) - c)))
        if not unsure <= 1e-3 * scale:
            continue  # one rounding decides: a comparison, a maximum
        off = np.abs(a.astype(np.float64) - c)
        if not np.max(off) <= rtol * scale + 30 * unsure:
            at = np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), a.shape)
            return f"result {i} {a.shape}: {a[at]} instead of {c[at]} at {tuple(int(k) for k in at)}"
    return None


def attempt(seed: int, ops: int, kind: str, how: Any = False) -> str | None:
    try:
        return check_training(seed, ops, kind) if how == "training" else check(seed, ops, kind, bool(how))
    except Exception as e:
        return f"{type(e).__name__}: {e}"


def shrink(seed: int, ops: int, kind: str, how: Any = False) -> int:
    """The smallest number of ops with which the graph of this seed still fails."""
    return next((n for n in range(1, ops) if attempt(seed, n, kind, how)), ops)


if __name__ == "__main__":
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ops_, how_ = int(sys.argv[4]) if len(sys.argv) > 4 else 20, sys.argv[5] if len(sys.argv) > 5 else ""
    for s in range(first, first + count):
        if message := attempt(s, ops_, kind, how_):
            small = shrink(s, ops_, kind, how_)
            print(f"{kind} seed {s} ops {small}: {attempt(s, small, kind, how_) or message}", flush=True)
