"""What the kernels of sparse values mean, in NumPy and SciPy. CSR rows are a SciPy CSR matrix, lists of rows a `RowSparse`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cogkit.engine.indices import checked
from cogkit.engine.spaces import row_table
from cogkit.engine.sparse import RowSparse

__all__ = ["SPARSE_KERNELS"]

SPARSE_KERNELS: dict[str, Callable[..., Any]] = {}  # by op, with the form of its result before where it is sparse


def kernel(name: str) -> Callable:
    """Registers a kernel under its op's name."""

    def register(f):
        SPARSE_KERNELS[name] = f
        return f

    return register


def _shape(v: Any, sizes: dict) -> tuple[int, ...]:
    return ((sizes[v.type.axes],) if v.type.axes else ()) + v.type.shape


def _chosen(a: Any, index: np.ndarray) -> Any:
    """Rows of a CSR matrix; empty ones where the index is -1."""
    import scipy.sparse

    made = a[np.maximum(index, 0)]
    return scipy.sparse.csr_matrix(made.multiply((index >= 0)[:, None]))


@kernel("densify")
def _densify(n, sizes, run, a):
    return a.toarray().reshape(_shape(n.outputs[0], sizes))


@kernel("csr_times")
def _csr_times(n, sizes, run, a, b):
    return (a @ (b.T if n.attrs["tb"] else b)).reshape(_shape(n.outputs[0], sizes))


def _listed(rows: np.ndarray, whole: np.ndarray, shape: tuple[int, ...]) -> RowSparse:
    return RowSparse(rows, whole[rows].reshape(len(rows), *shape[1:]), shape)


@kernel("rows csr_transposed")
def _csr_transposed(n, sizes, run, a, dy):
    return _listed(np.unique(a.indices), np.asarray(a.T @ dy.reshape(a.shape[0], -1)), n.outputs[0].type.shape)


@kernel("rows scatter_rows")
def _scatter_rows(n, sizes, run, index, dy):
    shape = n.attrs["shape"]
    i = checked(n, index, shape[0]).reshape(-1)
    whole = np.zeros((shape[0], math.prod(shape[1:])), dy.dtype)
    np.add.at(whole, i[i >= 0], np.broadcast_to(dy, index.shape + shape[1:]).reshape(i.size, whole.shape[1])[i >= 0])
    return _listed(np.unique(i[i >= 0]), whole, shape)


@kernel("rows rows_add")
def _rows_add(n, sizes, run, a, b):
    return _listed(np.union1d(a.rows, b.rows), a.toarray() + b.toarray(), a.shape)


@kernel("csr move_rows")
def _move_rows(n, sizes, run, a):
    each = math.prod(n.inputs[0].type.shape[:-1])
    index = row_table(n, sizes)[:, None]
    return _chosen(a, np.where(index < 0, -1, index * each + np.arange(each)).reshape(-1))


@kernel("csr take")
def _take(n, sizes, run, a):
    shape = _shape(n.inputs[0], sizes)[:-1]
    axis = n.attrs["axis"] + (1 if n.inputs[0].type.axes else 0)
    kept = n.attrs["first"] + n.attrs["stride"] * np.arange(n.outputs[0].type.shape[n.attrs["axis"]])
    return _chosen(a, np.take(np.arange(math.prod(shape)).reshape(shape), kept, axis=axis).reshape(-1))


@kernel("csr one_hot")
def _one_hot(n, sizes, run, x):
    import scipy.sparse

    return scipy.sparse.csr_matrix((np.floor(x).reshape(-1, 1) == np.arange(n.attrs["classes"])).astype(x.dtype))


@kernel("update_rows")
def _update_rows(n, sizes, run, w, g, *rest):
    *rest, scale, limit = rest
    rule = n.attrs["rule"]
    g = g.toarray() * scale
    norm = np.sqrt((g * g).sum())
    g = g * min(1.0, limit / norm if norm else 1.0) if n.attrs["norm"] else np.clip(g, -limit, limit)
    if rule == "sgd":
        w -= rest[0] * g
    elif rule == "adagrad":
        s, eta = rest
        s += g * g
        a = 1 / np.sqrt(s + 1e-16)
        w -= (eta / a.mean() if n.attrs["average"] else eta) * a * g
    elif rule in ("momentum", "nesterov"):
        s, m, u = rest
        s[...] = m * s + u * g
        w -= s if rule == "momentum" else m * s + u * g
    elif rule == "adadelta":
        s, t, eta = rest
        rho, epsilon = n.attrs["decay"], n.attrs["epsilon"]
        s[...] = rho * s + (1 - rho) * g * g
        d = np.sqrt((t + epsilon) / (s + epsilon)) * g
        t[...] = rho * t + (1 - rho) * d * d
        w -= eta * d
    elif rule == "fsadagrad":
        s, r, m, u, v, eta, v1, root = rest
        r[...] = v * r + v1 * g * g
        s[...] = m * s + u * g * np.minimum(root / np.sqrt(np.maximum(r, 1e-37)), 10)
        w -= eta * s
    else:
        s, r, m, u, v, rate, *v1 = rest
        s[...] = m * s + u * g
        r[...] = v * r + v1[0] * g * g if rule == "adam" else np.maximum(v * r, abs(g))
        w -= rate * s / ((np.sqrt(r) if rule == "adam" else r) + n.attrs["epsilon"])
    return np.zeros((), w.dtype)
