"""Initialisers of parameters: callables of a shape and a type, whose numbers depend on the run's seed and on the order of creation."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np

from cogkit.errors import here

__all__ = [
    "bilinear",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "initializer_with_rank",
    "normal",
    "truncated_normal",
    "uniform",
    "xavier",
]

DefaultParamInitScale = 1
SentinelValueForInferParamInitRank = 2147483647
SentinelValueForAutoSelectRandomSeed = 18446744073709551613
_serial = itertools.count()
_seed = 0


def restart(seed: int) -> None:
    """Starts the numbers again from a seed; parameters made in the same order get the same values."""
    global _serial, _seed
    _serial, _seed = itertools.count(), seed


def generator(purpose: int) -> np.random.Generator:
    """The numbers of an initialiser: they depend on the run's seed and on this number alone."""
    return np.random.Generator(np.random.Philox(key=[_seed & (2**64 - 1), purpose]))


class Initializer:
    """A distribution of initial values. `kind`, `scale` and the ranks say which; `fans` gives inputs and outputs of one weight tensor.

    output_rank: how many axes, of those that are no filter axes, count outputs: the last ones, or the first ones where it is negative.
    filter_rank: how many last axes are the kernel's extent.
    """

    def __init__(
        self, kind: str, scale: float, output_rank: int | None = None, filter_rank: int | None = None, seed: int | None = None
    ):
        self.kind, self.scale = kind, float(scale)
        self.output_rank = None if output_rank in (None, SentinelValueForInferParamInitRank) else int(output_rank)
        self.filter_rank = None if filter_rank in (None, SentinelValueForInferParamInitRank) else int(filter_rank)
        self.seed = None if seed in (None, SentinelValueForAutoSelectRandomSeed) else int(seed)
        self.purpose: int | None = None if self.seed is None else (1 << 32) + self.seed

    def pinned(self) -> Initializer:
        """The same, with numbers that are the same at each call: for copies of a parameter that has no value yet."""
        made = copy.copy(self)
        if made.purpose is None:
            made.purpose = next(_serial)
        return made

    def fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Fan-in and fan-out; `ValueError` when the ranks exceed the shape's."""
        filters = self.filter_rank or 0
        outputs = 1 if self.output_rank is None else self.output_rank
        if abs(outputs) + filters > len(shape):
            raise ValueError((f"at least {abs(outputs) + filters} axes for {self!r}", str(shape), ""))
        window = math.prod(shape[len(shape) - filters :])
        rest = shape[: len(shape) - filters]
        split = len(rest) - outputs if outputs >= 0 else -outputs
        first, last = math.prod(rest[:split]), math.prod(rest[split:])
        return (first * window, last * window) if outputs >= 0 else (last * window, first * window)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises `ValueError` for a shape that it cannot fill."""
        if self.kind == "bilinear":
            if len(shape) < 2 or shape[-2] != shape[-1]:
                raise ValueError(("a square kernel for bilinear", str(shape), ""))
            if len(shape) > 3 and shape[0] != shape[1]:
                raise ValueError(
                    ("as many input as output channels for bilinear", str(shape), "each channel is interpolated alone")
                )
        elif self.kind not in ("uniform", "normal", "truncated_normal"):
            self.fans(shape)

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        purpose = next(_serial) if self.purpose is None else self.purpose
        r = generator(purpose)
        s = self.scale
        if self.kind == "bilinear":
            return _bilinear(shape).astype(dtype)
        if self.kind == "uniform":
            return r.uniform(-s, s, shape).astype(dtype)
        if self.kind == "normal":
            return (r.standard_normal(shape) * s).astype(dtype)
        if self.kind == "truncated_normal":
            drawn = np.float64 if dtype == np.float64 else np.float32
            x = r.standard_normal(shape, drawn)
            while (far := np.abs(x) > 2).any():
                x[far] = r.standard_normal(int(far.sum()), drawn)
            return (x * s).astype(dtype)
        fan_in, fan_out = self.fans(tuple(shape))
        if self.kind.startswith("glorot"):
            variance = 2.0 / max(fan_in + fan_out, 1)
        else:
            variance = (1.0 if self.kind == "xavier" else 2.0) / max(fan_in, 1)
        if self.kind.endswith("normal"):
            return (r.standard_normal(shape) * s * math.sqrt(variance)).astype(dtype)
        bound = s * math.sqrt(3 * variance)
        return r.uniform(-bound, bound, shape).astype(dtype)

    def __repr__(self) -> str:
        return f"{self.kind}(scale={self.scale:g}, output_rank={self.output_rank}, filter_rank={self.filter_rank})"


def _bilinear(shape: tuple[int, ...]) -> np.ndarray:
    kw = shape[-1]
    f = math.ceil(kw / 2)
    p = 1 - np.abs(np.arange(kw) - (kw - 1) / 2) / f
    out = np.zeros(shape)
    if len(shape) > 3:
        for i in range(shape[0]):
            out[i, i] = np.outer(p, p)
    else:
        out[...] = np.outer(p, p)
    return out


def _make(kind: str, scale: float, output_rank: Any, filter_rank: Any, seed: Any) -> Initializer:
    if not scale > 0:
        raise ValueError(here(f"{kind}: expected a scale above 0, got {scale!r}"))
    return Initializer(kind, scale, output_rank, filter_rank, seed)


def uniform(scale: float, seed: int | None = None) -> Initializer:
    """Uniform in [-scale, scale]."""
    return _make("uniform", scale, None, None, seed)


def normal(scale: float, output_rank: int | None = None, filter_rank: int | None = None, seed: int | None = None) -> Initializer:
    """Normal with standard deviation `scale`."""
    return _make("normal", scale, output_rank, filter_rank, seed)


def truncated_normal(stdev: float, seed: int | None = None) -> Initializer:
    """Normal with standard deviation `stdev`, drawn again beyond two of them."""
    return _make("truncated_normal", stdev, None, None, seed)


def glorot_uniform(
    scale: float = 1, output_rank: int | None = None, filter_rank: int | None = None, seed: int | None = None
) -> Initializer:
    """Uniform within scale * sqrt(6 / (fan_in + fan_out)). Glorot and Bengio 2010."""
    return _make("glorot_uniform", scale, output_rank, filter_rank, seed)


def glorot_normal(
    scale: float = 1, output_rank: int | None = None, filter_rank: int | None = None, seed: int | None = None
) -> Initializer:
    """Normal with standard deviation scale * sqrt(2 / (fan_in + fan_out)). Glorot and Bengio 2010."""
    return _make("glorot_normal", scale, output_rank, filter_rank, seed)


def xavier(
    scale: float = 1, output_rank: int | None = None, filter_rank: int | None = None, seed: int | None = None
) -> Initializer:
    """Uniform within scale * sqrt(3 / fan_in), as CNTK's initialiser of this name does."""
    return _make("xavier", scale, output_rank, filter_rank, seed)


def he_uniform(
    scale: float = 1, output_rank: int | None = None, filter_rank: int | None = None, seed: int | None = None
) -> Initializer:
    """Uniform within scale * sqrt(6 / fan_in). He et al. 2015."""
    return _make("he_uniform", scale, output_rank, filter_rank, seed)


def he_normal(
    scale: float = 1, output_rank: int | None = None, filter_rank: int | None = None, seed: int | None = None
) -> Initializer:
    """Normal with standard deviation scale * sqrt(2 / fan_in). He et al. 2015."""
    return _make("he_normal", scale, output_rank, filter_rank, seed)


def bilinear(kernel_width: int, kernel_height: int) -> Initializer:
    """Weights of bilinear interpolation, for transposed convolutions that upsample: (channels, channels, width, width), channel by channel.

    Kernels without channels, or with one axis of them, are filled as they are. Raises `ValueError` unless square, and for channels that differ.
    """
    if kernel_width != kernel_height:
        raise ValueError(here(f"bilinear: expected a square kernel, got {(kernel_width, kernel_height)}"))
    return Initializer("bilinear", 1)


def initializer_with_rank(initializer: Any, output_rank: int | None = None, filter_rank: int | None = None) -> Any:
    """The initialiser with ranks where it was not told any; numbers and arrays as they are."""
    if not isinstance(initializer, Initializer):
        return initializer
    return Initializer(
        initializer.kind,
        initializer.scale,
        output_rank if initializer.output_rank is None else initializer.output_rank,
        filter_rank if initializer.filter_rank is None else initializer.filter_rank,
        initializer.seed,
    )
