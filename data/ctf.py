"""CNTK's text format (CTF): a line is one sample of each stream that it names, a sequence is the lines of one id.

    19 |features 0.1 0.2 |labels 3:1 |# a remark
    19 |features 0.3 0.4
    20 |features 0.5 0.6 |labels 0:1

Without ids every line is a sequence of one sample.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cogkit.data.format import write_aside
from cogkit.errors import DataError

__all__ = ["write_ctf"]


def write_ctf(path: str | os.PathLike[str], sequences: Iterable[Mapping[str, Any]], sparse: Iterable[str] = ()) -> None:
    """Writes sequences, each a dict stream -> array (length, dim) or CSR (length, dim), as text; sequence i has the id i.

    Streams may have different lengths. Dense arrays of streams named in `sparse` are written as index:value. Numbers are
    written as short as they can be read back to the same float32 or float64. Raises ValueError, DataError (not finite).
    """
    sparse = set(sparse)
    with write_aside(path) as aside, open(aside, "x", encoding="utf-8") as f:
        for i, sequence in enumerate(sequences):
            columns = [_lines(i, name, rows, name in sparse) for name, rows in sequence.items()]
            length = max((len(c) for c in columns), default=0)
            if not length:
                raise ValueError(f"CTF {path}: expected one sample or more in sequence {i}, got none")
            for t in range(length):
                f.write(f"{i} {' '.join(c[t] for c in columns if t < len(c))}\n")


def _lines(i: int, name: str, rows: Any, sparse: bool) -> list[str]:
    """`|name values` for each sample."""
    if not name or any(c.isspace() or c in "|#" for c in name):
        raise ValueError(f"CTF: expected stream names without spaces, '|' and '#', got {name!r}")
    if hasattr(rows, "tocsr"):
        rows = rows.tocsr()
        values, at = rows.data, rows.indptr
    else:
        rows = np.asarray(rows)
        if rows.ndim == 0 or rows.dtype.kind not in "fiu":
            raise ValueError(f"CTF sequence {i}, stream '{name}': expected numbers (length, dim), got {rows.dtype}{rows.shape}")
        values = rows = rows.reshape(len(rows), -1)
        at = None
    if not np.isfinite(values).all():
        raise DataError(f"CTF sequence {i}, stream '{name}': expected finite numbers, got {values[~np.isfinite(values)][0]}")
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    # str() of a NumPy float is the shortest text that reads back to it; `.0` says nothing here.
    texts = [t.removesuffix(".0") for t in values.ravel().astype(str).tolist()]
    if at is not None:
        return [
            f"|{name} " + " ".join(f"{k}:{v}" for k, v in zip(rows.indices[a:b].tolist(), texts[a:b], strict=True))
            for a, b in zip(at[:-1].tolist(), at[1:].tolist(), strict=True)
        ]
    dim = rows.shape[1]
    parts = [texts[t * dim : (t + 1) * dim] for t in range(len(rows))]
    if sparse:
        return [f"|{name} " + " ".join(f"{k}:{v}" for k, v in enumerate(p) if v not in ("0", "-0")) for p in parts]
    return [f"|{name} " + " ".join(p) for p in parts]
