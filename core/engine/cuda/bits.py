"""Products of matrices of signs on the GPU: 32 signs a word, products by counting bits."""

from __future__ import annotations

from typing import Any

from cogkit.engine.cuda.driver import B
from cogkit.engine.cuda.table import blocks, i64, launch

__all__ = ["sign_words", "signs_packed", "signs_times"]

TILE = 64  # as in bits.cu


def sign_words(k: int) -> int:
    """Words of a row of k signs."""
    return -(-k // 32)


def signs_packed(x: B, words: B, scale: Any, rows: int, k: int, dtype: str) -> Any:
    """A launch that packs x (rows, k): words (rows, sign_words(k)) uint32, bit 1 for what is not below 0; scale (rows,): mean of |x|.

    scale: a buffer, or i64(0) where none is wanted.
    """
    return launch("bits", f"bits_pack_{dtype}", blocks(32 * rows), 256, [x, words, scale, i64(rows), i64(k)])


def signs_times(a: B, p: Any, b: B, q: Any, y: B, m: int, n: int, k: int, dtype: str) -> Any:
    """A launch of y (m, n) = p a b' q for packed a (m, k) and b (n, k) of signs; p (m,), q (n,): buffers, or i64(0) for ones."""
    grid = (-(-n // TILE), -(-m // TILE))
    return launch("bits", f"bits_times_{dtype}", grid, 256, [a, p, b, q, y, i64(m), i64(n), i64(k)])
