"""A function as a file: its parameters as tensors, its graph as JSON over the closed list of ops; and back.

The JSON is `{"leaves": [...], "nodes": [...], "root": n, "signature": [...]}`. Leaves are inputs, parameters, constants and
placeholders; nodes stand producers first, those inside a block before the block. An operand is a leaf's number, or
[node, output] of an earlier node; in a cycle of a later one. Attributes are numbers, texts, lists and a few marked forms, see `_pack`.
"""

from __future__ import annotations

import enum
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cogkit.axis import Axis
from cogkit.collector import paused_collector
from cogkit.csr import csr_of
from cogkit.errors import ModelFileError
from cogkit.functions import Function
from cogkit.nodes import Block, Combined, Primitive, refresh, substitute
from cogkit.op import OPS, Type
from cogkit.ops.user import USER_OPS, UserNode, read_user
from cogkit.store.tensors import NAMES, read_json, read_tensors, write_tensors
from cogkit.variables import BoundPlaceholder, Constant, Input, Parameter, Placeholder, Variable
from cogkit.walks import leaves_of, nodes_of

__all__ = ["ModelFormat", "graph_from_json", "graph_to_json", "load_model", "restore", "save"]

VERSION = 1  # of the graph's JSON; a reader knows all versions up to its own
KINDS = {"input": Input, "parameter": Parameter, "constant": Constant, "placeholder": Placeholder, "bound": BoundPlaceholder}
NOT_STORED = {
    "fill",
    "user_forward",
    "user_backward",
    "native_forward",
    "native_backward",
}  # ops that exist in lowered graphs only


class ModelFormat(enum.Enum):
    """How a model file is written. CNTKv2 stands for cogkit's own format, so that scripts need no change."""

    CNTKv2 = "cogkit"
    ONNX = "onnx"


# attributes ----------------------------------------------------------------------------------------------------------


def _pack(value: Any, tensors: dict[str, np.ndarray], place: str) -> Any:
    """An attribute as JSON; what JSON has no form for becomes {"mark": ...}."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Axis):
        return {"axis": _axis_to_json(value)}
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return {"dtype": np.dtype(value).name}
    if isinstance(value, Type):
        return {"type": [_pack(v, tensors, place) for v in value]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(v, tensors, place) for v in value]}
    if isinstance(value, list):
        return [_pack(v, tensors, place) for v in value]
    if isinstance(value, np.ndarray) and value.dtype in NAMES:
        name = f"attribute.{len(tensors)}"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: _pack(v, tensors, place) for k, v in value.items()}}
    raise ModelFileError(
        f"{place}: expected attributes of numbers, texts, axes and lists, got a {type(value).__name__}; it cannot be stored"
    )


def _unpack(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    ((mark, content),) = value.items()
    if mark == "float":
        return float(content)
    if mark == "tuple":
        return tuple(_unpack(v, tensors) for v in content)
    if mark == "type":
        shape, dtype, axes = (_unpack(v, tensors) for v in content)
        return Type(shape, dtype, axes)
    if mark == "axis":
        return _axis_from_json(content)
    if mark == "dtype":
        return {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}[content]
    if mark == "tensor":
        return tensors[content]
    if mark == "dict":
        return {k: _unpack(v, tensors) for k, v in content.items()}
    raise ValueError(f"unknown mark {mark!r}")


def _axis_to_json(axis: Axis) -> list[Any]:
    return [axis._index, axis.name, bool(axis.is_ordered)]


def _axis_from_json(value: Any) -> Axis:
    index, name, ordered = value
    if type(index) is not int or not isinstance(name, str):
        raise ValueError("an axis that is none")
    return Axis(index, name, bool(ordered))


# writing -------------------------------------------------------------------------------------------------------------


class _Writer:
    def __init__(self) -> None:
        self.leaves: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.values: dict[str, Any] = {}  # tensor name -> parameter or constant
        self.leaf_index: dict[int, int] = {}
        self.node_index: dict[int, int] = {}
        self.later: dict[int, list[Any]] = {}

    def settle(self) -> None:
        """Fills in the numbers of nodes that were referred to before they were written."""
        for reference in self.later.values():
            if len(reference) == 3:
                reference[:] = [self.node_index[id(reference[2])], reference[1]]

    def operand(self, v: Variable) -> Any:
        if v.is_output:
            at = self.node_index.get(id(v.node))
            if at is None:  # a cycle: the node is still to come
                return self.later.setdefault(id(v), [-1, v.index, v.node])
            return [at, v.index]
        if id(v) not in self.leaf_index:
            self.leaf_index[id(v)] = len(self.leaves)
            self.leaves.append(self.leaf(v))
        return self.leaf_index[id(v)]

    def leaf(self, v: Variable) -> dict[str, Any]:
        kind = next(name for name, cls in reversed(KINDS.items()) if isinstance(v, cls))
        made: dict[str, Any] = {"kind": kind, "name": v.name}
        if kind in ("parameter", "constant"):
            if any(n < 0 for n in v._shape or ()):
                raise ModelFileError(
                    f"{v!r}: expected a known shape, got {v.shape}; apply the model to an input before saving it"
                )
            made["tensor"] = f"{v.name or kind}.{len(self.leaves)}"
            if kind == "constant" and v.version:
                made["live"] = True  # written since it was made: a clone copies it
            if kind == "constant" and v.assigned:
                made["assigned"] = True  # an op writes it: never a number of the graph's text
            if v.is_sparse:
                made["sparse"] = True
            self.tensors[made["tensor"]] = _array(v)
            self.values[made["tensor"]] = v
            return made
        made["shape"] = None if v._shape is None else list(v._shape)
        made["dtype"] = None if v._dtype is None else v._dtype.name
        made["axes"] = None if v._axes is None else [_axis_to_json(a) for a in v._axes]
        made["sparse"] = bool(v.is_sparse)
        if kind != "bound":
            made["gradient"] = bool(v.needs_gradient)
        return made

    def graph(self, root: Primitive) -> int:
        for node in nodes_of(root):
            if id(node) in self.node_index:
                continue
            made: dict[str, Any] = {"op": node.op.name, "name": node.name}
            if isinstance(node, Block):
                made["label"] = node.label
                made["root"] = self.graph(node.composite.root)
                made["inner"] = [self.operand(p) for p in node.inner]
            elif isinstance(node, UserNode):
                stored = node.stored()
                made.update(user=stored["user"], state=_pack(stored["state"], self.tensors, f"{node.label} '{node.name}'"))
            elif node.op.name not in OPS or OPS[node.op.name] is not node.op or node.op.name in NOT_STORED:
                raise ModelFileError(
                    f"{node.label} '{node.name}': expected an op of cogkit's own, got {node.op.name!r}; it cannot be stored"
                )
            made["in"] = [self.operand(v) for v in node.operands]
            if not isinstance(node, Combined):
                made["outputs"] = len(node.outputs)
            attributes = {k: _pack(v, self.tensors, f"{node.label} '{node.name}'") for k, v in node.attributes.items()}
            if attributes:
                made["attributes"] = attributes
            if node.custom:
                made["custom"] = _pack(node.custom, self.tensors, f"{node.label} '{node.name}'")
            self.node_index[id(node)] = len(self.nodes)
            self.nodes.append(made)
        return self.node_index[id(root)]


def graph_to_json(function: Function) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(graph as plain data, tensors by name). Raises ModelFileError for what has no stored form."""
    graph, tensors, _ = _write(function)
    return graph, tensors


@paused_collector()
def _write(function: Function) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    writer = _Writer()
    root = writer.graph(function.root)
    writer.settle()
    signature = [writer.operand(v) for v in function._signature or () if not v.is_output]
    graph = {"leaves": writer.leaves, "nodes": writer.nodes, "root": root, "signature": signature}
    return graph, writer.tensors, writer.values


def _array(v: Any) -> np.ndarray:
    """The array that stands for a parameter or constant in a file."""
    return v.value.toarray().reshape(v.shape) if v.is_sparse else v.settled


def values_of(function: Function) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
    """(parameters and constants by the name of their tensor, all tensors, metadata of the file) of a function.

    The graph is in the metadata where it has a stored form; where it has none (user functions) the values are named all the same.
    """
    try:
        graph, tensors, values = _write(function)
    except ModelFileError:
        leaves = [v for v in leaves_of(function.root) if v.is_parameter or v.is_constant]
        values = {f"{v.name or v.kind.lower()}.{i}": v for i, v in enumerate(leaves)}
        return values, {name: _array(v) for name, v in values.items()}, {"format": "cogkit values", "version": str(VERSION)}
    text = json.dumps(graph, separators=(",", ":"), allow_nan=False)
    return values, tensors, {"format": "cogkit model", "version": str(VERSION), "graph": text}


def match_values(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray], place: str) -> list[tuple[Any, np.ndarray]]:
    """Pairs (parameter or constant, stored array); ModelFileError that names the first difference."""
    stored = [name for name in arrays if not name.startswith("attribute.")]
    pairs = []
    for name, v in values.items():
        array = arrays.get(name)
        if array is None:
            other = next((n for n in stored if n not in values), "nothing")
            raise ModelFileError(f"{place}: expected a tensor '{name}' for {v!r}, got '{other}'; the file is of another model")
        if array.shape != v.shape or array.dtype != v.dtype:
            found = f"{array.dtype.name} {array.shape}"
            wish = f"{np.dtype(v.dtype).name} {v.shape}"
            raise ModelFileError(f"{place}: expected {wish} for {v!r}, got {found}; the file is of another model")
        if not v.is_sparse:  # such a constant never changes
            pairs.append((v, array))
    if len(stored) != len(values):
        extra = next(n for n in stored if n not in values)
        raise ModelFileError(f"{place}: expected {len(values)} tensors, got '{extra}' too; the file is of another model")
    return pairs


def save(
    function: Function,
    filename: str | os.PathLike,
    format: ModelFormat = ModelFormat.CNTKv2,
    use_external_files_to_store_parameters: bool = False,
) -> None:
    """Writes a function with its parameters as one safetensors file, aside and renamed.

    Raises ModelFileError for a graph that cannot be stored (unknown shapes, user functions), OSError from the disk; an older file
    then stays as it was.
    """
    if format is not None and ModelFormat(format) is ModelFormat.ONNX:
        raise ModelFileError(f"save {filename}: expected cogkit's own format, got ONNX; leave `format` out")
    if use_external_files_to_store_parameters:
        raise ModelFileError(f"save {filename}: a model is one file; leave use_external_files_to_store_parameters out")
    graph, tensors = graph_to_json(function)
    text = json.dumps(graph, separators=(",", ":"), allow_nan=False)
    write_tensors(filename, tensors, {"format": "cogkit model", "version": str(VERSION), "graph": text})


# reading -------------------------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, graph: Any, tensors: dict[str, np.ndarray]):
        self.tensors = tensors
        self.leaves = [self.leaf(entry) for entry in graph["leaves"]]
        self.nodes: list[Primitive] = []
        self.claimed: set[int] = set()  # placeholders that stand in a block
        self.count = len(graph["nodes"])
        self.later: dict[tuple[int, int], Placeholder] = {}  # what stands for outputs of nodes that are still to come
        for entry in graph["nodes"]:
            node = self.node(entry)
            if "custom" in entry:
                node.custom = dict(_unpack(entry["custom"], tensors))
            self.nodes.append(node)
        if self.later:
            substitute(
                self.nodes, {id(p): self.nodes[n].outputs[_index(i, self.nodes[n].outputs)] for (n, i), p in self.later.items()}
            )
        self.function = Function(
            self.nodes[_index(graph["root"], self.nodes)], [self.operand(v) for v in graph["signature"]] or None
        )

    def leaf(self, entry: dict[str, Any]) -> Variable:
        kind, name = entry["kind"], _text(entry["name"])
        if kind in ("parameter", "constant"):
            data = self.tensors[entry["tensor"]]
            if kind == "parameter":
                return Parameter(data.shape, data, data.dtype, name=name)
            value = csr_of(data) if entry.get("sparse") else data
            made = Constant(value, data.shape, data.dtype, name=name)
            made.version = int(bool(entry.get("live", False)))
            made.assigned = bool(entry.get("assigned", False))
            return made
        shape = None if entry["shape"] is None else tuple(int(n) for n in entry["shape"])
        axes = None if entry["axes"] is None else tuple(_axis_from_json(a) for a in entry["axes"])
        gradient = True if kind == "bound" else bool(entry["gradient"])
        return KINDS[kind](shape, entry["dtype"], gradient, bool(entry["sparse"]), axes, name)

    def operand(self, reference: Any) -> Variable:
        if type(reference) is int:
            return self.leaves[_index(reference, self.leaves)]
        node, output = reference
        if type(node) is int and len(self.nodes) <= node < self.count and type(output) is int:
            return self.later.setdefault((node, output), Placeholder())
        outputs = self.nodes[_index(node, self.nodes)].outputs
        return outputs[_index(output, outputs)]

    def node(self, entry: dict[str, Any]) -> Primitive:
        op, name, operands = entry["op"], _text(entry["name"]), [self.operand(v) for v in entry["in"]]
        attributes = {k: _unpack(v, self.tensors) for k, v in entry.get("attributes", {}).items()}
        if op == "block":
            inner = [self.operand(v) for v in entry["inner"]]
            for p in inner:
                if not isinstance(p, BoundPlaceholder) or id(p) in self.claimed:
                    raise ValueError("a block over placeholders that are not its own")
                self.claimed.add(id(p))
            composite = Function(self.nodes[_index(entry["root"], self.nodes)], inner)
            return Block(_text(entry["label"]), composite, list(zip(inner, operands, strict=True)), name, attributes)
        if op == "combine":
            return Combined(operands, name)
        if op in USER_OPS:
            state = _unpack(entry["state"], self.tensors)
            return read_user(op, _text(entry["user"]), operands, name, attributes, state)
        if op not in OPS or op in NOT_STORED:
            raise ModelFileError(
                f"expected ops that cogkit knows, got {str(op)[:60]!r}; the file is from a newer cogkit or forged"
            )
        outputs = entry["outputs"]
        if type(outputs) is not int or not 0 < outputs <= 64:
            raise ValueError(f"{outputs} outputs")
        return Primitive(OPS[op], operands, attributes, name, outputs)


def _index(number: Any, items: Any) -> int:
    if type(number) is not int or not 0 <= number < len(items):
        raise ValueError(f"a reference to {str(number)[:40]}, where {len(items)} stand before it")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a name that is a {type(value).__name__}")
    return value


@paused_collector()
def graph_from_json(graph: Any, tensors: dict[str, np.ndarray], place: str) -> Function:
    """The function that `graph_to_json` wrote; ModelFileError for any other content."""
    try:
        function = _Reader(graph, tensors).function
        refresh(function)
        return function
    except ModelFileError as error:
        raise ModelFileError(f"{place}: {error}") from None
    except RecursionError:
        raise ModelFileError(
            f"{place}: expected a delay in every cycle, got a value that depends on itself; it is damaged"
        ) from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, ArithmeticError) as error:
        # whatever a forged graph trips over while ops infer their types
        raise ModelFileError(
            f"{place}: expected a graph of cogkit, got {type(error).__name__}: {str(error)[:200]}; it is damaged"
        ) from None


def read_arrays(source: str | os.PathLike | bytes, formats: Sequence[str]) -> tuple[dict[str, str], dict[str, np.ndarray], str]:
    """(metadata, arrays, place for messages) of a file of one of these formats and a version that is known."""
    place = "model in memory" if isinstance(source, (bytes, bytearray, memoryview)) else str(source)
    metadata, arrays = read_tensors(source)
    if metadata.get("format") not in formats:
        found = metadata.get("format", "tensors without a graph")
        raise ModelFileError(f"{place}: expected a {formats[0]}, got {found[:60]!r}; write it with Function.save")
    version = metadata.get("version", "")
    if version not in {str(n) for n in range(1, VERSION + 1)}:
        raise ModelFileError(
            f"{place}: expected a model of version 1 to {VERSION}, got version {version[:20]!r}; "
            "read it with the cogkit that wrote it, or a newer one"
        )
    return metadata, arrays, place


def load_model(model: str | os.PathLike | bytes, device: Any = None, format: ModelFormat = ModelFormat.CNTKv2) -> Function:
    """Reads a function that `save` wrote: a path, or the bytes of a file.

    Raises FileNotFoundError for no file, ModelFileError for one that is cut, forged, or of an unknown version.
    """
    if format is not None and ModelFormat(format) is ModelFormat.ONNX:
        raise ModelFileError("load_model: expected cogkit's own format, got ONNX; leave `format` out")
    metadata, arrays, place = read_arrays(model, ["cogkit model"])
    return graph_from_json(read_json(metadata.get("graph", ""), place), arrays, place)


def restore(function: Function, filename: str | os.PathLike) -> None:
    """Takes the values of parameters and constants from a file that `save` wrote for the same graph.

    Raises ModelFileError that names the first difference; nothing is changed then.
    """
    _, arrays, place = read_arrays(filename, ["cogkit model"])
    for v, array in match_values(values_of(function)[0], arrays, place):
        v.value = array
