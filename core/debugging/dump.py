"""What nodes give and what gradients reach them, and a graph as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cogkit.engine.executable import Executable
from cogkit.engine.session import feed_map
from cogkit.errors import here
from cogkit.functions import Function
from cogkit.nodes import Block, Combined, Primitive
from cogkit.op import row_space
from cogkit.variables import Variable
from cogkit.walks import leaves_of, nodes_of

__all__ = ["Dumped", "dump", "dump_function", "dump_signature"]


class Dumped(NamedTuple):
    """One output of a node. path: the names of the blocks around it; where: the user's line; gradient: None where none was asked for.

    value, gradient: arrays, lists of arrays over sequences.
    """

    label: str
    name: str
    path: str
    where: str
    variable: Variable
    value: Any
    gradient: Any

    def __str__(self) -> str:
        line = f"{self.path + '/' if self.path else ''}{self.label}" + (f" '{self.name}'" if self.name else "")
        line += f" ({self.where})" if self.where else ""
        line += f" {row_space(self.variable.type.axes)}{self.variable.shape}: {_summary(self.value)}"
        return line if self.gradient is None else f"{line}; gradient: {_summary(self.gradient)}"


def _summary(values: Any) -> str:
    a = np.concatenate([np.ravel(s) for s in values]) if isinstance(values, list) and values else np.ravel(values)
    if not a.size:
        return "nothing"
    bad = int(a.size - np.isfinite(a).sum())
    with np.errstate(all="ignore"):
        text = f"min {a.min():.4g}, mean {a.mean():.4g}, max {a.max():.4g}, norm {np.linalg.norm(a.astype(np.float64)):.4g}"
    return text + (f", {bad} of {a.size} not finite" if bad else "")


def _nodes(root: Primitive, path: tuple[str, ...] = ()) -> Iterator[tuple[Primitive, tuple[str, ...]]]:
    """All nodes, producers first, those inside a block before it, with the blocks around them."""
    for node in nodes_of(root):
        if isinstance(node, Block):
            yield from _nodes(node.composite.root, (*path, node.name or node.label))
        if not isinstance(node, Combined) and all(_made(v) for v in node.outputs):
            yield node, path


def _made(v: Variable) -> bool:
    """Whether a node computes it: a block may also hand a placeholder on."""
    while v.is_output and isinstance(v.node, Block):
        v = v.node.composite.outputs[v.index]
    return v.is_output


def dump(function: Function, arguments: Any, nodes: Sequence[Any] | None = None, gradients: bool = True) -> list[Dumped]:
    """The values of nodes for some data, in training mode, and with `gradients` those of the sum of all outputs with respect to them.

    nodes: names, functions or variables (default: every node, those inside blocks too). Equal nodes of equal operands are one: each shows
    what reaches both. Nothing is written: statistics and assignments
    stay as they are. Raises `ValueError` for a node that the function does not have.
    """
    everything = [(v, n, path) for n, path in _nodes(function.root) for v in n.outputs]
    if nodes is not None:
        wanted: set[int] = set()
        for item in nodes:
            found = [v for v, n, _ in everything if _is(item, v, n)]
            if not found:
                raise ValueError(here(f"dump: expected nodes of the function or their names, got {item!r}"))
            wanted.update(map(id, found))
        everything = [e for e in everything if id(e[0]) in wanted]
    variables = [v for v, _, _ in everything]
    roots = {v: None for v in function.outputs if v.needs_gradient} if gradients else {}
    wrt = [v for v in leaves_of(function.root) if v.is_parameter or v.needs_gradient and v.is_input][:1] if roots else []
    executable = Executable(list(function.outputs), roots=roots, wrt=wrt, training=True, effects=False, inside=variables)
    results = executable.run(feed_map(function, arguments))[len(function.outputs) :]
    values, rest = results[: len(variables)], results[len(variables) + len(wrt) :]
    slopes = rest if wrt else [None] * len(variables)
    return [
        Dumped(n.label, n.name or v.name, "/".join(path), n.where, v, value, slope)
        for (v, n, path), value, slope in zip(everything, values, slopes, strict=True)
    ]


def _is(item: Any, v: Variable, node: Primitive) -> bool:
    if isinstance(item, str):
        return item in (v.name, node.name)
    return item.root is node if isinstance(item, Function) else item is v


# a graph as text -------------------------------------------------------------------------------------------------------------------


def dump_signature(root: Function, tag: str | None = None) -> None:
    """Prints a function as one line; tag: put before it."""
    print((f"{tag}: " if tag else "") + str(root))


def dump_function(root: Function, tag: str | None = None) -> None:
    """Prints every node of a graph with its operands and types, those inside blocks before the block; letters name what has no name."""
    dump_signature(root, tag)
    letters: dict[int, str] = {}

    def name(v: Variable) -> str:
        return v.name or letters.setdefault(id(v), _letters(len(letters)))

    def typed(v: Variable) -> str:
        return f"{name(v)}: {row_space(v.type.axes)}{v.shape}"

    for v in leaves_of(root.root):
        print(f"  {v.kind:20} {typed(v)}")
    for node, path in _nodes(root.root):
        inputs, outputs = (", ".join(map(typed, vs)) for vs in (node.operands, node.outputs))
        print(f"  {'/'.join((*path, node.label)):20} ({inputs}) -> ({outputs})")


def _letters(n: int) -> str:
    return (_letters(n // 26 - 1) if n >= 26 else "") + chr(ord("a") + n % 26)
