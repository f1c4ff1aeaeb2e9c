"""How threads of the GPU share a space of elements: the words that space.cuh reads, for elementwise kernels and for reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["MOST_SHARED", "THREADS", "Space", "plan"]

THREADS = 128  # of a block, at most; MOST_THREADS of space.cuh
MOST_DIMS = 12
MOST_SHARED = 96 << 10  # bytes of shared memory that a block may want
_FULL = 132 * 16  # blocks that keep the largest GPUs busy
_FIRST = 13  # W_FIRST of space.cuh
_LONGEST = 512  # sums of one thread, for the sake of rounding


class Space(NamedTuple):
    """A planned space. vector: elements of a group; kept, reduced: (groups, [stride of each operand between groups]) of each dim, the last one the
    innermost; lanes: stride of each operand within a group, 0 or 1; words: what the kernel reads; blocks: of the launch; parts: blocks that
    share a result; elements: results."""

    vector: int
    kept: list[tuple[int, list[int]]]
    reduced: list[tuple[int, list[int]]]
    lanes: tuple[int, ...]
    across: bool
    words: np.ndarray
    threads: int
    blocks: int
    parts: int
    elements: int

    @property
    def shape(self) -> tuple:
        """What spaces that run in one launch, or by one text, share: strides that are 0, not the others."""
        dims = tuple(tuple(bool(s) for s in strides) for _, strides in (*self.kept, *self.reduced))
        return self.vector, len(self.kept), self.across, self.lanes, dims


def magic(size: int) -> int:
    """How space.cuh divides a number below 2^32 by a size: multiplier, shift in the upper half.

    T. Granlund, P. L. Montgomery, "Division by invariant integers using multiplication" (PLDI 1994).
    """
    shift = (size - 1).bit_length()
    return (2**32 * (2**shift - size) // size + 1) % 2**32 | shift << 32


def power_above(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def merged(dims: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """(size, stride of each operand) of dims, without those of size 1, neighbours joined where all operands allow it; at least one."""
    out: list[tuple[int, list[int]]] = []
    for d, size in enumerate(dims):
        if size == 1:
            continue
        here = [s[d] for s in strides]
        if out and size and all(a == b * size for a, b in zip(out[-1][1], here, strict=True)):
            out[-1] = (out[-1][0] * size, here)
        else:
            out.append((size, here))
    if len(out) > MOST_DIMS:
        raise ValueError(f"cuda engine: expected at most {MOST_DIMS} axes, got {len(out)}")
    return out or [(1, [0] * len(strides))]


def plan(
    dims: Sequence[int],
    strides: Sequence[Sequence[int]],
    whole: Sequence[int],
    results: Sequence[int],
    widest: int,
    flow: int = 0,
    counters: int = 0,
    threads: int = THREADS,
) -> Space:
    """Plans a space.

    strides: of each operand over the dims in elements, the last `counters` of them of random numbers. whole: operands that are written all over;
    results: those whose dims of stride 0 are reduced. widest: elements that a group may have.
    """
    space = merged(dims, strides)
    keep = [not results or any(s[o] for o in results) or n == 1 for n, s in space]
    across = not keep[-1]
    size, lanes = space[-1]
    vector = 1
    if (
        widest > 1
        and all(lanes[o] == 1 for o in (*whole, *(() if across else results)))
        and all(s in (0, 1) for s in lanes)
        and (size % widest == 0 or (len(space) == 1 and (across or not results)))
    ):
        vector = widest
        space[-1] = (-(-size // vector), [s * vector for s in lanes])
    kept = [x for x, k in zip(space, keep, strict=True) if k]
    reduced = [x for x, k in zip(space, keep, strict=True) if not k]
    n_kept, n_reduced = (math.prod(n for n, _ in x) for x in (kept, reduced))
    if max(n_kept, n_reduced) >= 2**32:
        raise ValueError(f"cuda engine: expected fewer than 2^32 groups of elements, got {max(n_kept, n_reduced)}")
    each = max(1, min(8, n_kept // (threads * _FULL)))
    share, parts, part = 1, 1, n_reduced
    beside = threads
    if results:
        share, parts, part = shared(n_kept, n_reduced, across, threads)
        beside = threads // share
    blocks = -(-n_kept // beside) if results else -(-n_kept // (threads * each))
    words = [
        n_kept,
        n_reduced,
        size if len(space) == 1 and vector > 1 else 2**62,
        each,
        int(across),
        share,
        beside,
        part,
        parts,
        blocks,
        flow,
    ]
    words += [len(kept), len(space)]
    assert len(words) == _FIRST
    for n, _ in (*kept, *reduced):
        words += [n, magic(max(n, 1))]
    for o in range(len(strides)):
        words += [s[o] for _, s in (*kept, *reduced)]
    if counters:
        words += list(lanes[len(strides) - counters :])
    elements = n_kept * (1 if across else vector)
    within = tuple(lanes) if vector > 1 else (0,) * len(strides)
    return Space(vector, kept, reduced, within, across, np.array(words, np.int64), threads, blocks * parts, parts, elements)


def shared(kept: int, reduced: int, across: bool, threads: int) -> tuple[int, int, int]:
    """(threads of a result, blocks of a result, groups of each), by the sizes alone, so that sums are the same on every GPU."""
    if across:
        share = min(threads, power_above(-(-reduced // 4)))
        if kept * share < _FULL * threads // 4:
            share = min(threads, power_above(reduced))
    else:
        share = max(threads // min(32, power_above(kept)), 1)
        share = min(share, power_above(max(reduced, 1)))
    blocks = -(-kept // (threads // share))
    each = -(-reduced // share)  # of a thread
    parts = -(-each // _LONGEST)
    if blocks < _FULL // 8:  # not enough to keep the GPU busy: a second launch is worth its while
        parts = max(parts, min(-(-_FULL // 2 // max(blocks, 1)), -(-each // 8)))
    parts = max(parts, 1)
    part = -(-each // parts) * share
    return share, max(-(-reduced // max(part, 1)), 1), part
