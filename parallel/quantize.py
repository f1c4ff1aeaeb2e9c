"""Gradients in 1 to 8 bits, column by column, with the error kept for the next time.

    v = g + r;   q = quantised v, which is sent;   r = v - dequantised q

1 bit: is v at least the column's mean? Its levels are mean -+ average |v - mean|. With `zero_threshold`: is v at least 0? Its levels
are the means of the two sides. k bits: 2^k equal steps over -+4 root mean squares of the column, each value the middle of its step.
Source: Seide, Fu, Droppo, Li, Yu: 1-Bit Stochastic Gradient Descent, Interspeech 2014; constants as CNTK has them.

Departure: a column is a run of values that lie side by side in memory (the last axis; shorter ones are joined, longer ones split), so
that two levels a column stay small beside its bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from cogkit.parallel import quantizer

__all__ = ["Columns", "column_sizes", "pack", "unpack"]

SHORTEST = 1024  # values of a column, where the parameter has as many
LONGEST = 2048  # a column and its error stay in the first-level cache
LANES = 32  # parts of a sum, so that its bits do not depend on the machine: value i goes into part i % LANES


def column_sizes(shape: Sequence[int]) -> list[int]:
    """Sizes of the columns of an array: whole last axes, joined to SHORTEST values or more where there are as many, split at LONGEST."""
    total = run = math.prod(shape)
    if not total:
        return []
    for axis in range(len(shape) - 1, -1, -1):
        run = math.prod(shape[axis:])
        if run >= SHORTEST:
            break
    parts = -(-run // LONGEST)
    return [run // parts + (i < run % parts) for i in range(parts)] * (total // run)


class Columns:
    """Columns of a flat array, by (first value, size), and the message that says what they hold."""

    def __init__(self, columns: Iterable[tuple[int, int]], bits: int, dtype: np.dtype):
        self.bits, self.dtype = bits, np.dtype(dtype)
        places = list(columns)
        begin, size = (np.array([c[k] for c in places], np.int64) for k in (0, 1))
        words = -(-size // 32) * bits
        word = np.cumsum(words) - words
        self.table = np.ascontiguousarray([begin, size, word]).reshape(3, -1)
        self.nbytes = 2 * len(places) * self.dtype.itemsize + 4 * int(words.sum())

    def message(self) -> np.ndarray:
        """Room for a message."""
        return np.empty(self.nbytes, np.uint8)

    def parts(self, message: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Views of a message: two levels a column, and the words of all columns."""
        levels = 2 * self.table.shape[1] * self.dtype.itemsize
        return message[:levels].view(self.dtype).reshape(-1, 2), message[levels:].view(np.uint32)


def pack(columns: Columns, zero_threshold: bool, values: np.ndarray, residual: np.ndarray, message: np.ndarray) -> None:
    """Adds values to the residual, says that in few bits in the message, and takes what it says off the residual; flat arrays."""
    if columns.dtype == np.float32:
        quantizer.pack(columns.table, columns.bits, zero_threshold, values, residual, message)
    else:
        pack_reference(columns, zero_threshold, values, residual, message)


def unpack(columns: Columns, message: np.ndarray, values: np.ndarray, add: bool = False) -> None:
    """Sets values to what the message says, or adds it; a flat array."""
    if columns.dtype == np.float32:
        quantizer.unpack(columns.table, columns.bits, message, values, add)
    else:
        unpack_reference(columns, message, values, add)


# what the kernels mean -----------------------------------------------------------------------------------------------------


def _sum(v: np.ndarray) -> np.ndarray:
    """The sum in LANES parts that are then folded in halves."""
    parts = np.zeros(-(-v.size // LANES) * LANES, v.dtype)
    parts[: v.size] = v
    sums = np.zeros(LANES, v.dtype)
    for row in parts.reshape(-1, LANES):
        sums += row
    while sums.size > 1:
        sums = sums[: sums.size // 2] + sums[sums.size // 2 :]
    return sums[0]


def _levels(v: np.ndarray, bits: int, zero_threshold: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(low, high, threshold) of a column: for one bit its two levels, else the range that the steps divide."""
    T = v.dtype.type
    if bits > 1:
        bound = T(4) * np.sqrt(_sum(v * v) / T(v.size))
        if v.dtype == np.float32 and np.isfinite(bound):  # rounded up to 15 bits: a step times a small number is exact
            bound = ((bound.view(np.uint32) + np.uint32(0x1FF)) & np.uint32(0xFFFFFE00)).view(np.float32)
        return -bound, bound, T(0)
    if zero_threshold:
        below = v < 0
        count = np.count_nonzero(below)
        low = _sum(np.where(below, v, T(0))) / T(max(count, 1))
        return low, _sum(np.where(below, T(0), v)) / T(max(v.size - count, 1)), T(0)
    mean = _sum(v) / T(v.size)
    deviation = _sum(np.abs(v - mean)) / T(v.size)
    return mean - deviation, mean + deviation, mean


def _meant(q: np.ndarray, bits: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What the numbers q of a column stand for."""
    if bits == 1:
        return np.where(q == 1, high, low)
    half = 2 ** (bits - 1)
    return ((q - half).astype(high.dtype) + high.dtype.type(0.5)) * (high / high.dtype.type(half))


def pack_reference(columns: Columns, zero_threshold: bool, values: np.ndarray, residual: np.ndarray, message: np.ndarray) -> None:
    """What `pack` means."""
    levels, words = columns.parts(message)
    for k, (begin, n, word) in enumerate(columns.table.T):
        v = values[begin : begin + n] + residual[begin : begin + n]
        low, high, threshold = _levels(v, columns.bits, zero_threshold)
        if columns.bits == 1:
            q = (v >= threshold).astype(np.int64)
        else:
            half = 2 ** (columns.bits - 1)
            step = high / v.dtype.type(half)
            inverse = v.dtype.type(1) / step if step > 0 else v.dtype.type(0)
            q = np.clip(v * inverse + v.dtype.type(half), 0, 2 * half - 1).astype(np.int64)
        levels[k] = low, high
        residual[begin : begin + n] = v - _meant(q, columns.bits, levels[k, 0], levels[k, 1])
        W = -(-n // 32)
        spread = np.zeros(32 * W, np.uint64)
        spread[:n] = q
        for p in range(columns.bits):
            plane = (spread.reshape(32, W) >> np.uint64(p) & np.uint64(1)) << np.arange(32, dtype=np.uint64)[:, None]
            words[word + p * W : word + (p + 1) * W] = plane.sum(0)


def unpack_reference(columns: Columns, message: np.ndarray, values: np.ndarray, add: bool = False) -> None:
    """What `unpack` means."""
    levels, words = columns.parts(message)
    for k, (begin, n, word) in enumerate(columns.table.T):
        W = -(-n // 32)
        q = np.zeros(32 * W, np.int64)
        for p in range(columns.bits):
            plane = words[word + p * W : word + (p + 1) * W]
            q += ((plane[None] >> np.arange(32, dtype=np.uint32)[:, None] & 1).astype(np.int64) << p).reshape(-1)
        meant = _meant(q[:n], columns.bits, levels[k, 0], levels[k, 1])
        values[begin : begin + n] = values[begin : begin + n] + meant if add else meant
