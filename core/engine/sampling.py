"""Weighted samples and losses over the order of rows, in NumPy: the meaning of the kernels of these names."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cogkit.engine import philox

__all__ = ["inclusion_frequency", "lambda_rank", "ndcg_at_1", "sample_classes"]


def _able(weights: np.ndarray) -> int:
    """How many classes can be drawn; -1 where the weights are no weights."""
    return int((weights > 0).sum()) if ((weights >= 0) & np.isfinite(weights)).all() else -1


def sample_classes(weights: np.ndarray, count: int, duplicates: bool, seed: int, step: int, purpose: int) -> np.ndarray:
    """Numbers of `count` classes drawn with chances in proportion to weights; NaN where weights are negative or too few are above 0.

    duplicates: draws are independent, else each class once, in the order of draws one after another: a race of exponential clocks.
    """
    w = weights.astype(np.float64)
    if _able(w) < (1 if duplicates else count):
        return np.full(count, np.nan)
    if duplicates:
        sums = np.cumsum(w)
        at = sums[-1] * philox.stream_fine(seed, step, purpose, count)
        return np.minimum(np.searchsorted(sums, at, side="right"), np.flatnonzero(w)[-1]).astype(np.float64)
    with np.errstate(divide="ignore"):
        time = np.where(w > 0, -np.log(philox.stream_fine(seed, step, purpose, len(w))) / w, np.inf)
    return np.argsort(time, kind="stable")[:count].astype(np.float64)


def inclusion_frequency(weights: np.ndarray, count: int) -> np.ndarray:
    """Chance of each class to be among `count` draws without duplicates: 1 - (1 - p)^t, with t so that their sum is `count`."""
    w = weights.astype(np.float64)
    able = _able(w)
    if able < count:
        return np.full(len(w), np.nan)
    if able == count:
        return (w > 0).astype(np.float64)
    log_miss, t = np.log1p(-w / w.sum()), float(count)
    for _ in range(100):
        hit = -np.expm1(t * log_miss)
        step = (count - hit.sum()) / -(log_miss * (1 - hit)).sum()
        t += step
        if not step > t * 1e-13:
            break
    return -np.expm1(t * log_miss)


def _queries(query: np.ndarray) -> Iterator[np.ndarray]:
    for q in np.unique(query):
        yield np.flatnonzero(query == q)


def _best_first(score: np.ndarray, gain: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort((rows, gain[rows], -score[rows]))]  # of equal scores the least gain is thought to come first


def lambda_rank(score: np.ndarray, gain: np.ndarray, query: np.ndarray) -> tuple[float, np.ndarray]:
    """100 rows mean(1 - NDCG) over queries, and lambda of each row. Arguments: one number a row."""
    if np.isnan(score + gain + query).any():
        return np.nan, np.full(len(score), np.nan)
    losses, slope = [], np.zeros(len(score))
    for rows in _queries(query):
        order = _best_first(score, gain, rows)
        discount = 1 / np.log(2.0 + np.arange(len(order)))
        s, g = score[order].astype(np.float64), gain[order].astype(np.float64)
        ideal = float(np.sort(g)[::-1] @ discount)
        losses.append(1 - float(g @ discount) / ideal if ideal > 0 else 1.0)
        if ideal > 0:
            more = np.sign(g[:, None] - g[None, :])
            change = np.abs((g[:, None] - g[None, :]) * (discount[:, None] - discount[None, :])) / ideal
            slope[order] = -(more * change / (1 + np.exp(more * (s[:, None] - s[None, :])))).sum(axis=1)
    return (100 * float(np.mean(losses)) * len(score) if losses else 0.0), slope


def ndcg_at_1(score: np.ndarray, gain: np.ndarray, query: np.ndarray) -> float:
    """100 rows mean(gain of the best score / largest gain) over queries. Arguments: one number a row."""
    if np.isnan(score + gain + query).any():
        return np.nan
    found = []
    for rows in _queries(query):
        most = gain[rows].max()
        found.append(float(gain[_best_first(score, gain, rows)[0]]) / float(most) if most > 0 else 0.0)
    return 100 * float(np.mean(found)) * len(score) if found else 0.0
