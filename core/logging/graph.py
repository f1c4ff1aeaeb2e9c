"""Walking a graph, finding nodes in it, and drawing it as text or as a picture."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from cogkit.functions import Function, Node
from cogkit.nodes import Block
from cogkit.op import FREE, INFERRED, row_space
from cogkit.variables import Variable
from cogkit.walks import nodes_of

__all__ = ["depth_first_search", "find_all_with_name", "find_by_name", "find_by_uid", "get_node_outputs", "plot"]

PICTURES = (".svg", ".png", ".pdf")


def depth_first_search(root: Any, visitor: Callable[[Any], Any], depth: int = 0) -> list[Any]:
    """The nodes and leaf variables under `root`, it first, for which `visitor(x)` is true.

    depth: how many blocks to look into on the way to a node, -1 for all; as in CNTK one that was entered counts for what lies before it
    too. Each is visited once; a block's own node comes before its inside, and the placeholders in there are passed over.
    """
    found, seen = [], set()
    stack: list[tuple[Any, int]] = [(_node(root), depth)]
    while stack:
        item, level = stack.pop()
        key = id(item.root) if isinstance(item, Function) else id(item)
        if key in seen:
            continue
        seen.add(key)
        if visitor(item):
            found.append(item)
        if isinstance(item, Function):
            below = [(_node(v), level) for v in item.inputs]
            if level != 0 and isinstance(item.root, Block):
                inner = item.root.composite
                own = {id(p) for p in item.root.inner}
                seen |= own
                below = [(_node(v), level - 1) for v in (*inner.outputs, *item.root.operands) if id(v) not in own]
            stack.extend(reversed(below))
    return found


def _node(item: Any) -> Any:
    """The function that computes a value, or the leaf variable itself."""
    if isinstance(item, Function):
        return Node(item.root)
    return Node(item.node) if item.is_output else item


def find_all_with_name(node: Any, node_name: str, depth: int = 0) -> list[Any]:
    """All nodes and leaf variables of that name."""
    return depth_first_search(node, lambda x: x.name == node_name, depth)


def find_by_name(node: Any, node_name: str, depth: int = 0) -> Any:
    """The one node or leaf of that name, or None; ValueError when there are several."""
    if not isinstance(node_name, str):
        raise TypeError(f"find_by_name: expected a name as text, got {type(node_name).__name__}")
    found = find_all_with_name(node, node_name, depth)
    if len(found) > 1:
        raise ValueError(f"find_by_name: expected one node named {node_name!r}, got {len(found)}; use find_all_with_name")
    return found[0] if found else None


def find_by_uid(node: Any, node_uid: str, depth: int = 0) -> Any:
    """The node or leaf of that uid, or None."""
    found = depth_first_search(node, lambda x: x.uid == node_uid, depth)
    return found[0] if found else None


def get_node_outputs(node: Any, depth: int = 0) -> list[Variable]:
    """All values computed in the graph under `node`."""
    functions = depth_first_search(node, lambda x: isinstance(x, Function), depth)
    return [v for f in functions for v in f.root.outputs if v.node is f.root]


def _shape(v: Variable) -> str:
    t = v.type
    if t.shape is None:
        return "?"
    return row_space(t.axes) + "(" + ", ".join({INFERRED: "?", FREE: "*"}.get(n, str(n)) for n in t.shape) + ")"


def _name(v: Variable) -> str:
    return v.name or v.uid


def plot(root: Any, filename: str | os.PathLike | None = None) -> str:
    """The graph as text, one line a node, producers first; with `filename` also as a picture.

    filename: ends in .dot, .svg, .png or .pdf; the last three need the program `dot` of Graphviz.
    Raises ValueError for another ending, RuntimeError when `dot` is missing or fails.
    """
    function = root if isinstance(root, Function) else Node(root.node)
    nodes = nodes_of(function.root)
    lines = []
    for node in nodes:
        given = ", ".join(_name(v) for v in node.operands)
        made = ", ".join(f"{_name(v)} {_shape(v)}" for v in node.outputs)
        title = f"{node.label} '{node.name}'" if node.name else node.label
        lines.append(f"{title}({given}) -> {made}")
    if filename is not None:
        _draw(nodes, pathlib.Path(filename))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _dot(nodes: list[Any]) -> str:
    lines = ["digraph model {", '  node [fontname="sans-serif", fontsize=11];', '  edge [fontname="sans-serif", fontsize=9];']
    shapes = {"Input": "box, style=filled, fillcolor=lightblue", "Parameter": "box, style=filled, fillcolor=lightyellow"}
    known = set()
    for node in nodes:
        lines.append(f"  n{id(node)} [label={_quoted(node.name + chr(10) + node.label if node.name else node.label)}];")
        for v in node.operands:
            source = f"n{id(v.node)}" if v.is_output else f"v{id(v)}"
            if not v.is_output and id(v) not in known:
                known.add(id(v))
                look = shapes.get(v.kind, "box")
                lines.append(f"  {source} [label={_quoted(_name(v))}, shape={look}];")
            lines.append(f"  {source} -> n{id(node)} [label={_quoted(_shape(v))}];")
    return "\n".join([*lines, "}"]) + "\n"


def _draw(nodes: list[Any], path: pathlib.Path) -> None:
    kind = path.suffix.lower()
    if kind != ".dot" and kind not in PICTURES:
        raise ValueError(f"plot: expected a file name that ends in .dot, .svg, .png or .pdf, got {str(path)!r}")
    text = _dot(nodes)
    if kind == ".dot":
        path.write_text(text, encoding="utf-8")
        return
    dot = shutil.which("dot")
    if dot is None:
        raise RuntimeError(
            f"plot: expected the program 'dot' for a {kind} picture, found none; install Graphviz or write a .dot file"
        )
    run = subprocess.run([dot, f"-T{kind[1:]}", "-o", str(path)], input=text.encode(), capture_output=True, check=False)
    if run.returncode:
        raise RuntimeError(f"plot: expected 'dot' to draw {path}, it said: {run.stderr.decode(errors='replace').strip()}")
