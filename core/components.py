"""Strongly connected components: which nodes stand in a cycle together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

__all__ = ["components"]

K = TypeVar("K", bound=Hashable)


def components(keys: Iterable[K], inputs: Callable[[K], Iterable[K]]) -> list[list[K]]:
    """The components of everything that the keys need, producers first; members in the order in which they are met.

    Tarjan 1972, without recursion. Where there is no cycle this is the order of a depth-first walk, inputs from first to last.
    """
    out: list[list[K]] = []
    number: dict[K, int] = {}
    low: dict[K, int] = {}
    open_: list[K] = []
    inside: set[K] = set()
    for root in keys:
        if root in number:
            continue
        stack: list[tuple[K, Iterator[K]]] = []

        def enter(k: K, stack: list[tuple[K, Iterator[K]]] = stack) -> None:
            number[k] = low[k] = len(number)
            open_.append(k)
            inside.add(k)
            stack.append((k, iter(inputs(k))))

        enter(root)
        while stack:
            k, rest = stack[-1]
            for m in rest:
                if m not in number:
                    enter(m)
                    break
                if m in inside:
                    low[k] = min(low[k], number[m])
            else:
                stack.pop()
                if stack:
                    low[stack[-1][0]] = min(low[stack[-1][0]], low[k])
                if low[k] == number[k]:
                    at = open_.index(k) if open_[-1] != k else len(open_) - 1
                    found = open_[at:]
                    del open_[at:]
                    inside.difference_update(found)
                    out.append(found)
    return out
