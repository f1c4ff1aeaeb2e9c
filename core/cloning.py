"""Copies of graphs, with parameters shared, copied or frozen and some variables replaced."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from enum import Enum

from cogkit.nodes import Block, Primitive, substitute
from cogkit.variables import BoundPlaceholder, Constant, Parameter, Placeholder, Variable
from cogkit.walks import nodes_of

__all__ = ["CloneMethod", "clone", "copy_node"]


class CloneMethod(Enum):
    """What `clone` does with parameters: share them, copy them, or freeze copies as constants."""

    share = "share"
    clone = "clone"
    freeze = "freeze"


def clone(
    root: Primitive,
    signature: Sequence[Variable] | None,
    method: CloneMethod,
    mapping: dict[Variable, Variable],
    known: dict[Variable, Variable],
) -> tuple[Primitive, list[Variable] | None]:
    """Copies a graph: its root and signature; `mapping` is of this level only, `known` pairs old leaves with new ones on all levels."""

    def leaf(v: Variable) -> Variable:
        if v in mapping:
            return mapping[v]
        if v in known:
            return known[v]
        new = v
        if isinstance(v, Parameter) and method is not CloneMethod.share:
            if v._data is None and hasattr(v._init, "pinned"):
                v._init = v._init.pinned()
            if method is CloneMethod.freeze:
                new = Constant(v.data, dtype=v.dtype, name=v.name)
            else:
                new = Parameter(v.shape, v._init if v._data is None else v.data, v.dtype, name=v.name)
        elif isinstance(v, Constant) and v.given is not None:
            new = Constant.of_number(v.given)
        elif isinstance(v, Constant) and method is not CloneMethod.share:
            new = Constant(v._init if v._data is None else v.data, v._shape, v.dtype, name=v.name)
            new.assigned = v.assigned
        elif v.is_placeholder:
            new = type(v)(v._shape, v._dtype, True, v.is_sparse, v._axes, v.name)
        known[v] = new
        return new

    made: dict[Variable, Variable] = {}
    nodes = nodes_of(root, without=mapping)
    mine = {id(node) for node in nodes}
    later: dict[Variable, Variable] = {}  # what a cycle reads before it is made: old value -> what stands for it meanwhile

    def operand(v: Variable) -> Variable:
        if v in mapping:
            return mapping[v]
        if v in made:
            return made[v]
        if v.is_output and id(v.node) in mine:
            return later.setdefault(v, Placeholder(name=v.name))
        return leaf(v)

    copies = []
    for node in nodes:
        operands = [operand(v) for v in node.operands]
        copy = copy_node(node, operands, method, known)
        copy.custom = deepcopy(node.custom)
        copies.append(copy)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            if old.node is node:
                made[old] = new
    if later:
        substitute(copies, {id(p): made[v] for v, p in later.items()})
    if signature:
        copied = [mapping.get(v, known.get(v, v)) for v in signature]
        return copies[-1], [v for v in copied if v.is_placeholder or v.is_input]
    return copies[-1], None


def copy_node(node: Primitive, operands: Sequence[Variable], method: CloneMethod, known: dict[Variable, Variable]) -> Primitive:
    """One node over other operands, a block with its inner graph."""
    return _block(node, operands, method, known) if isinstance(node, Block) else node.over(operands)


def _block(node: Block, operands: Sequence[Variable], method: CloneMethod, known: dict[Variable, Variable]) -> Block:
    """A block over other operands, its inner graph copied too."""
    inner = [BoundPlaceholder.like(p) for p in node.inner]
    graph = node.composite
    copied = clone(graph.root, graph._signature, method, dict(zip(node.inner, inner, strict=True)), known)
    composite = type(graph)(*copied)
    return Block(node.label, composite, list(zip(inner, operands, strict=True)), node.name, dict(node.attributes), node.where)
