"""CNTK's own random numbers on a CPU, from the algorithms' papers: some of its tests hold values that were drawn with a seed.

A 64-bit Mersenne twister for each seeded initialiser and each node that samples classes. cogkit itself draws by counters (Philox), which
do not depend on the order of calls; what has no seed still does so here.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np

from cogkit import initializer
from cogkit.engine.cpu import kernels
from cogkit.engine.cpu.user import PythonCall
from cogkit.lowering.layout import PLAIN
from cogkit.ops.randomness import SentinelValueForAutoSelectRandomSeed

__all__ = ["Twister", "put_in_place", "seeded"]

WORDS, HALF = 312, 156
STRIPS, LAST, AREA = 128, 3.442619855899, 9.91256303526217e-3


def _ziggurat() -> tuple[list[float], list[float]]:
    """Right ends of strips of equal area under exp(-x^2 / 2), and the heights there."""
    x = [AREA / math.exp(-LAST * LAST / 2), LAST]
    while len(x) < STRIPS:
        x.append(math.sqrt(-2 * math.log(AREA / x[-1] + math.exp(-x[-1] * x[-1] / 2))))
    x.append(0.0)
    return x, [math.exp(-v * v / 2) for v in x]


class Twister:
    """MT19937-64 (Nishimura 2000, "Tables of 64-bit Mersenne twisters") with the methods of NumPy's generators that initialisers call."""

    X, Y = _ziggurat()

    def __init__(self, seed: int):
        state = [seed & (2**64 - 1)]
        for i in range(1, WORDS):
            state.append((6364136223846793005 * (state[-1] ^ state[-1] >> 62) + i) & (2**64 - 1))
        self.state = np.array(state, np.uint64)
        self.ready = np.empty(0, np.uint64)

    def _twist(self) -> np.ndarray:
        """The next words, tempered."""
        s = self.state
        upper, lower = np.uint64(0xFFFFFFFF80000000), np.uint64(0x7FFFFFFF)
        for part, far in ((slice(0, HALF), slice(HALF, WORDS)), (slice(HALF, WORDS), slice(0, HALF))):
            following = np.append(s[part.start + 1 : part.stop], s[part.stop % WORDS])
            x = (s[part] & upper) | (following & lower)
            s[part] = s[far] ^ (x >> np.uint64(1)) ^ np.where(x & np.uint64(1), np.uint64(0xB5026F5AA96619E9), np.uint64(0))
        x = s ^ ((s >> np.uint64(29)) & np.uint64(0x5555555555555555))
        x ^= (x << np.uint64(17)) & np.uint64(0x71D67FFFEDA60000)
        x ^= (x << np.uint64(37)) & np.uint64(0xFFF7EEE000000000)
        return x ^ (x >> np.uint64(43))

    def words(self, n: int) -> np.ndarray:
        """The next n words of 64 bits."""
        parts, have = [self.ready], len(self.ready)
        while have < n:
            parts.append(self._twist())
            have += WORDS
        every = np.concatenate(parts)
        self.ready = every[n:]
        return every[:n]

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        """Numbers between two bounds, float64."""
        return (self.words(math.prod(shape)) / np.float64(2**64) * (high - low) + low).reshape(shape)

    def standard_normal(self, shape: Any, dtype: Any = np.float64) -> np.ndarray:
        """Standard normal numbers: the ziggurat of Marsaglia and Tsang (2000)."""
        shape = (shape,) if isinstance(shape, int) else shape
        return np.array([self._normal() for _ in range(math.prod(shape))], dtype).reshape(shape)

    def _unit(self) -> float:
        return float(self.words(1)[0]) * 2.0**-64

    def _normal(self) -> float:
        while True:
            u = int(self.words(1)[0])
            sign, i = 1 if u & 1 else -1, (u & 255) >> 1
            x = (u >> 11) * 2.0**-53 * self.X[i]
            if x < self.X[i + 1]:
                return sign * x
            if i == 0:  # the tail, by two exponential numbers
                while True:
                    x, e = -math.log(1 - self._unit()) / LAST, -math.log(1 - self._unit())
                    if 2 * e > x * x:
                        return sign * (x + LAST)
            if self.Y[i] + self._unit() * (self.Y[i + 1] - self.Y[i]) < math.exp(-x * x / 2):
                return sign * x

    def classes(self, weights: np.ndarray, count: int, duplicates: bool) -> list[int]:
        """Classes drawn with chances in proportion to weights; without duplicates one that is drawn again does not count."""
        sums = np.cumsum(weights, dtype=np.float64)
        if duplicates:
            return np.searchsorted(sums, self.uniform(0, sums[-1], (count,))).tolist()
        found: dict[int, None] = {}
        while len(found) < count:
            found[int(np.searchsorted(sums, self.uniform(0, sums[-1], ())))] = None
        return list(found)


def seeded(seed: int) -> int:
    """The number by which an initialiser knows that a seed was given."""
    return (1 << 32) + seed


_philox = initializer.generator
_streams: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # of nodes of the user's graph


def _generator(purpose: int) -> Any:
    return Twister(purpose - seeded(0)) if purpose >= seeded(0) else _philox(purpose)


def _sample_classes(s, sizes):
    (w,), (y,), a, made = s.inputs, s.outputs, s.node.attrs, s.node.origin
    seed = made.attributes["seed"]
    if made not in _streams:
        _streams[made] = Twister(a["purpose"] if seed == SentinelValueForAutoSelectRandomSeed else seed)
    draw = _streams[made].classes
    shapes = [(w.type.shape, w.type.dtype)], [(y.type.shape, y.type.dtype)]
    return PythonCall(lambda v: [draw(v, a["count"], a["duplicates"])], *shapes), [(w, PLAIN), (y, PLAIN)]


def put_in_place() -> None:
    """From now on seeded initialisers and samplers of classes of this process draw as CNTK's do."""
    initializer.generator = _generator
    kernels.TABLE.makers["sample_classes"] = _sample_classes
