"""Arrays of the host whose newest values are elsewhere, on a device: whoever reads one in Python brings it up to date first.

An engine of a device keeps copies of parameters, constants and gradients there and puts a record of each here, by the array's identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["bring", "elsewhere", "replacing", "restoring"]

_replaced, _restored = [0], [0]
elsewhere: dict[int, Any] = {}  # id of the host's array -> what has `bring(write)`


def bring(array: Any, write: bool = False) -> Any:
    """The same array, its values up to date; write: the caller may change them."""
    if elsewhere:
        found = elsewhere.get(id(array))
        if found is not None:
            if (write and _replaced[0]) or (_restored[0] and found.lost):
                found.forget()
            else:
                found.bring(write)
    return array


@contextmanager
def replacing() -> Iterator[None]:
    """Inside the `with` block whoever is about to write an array writes all of it: what a device has of it is not brought, as that may be lost."""
    _replaced[0] += 1
    try:
        yield
    finally:
        _replaced[0] -= 1


@contextmanager
def restoring() -> Iterator[None]:
    """Inside the `with` block all that a lost device had is given up: it is about to be read from a file."""
    _restored[0] += 1
    try:
        yield
    finally:
        _restored[0] -= 1
