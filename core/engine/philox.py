"""Counter-based random numbers in NumPy: the meaning of every random kernel (its C twin is core/engine/cpu/philox.h).

Philox4x32-10 of J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A number is a function of
(seed, place in its row, row, step, purpose) alone, so it depends on no thread, rank, layout or order of calls.
"""

import numpy as np

__all__ = ["normal", "philox", "stream_fine", "stream_normal", "stream_uniform", "uniform"]


def philox(counter: list[np.ndarray], key: tuple[int, int]) -> list[np.ndarray]:
    """The four 32-bit words of each counter; counter: four arrays of 32-bit numbers that broadcast, key: two such numbers."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) & low for c in counter)
    k0, k1 = key
    for _ in range(10):
        p, q = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (q >> shift) ^ c1 ^ np.uint64(k0), q & low, (p >> shift) ^ c3 ^ np.uint64(k1), p & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def _words(seed: int, step: int, purpose: int, row0: int, rows: int, places: int) -> list[np.ndarray]:
    row = ((np.arange(rows, dtype=np.int64) + row0) & 0xFFFFFFFF)[:, None]
    place = np.arange(places, dtype=np.int64)[None, :]
    seed = (seed ^ (row0 >> 32 << 32)) & 0xFFFFFFFFFFFFFFFF
    counter = [place, row, np.asarray(step & 0xFFFFFFFF), np.asarray(purpose & 0xFFFFFFFF)]
    return philox(counter, (seed & 0xFFFFFFFF, seed >> 32))


def _unit(words: np.ndarray) -> np.ndarray:
    # 23 bits and a half: exact in float32 too, and never 0 or 1
    return ((words >> np.uint64(9)).astype(np.float64) + 0.5) * 2.0**-23


def uniform(seed: int, step: int, purpose: int, row0: int, rows: int, row_size: int) -> np.ndarray:
    """Uniform numbers in (0, 1), (rows, row_size) float64, exact in float32 too; row0: number of the first row.

    Number i of a row is word i % 4 of place i / 4. What row0 has above 32 bits (the rank) goes into the key.
    """
    words = np.stack(_words(seed, step, purpose, row0, rows, -(-row_size // 4)), axis=-1)
    return _unit(words.reshape(rows, words.shape[1] * 4)[:, :row_size])


def normal(seed: int, step: int, purpose: int, row0: int, rows: int, row_size: int) -> np.ndarray:
    """Standard normal numbers, (rows, row_size) float64: Box-Muller on words 0 and 1 of place i."""
    words = _words(seed, step, purpose, row0, rows, row_size)
    return np.sqrt(-2.0 * np.log(_unit(words[0]))) * np.cos(2.0 * np.pi * _unit(words[1]))


# streams: what has no rows goes on from step to step, number k = step * (numbers a step) + i ------------------------------------------


def _stream(seed: int, first: int, purpose: int, count: int, shift: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Numbers k and their words: of place (k mod 2**32) >> shift in row k >> 32 at step 0."""
    k = np.uint64(first & 0xFFFFFFFFFFFFFFFF) + np.arange(count, dtype=np.uint64)
    seed &= 0xFFFFFFFFFFFFFFFF
    place = (k & np.uint64(0xFFFFFFFF)) >> np.uint64(shift)
    counter = [place, k >> np.uint64(32), np.asarray(0), np.asarray(purpose & 0xFFFFFFFF)]
    return k, philox(counter, (seed & 0xFFFFFFFF, seed >> 32))


def stream_uniform(seed: int, step: int, purpose: int, count: int) -> np.ndarray:
    """Uniform numbers in (0, 1) of a step, (count,) float64, exact in float32 too: word k % 4 of a place that four numbers share."""
    k, words = _stream(seed, step * count, purpose, count, 2)
    return _unit(np.choose((k & np.uint64(3)).astype(np.int64), words))


def stream_normal(seed: int, step: int, purpose: int, count: int) -> np.ndarray:
    """Standard normal numbers of a step, (count,) float64: Box-Muller on words 0 and 1."""
    words = _stream(seed, step * count, purpose, count, 0)[1]
    return np.sqrt(-2.0 * np.log(_unit(words[0]))) * np.cos(2.0 * np.pi * _unit(words[1]))


def stream_fine(seed: int, step: int, purpose: int, count: int) -> np.ndarray:
    """Uniform numbers in (0, 1) of a step, (count,) float64 of 53 bits: words 0 and 1."""
    words = _stream(seed, step * count, purpose, count, 0)[1]
    whole = ((words[0] >> np.uint64(5)) << np.uint64(26)) + (words[1] >> np.uint64(6))
    return (whole.astype(np.float64) + 0.5) * 2.0**-53
