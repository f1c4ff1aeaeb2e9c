"""Walks over a graph: its nodes, its leaves, its cycles. None recurses into operands: chains may be long."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any

from cogkit.components import components
from cogkit.variables import Variable, standing_for

if TYPE_CHECKING:
    from cogkit.inference import Typed
    from cogkit.nodes import Block, Primitive

__all__ = ["cyclic", "inner_leaves", "leaves_of", "nodes_of", "producers"]


def nodes_of(*roots: Typed, without: Container[Variable] = ()) -> list[Primitive]:
    """All primitives that the roots need, producers first; blocks are not entered, nor what makes the variables `without`."""
    order: list[Primitive] = []
    done: set[int] = set()
    stack: list[tuple[Any, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        node, leaving = stack.pop()
        if leaving:
            order.append(node)
            continue
        if id(node) in done:
            continue
        done.add(id(node))
        stack.append((node, True))
        for v in reversed(node.operands):
            if v.is_output and id(v.node) not in done and v not in without:
                stack.append((v.node, False))
    return order


def leaves_of(root: Typed, right_first: bool = False) -> list[Variable]:
    """Inputs, parameters, constants and placeholders that the root needs, depth first in the order of operands, as CNTK lists them.

    A block's own parameters come before its operands. right_first: a matrix product's right operand before its left one, as CNTK
    lists parameters and constants, but not inputs and arguments.
    """
    found: dict[int, Variable] = {}
    done: set[int] = set()
    stack: list[Any] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, Variable) and not item.is_output:
            found.setdefault(id(item), item)
            continue
        node = item.node if isinstance(item, Variable) else item
        if id(node) in done:
            continue
        done.add(id(node))
        if node.composite is not None:
            for v in inner_leaves(node, True):  # so inputs too, as CNTK lists them
                found.setdefault(id(v), v)
        operands = node.operands[::-1] if right_first and node.op.name in ("times", "times_transpose") else node.operands
        stack.extend(operands[::-1])
    return list(found.values())


def inner_leaves(block: Block, right_first: bool = False) -> list[Variable]:
    """The parameters, constants and inputs inside a block."""
    inner = {id(p) for p in block.inner}
    return [v for v in leaves_of(block.composite.root, right_first) if id(v) not in inner]


def producers(node: Typed) -> list[Primitive]:
    """The nodes that make what a node reads; of a block those that make its results, as what it reads is read in there."""
    found = []
    for v in node.operands if node.composite is None else node.composite.outputs:
        v = standing_for(v)
        if v.is_output:
            found.append(v.node)
    return found


def cyclic(nodes: Iterable[Primitive], own: Container[int] | None = None) -> set[Primitive]:
    """The nodes that depend on themselves, of all that the given ones need, through blocks too. own: ids of nodes, to look at no others."""

    def near(node: Primitive) -> list[Primitive]:
        return [n for n in producers(node) if id(n) in own]

    inputs = producers if own is None else near
    return {n for group in components(nodes, inputs) for n in group if len(group) > 1 or n in inputs(n)}
