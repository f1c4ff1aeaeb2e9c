"""What a function is: its names, outputs, leaves and settings, the nodes and variables in it. Nothing here changes what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cogkit import variables
from cogkit.attributes import cntk_attributes
from cogkit.errors import sentence
from cogkit.nodes import Block, Combined
from cogkit.variables import Constant, Parameter, Variable, kind_of, standing_for
from cogkit.walks import inner_leaves, leaves_of, nodes_of

if TYPE_CHECKING:
    from cogkit.functions import Function

__all__ = ["Inspected"]


class Inspected:
    """The part of a function that tells of it."""

    root: Any  # the last node
    _signature: Sequence[Variable] | None

    @property
    def root_function(self) -> Function:
        """The last node as a function of its own operands."""
        return variables.function_of(self.root)

    @property
    def name(self) -> str:
        """The name given by the user, or ''."""
        return self.root.name

    @name.setter
    def name(self, value: str) -> None:
        if self.root.name and self.root.name != value and not variables.renaming:
            raise ValueError(
                self._says("a function without a name", f"a new name {value!r}", "names are given once; use C.alias(x, name)")
            )
        self.root.name = value
        for v in self.root.outputs:
            if v.node is self.root:
                v._name = value

    op_name = property(lambda self: self.root.label, doc="CNTK's name of the last node's op.")
    uid = property(lambda self: "Composite" + self.root.uid, doc="A name that is unique in this process.")
    is_primitive = property(lambda self: False, doc="Whether this is one node.")
    is_composite = property(lambda self: True, doc="Whether this is a graph seen as one function.")
    is_block = property(lambda self: False, doc="Whether this is a node with a graph of its own.")

    @property
    def attributes(self) -> dict[str, Any]:
        """The last node's settings, under CNTK's names."""
        return cntk_attributes(self.root)

    @property
    def custom_attributes(self) -> dict[str, Any]:
        """What a user writes down about the last node (numbers, texts, lists, dicts): kept by copies and in model files."""
        return self.root.custom

    @custom_attributes.setter
    def custom_attributes(self, values: dict[str, Any]) -> None:
        self.root.custom = dict(values)

    @property
    def outputs(self) -> tuple[Variable, ...]:
        """The values it computes."""
        return tuple(self.root.outputs)

    @property
    def output(self) -> Variable:
        """The one value it computes; `ValueError` when there are several."""
        if len(self.root.outputs) != 1:
            raise ValueError(
                self._says(
                    "a function with one output",
                    f"{len(self.root.outputs)} outputs",
                    "name one of .outputs",
                )
            )
        return self.root.outputs[0]

    @property
    def block_root(self) -> Function:
        """The last node of a block's inner graph; `ValueError` for a function that is no block."""
        return variables.function_of(self._block().composite.root)

    @property
    def block_composite(self) -> Function:
        """A block's inner graph; `ValueError` for a function that is no block."""
        return self._block().composite

    @property
    def block_arguments_mapping(self) -> tuple[tuple[Variable, Variable], ...]:
        """Pairs (placeholder of a block's inner graph, operand it stands for); `ValueError` for a function that is no block."""
        block = self._block()
        return tuple(zip(block.inner, block.operands, strict=True))

    def _block(self) -> Block:
        if not self.is_block:
            fact = "a primitive" if self.is_primitive else "a composite"
            raise ValueError(self._says("a block", fact, "root_function is the block that a layer ends in" * self.is_composite))
        return self.root

    def _says(self, wish: str, fact: str, way: str = "") -> str:
        """A sentence about the last node, for an error."""
        return sentence(self.op_name, self.name, self.root.where, wish, fact, way)

    def _leaves(self, right_first: bool = False) -> list[Variable]:
        return leaves_of(self.root, right_first)

    @property
    def inputs(self) -> tuple[Variable, ...]:
        """Everything it needs from outside: arguments, parameters and constants."""
        return tuple(self._leaves())

    @property
    def arguments(self) -> tuple[Variable, ...]:
        """The variables to be fed or replaced: inputs and placeholders; of a node also the outputs of others that it reads."""
        found = [v for v in self._leaves() if not (v.is_parameter or v.is_constant)]
        if self._signature:
            needed, own = {id(v) for v in found}, {id(v) for v in self._signature}
            found = [v for v in self._signature if id(v) in needed] + [v for v in found if id(v) not in own]
        return tuple(found)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What learners change."""
        return tuple(v for v in self._leaves(True) if v.is_parameter)

    @property
    def constants(self) -> tuple[Constant, ...]:
        """Fixed values."""
        return tuple(v for v in self._leaves(True) if v.is_constant)

    @property
    def placeholders(self) -> tuple[Variable, ...]:
        """What stands for variables given later."""
        return tuple(v for v in self._leaves() if v.is_placeholder)

    @property
    def signature(self) -> tuple[Variable, ...]:
        """The arguments in the order of a call."""
        return self.arguments

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__") or key in ("root", "_signature"):
            raise AttributeError(key)
        outputs = self.root.outputs
        if len(outputs) == 1 and key in (
            "shape",
            "dtype",
            "dynamic_axes",
            "needs_gradient",
            "is_sparse",
            "type",
            "owner",
            "is_output",
            "is_parameter",
            "is_constant",
            "is_input",
            "is_placeholder",
        ):
            return getattr(outputs[0], key)
        if len(outputs) > 1:
            for v in outputs:
                if v.name == key:
                    return v
        named = [v for v in self._leaves() if v.name == key]
        if named:
            if len(named) > 1:
                raise ValueError(
                    self._says(
                        f"one variable named {key!r}",
                        str(len(named)),
                        "use find_all_with_name",
                    )
                )
            return named[0]
        inner = self.find_by_name(key, depth=1)
        if inner is not None:
            return inner
        raise AttributeError(f"Function '{self.name or self.op_name}' has no attribute, parameter or node named {key!r}")

    def __repr__(self) -> str:
        arguments = ", ".join(map(repr, self.arguments))
        outputs = ", ".join(repr(v) for v in self.root.outputs)
        return f"{f'Composite({self.op_name})' if self.is_composite else self.op_name}: {arguments} -> {outputs}"

    def __str__(self) -> str:
        """`name: Op(arguments) -> type`, as CNTK writes it."""
        read = [(standing_for(v).name, kind_of(v)) for v in self.arguments]
        given = ", ".join(f"{name}: {kind}" if name else kind for name, kind in read)
        made = [kind_of(v) for v in self.root.outputs]
        name = f"{self.name}: " if self.name else ""
        return f"{name}{self._title()}({given}) -> {made[0] if len(made) == 1 else 'Tuple[' + ', '.join(made) + ']'}"

    def _title(self) -> str:
        return "Composite" if isinstance(self.root, Combined) else self.op_name

    # what is in it -------------------------------------------------------------------------------------------------

    def find_all_with_name(self, name: str, depth: int = 0) -> list[Any]:
        """All nodes and variables of that name; depth: how many levels of blocks to enter, -1 for all."""
        found: dict[int, Any] = {}
        self._find(name, depth, found)
        return list(found.values())

    def _find(self, name: str, depth: int, found: dict[int, Any]) -> None:
        for node in reversed(nodes_of(self.root)):
            if node.name == name:
                found.setdefault(id(node), variables.function_of(node))
            inside = inner_leaves(node) if isinstance(node, Block) else ()
            for v in (*node.operands, *inside, *node.outputs):
                if v.name == name and not (v.is_output and v.node.name == name):
                    found.setdefault(id(v), v)
            if depth != 0 and isinstance(node, Block):
                node.composite._find(name, depth - 1, found)

    def find_by_name(self, name: str, depth: int = 0) -> Any:
        """The one node or variable of that name, or None; `ValueError` when there are several."""
        found = self.find_all_with_name(name, depth)
        if len(found) > 1:
            raise ValueError(
                self._says(
                    f"one node named {name!r}",
                    f"{len(found)}",
                    "use find_all_with_name",
                )
            )
        return found[0] if found else None
