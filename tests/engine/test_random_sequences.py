"""Random graphs over sequences - recurrences in both directions upon one another, steps picked, row spaces changed - on both engines."""

import os

import numpy as np
import pytest

import cogkit as C
from cogkit.engine.executable import Executable

S = C.sequence
N = int(os.environ.get("COGKIT_RANDOM_SEQUENCES", "60"))  # more by hand


class Maker:
    """A graph from a seed; all values are of shape (2,) but for those that products and splices pass through."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        C.set_seed(seed)
        self.x = S.input_variable(2, dtype=np.float64, needs_gradient=True, name="x")
        self.b = C.input_variable(2, dtype=np.float64, needs_gradient=True, name="b")
        self.pool = [self.x, C.tanh(self.x)]

    def pick(self, pool):
        return pool[self.rng.integers(len(pool))]

    def weights(self, *shape):
        return C.parameter(init=self.rng.standard_normal(shape) * 0.6)

    def once(self, pool):
        """One more value of the pool's row space, of each kind with the same chance."""
        a, c = self.pick(pool), self.pick(pool)
        kind = self.rng.integers(11)
        if kind == 0:
            return C.tanh(a)
        if kind == 1:
            return C.sigmoid(a)
        if kind == 2:
            return a + c
        if kind == 3:
            return a * c
        if kind == 4:
            return C.times(a, self.weights(2, 2))
        if kind == 5:
            return C.times(C.splice(a, c), self.weights(4, 2))
        if kind == 6:
            return C.element_select(C.greater(a, 0.1), a, c)
        if kind == 7:
            return C.splice(C.slice(a, 0, 1, 2), C.slice(c, 0, 0, 1))
        if kind == 8:
            return a * self.b + c
        if kind == 9:
            return C.softmax(a)
        return C.relu(a - 0.1 * c)

    def delayed(self, value, sign):
        start = [None, 0.5, self.b, C.constant(np.array([0.1, -0.3]))][self.rng.integers(4)]
        f = S.past_value if sign > 0 else S.future_value
        return f(value, start, int(self.rng.integers(1, 4)))

    def recurrence(self):
        sign = self.rng.choice([-1, 1])
        states = [C.placeholder() for _ in range(self.rng.integers(1, 4))]
        pool = list(self.pool[-3:])
        for h in states:
            pool.append(self.delayed(h, sign))
            if self.rng.random() < 0.3:
                pool.append(self.delayed(pool[-1], sign))
        for _ in range(self.rng.integers(1, 7)):
            pool.append(self.once(pool))
        # each reads something from outside the cycle, which says the shape
        new = [C.tanh(pool[-1 - self.rng.integers(min(3, len(pool)))] + self.pick(pool) + 0.3 * self.pool[-1]) for _ in states]
        whole = C.combine(new)
        whole.replace_placeholders({h: f.output for h, f in zip(states, new, strict=True) if h in whole.placeholders})
        return [v for v in whole.outputs]

    def other_spaces(self):
        a, c = self.pick(self.pool), self.pick(self.pool)
        kind = self.rng.integers(7)
        if kind == 0:
            return S.broadcast_as(S.last(a), c)
        if kind == 1:
            return S.broadcast_as(S.reduce_sum(a) * self.b, c)
        if kind == 2:
            return S.softmax(a)
        if kind == 3:
            flag = C.greater(C.slice(self.x, 0, 0, 1), 0)
            return S.scatter(C.tanh(S.gather(a, flag)) * S.gather(c, flag), flag)
        if kind == 4:
            return C.to_sequence_like(C.tanh(S.unpack(a, 0.0, True)), c)
        if kind == 5:
            return self.delayed(a, self.rng.choice([-1, 1]))
        return a * S.is_first(c) + S.broadcast_as(S.first(S.slice(c, 0, 2)), a)

    def graph(self):
        for _ in range(self.rng.integers(1, 5)):
            kind = self.rng.random()
            if kind < 0.6:
                self.pool += self.recurrence()
            elif kind < 0.8:
                self.pool.append(self.other_spaces())
            else:
                self.pool.append(self.once(self.pool))
        out = C.splice(*[C.sin(v) for v in self.pool[-3:]])
        return out if self.rng.random() < 0.5 else S.reduce_sum(out)


def check(seed):
    made = Maker(seed)
    f = made.graph()
    rng = np.random.default_rng(seed + 1)
    loss = C.reduce_sum(f, axis=C.Axis.all_axes())
    wrt = [v for v in (made.x, made.b) if v in f.arguments] + list(f.parameters)
    runs = {e: Executable([f.output], roots=loss.output, wrt=wrt, training=True, engine=e) for e in ("reference", "cpu")}
    for _ in range(3):  # other lengths: the cpu engine takes its calls over
        lengths = rng.integers(1, 7, rng.integers(1, 5))
        xs, bs = [rng.standard_normal((n, 2)) for n in lengths], rng.standard_normal((len(lengths), 2))
        feed = {v: a for v, a in ((made.x, xs), (made.b, bs)) if v in f.arguments}
        want, got = (runs[e].run(feed) for e in ("reference", "cpu"))
        for w, g in zip(want, got, strict=True):
            w, g = (np.concatenate([a.ravel() for a in v]) if isinstance(v, list) else v for v in (w, g))
            np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-11 * max(1.0, np.abs(w).max(initial=0)))


@pytest.mark.parametrize("seed", range(N))
def test_engines_agree(seed):
    check(seed)
