"""Stepping through a model: `debug_model` puts a user function behind every node, which stops and asks what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from cogkit.cloning import CloneMethod, copy_node
from cogkit.errors import here
from cogkit.functions import Function, Node
from cogkit.nodes import Combined, Primitive, substitute
from cogkit.ops.graph import output_variable
from cogkit.ops.user import UserFunction
from cogkit.variables import Placeholder, Variable
from cogkit.walks import leaves_of, nodes_of

__all__ = ["DEBUG_USAGE", "debug_model"]

DEBUG_USAGE = """\
    Commands:
        n             run to the next node
        n <number>    run over that many nodes
        u f           run until the forward pass
        u b           run until the backward pass
        u <name>      run until the node of that name
        u <lambda>    run until lambda value, node: ... is true, e.g.
                          u lambda value, node: node.op_name == 'Times'
                          u lambda value, node: np.abs(value).max() > 100
        c             run to the end
        p             print the value, or in the backward pass its gradient
        d             start pdb
        q             quit
"""


class _Session:
    """What all debug nodes of a model share: where it speaks, which pass it is in, and until when it runs."""

    def __init__(self, in_stream: Any, out_stream: Any, exit_func: Callable[[int], Any], names: set[str]):
        self.input, self.output, self.exit, self.names = in_stream, out_stream, exit_func, names
        self.backward: bool | None = None
        self.left = 0  # nodes to run over
        self.until: Callable[[Any, Any, bool], bool] | None = None

    def say(self, text: str) -> None:
        """Writes and flushes."""
        self.output.write(text)
        self.output.flush()

    def arrive(self, node: Any, value: Any, backward: bool) -> None:
        """A pass has come to a node: says so, and stops there unless told to run on."""
        if self.backward is not backward:
            self.backward = backward
            self.say(("\n" if not backward else "") + "=" * 35 + (" backward " if backward else " forward  ") + "=" * 35 + "\n")
        self.say(f"\n{node} with uid '{node.uid}'\n")
        if self.until is not None:
            if not self.until(value, node, backward):
                return
            self.until = None
        elif self.left > 1:
            self.left -= 1
            return
        self.left = 0
        while not self.obey(node, value, backward):
            pass

    def obey(self, node: Any, value: Any, backward: bool) -> bool:
        """Reads and does one command; whether it says to go on."""
        self.say(_DebugNode.PROMPT_BACKWARD if backward else _DebugNode.PROMPT_FORWARD)
        line = self.input.readline()
        word = line.strip()
        if not line:  # the input has ended
            self.until = lambda value, node, backward: False
            return True
        command, _, rest = word.partition(" ")
        rest = rest.strip()
        if word == "n" or (command == "n" and rest.isdigit() and int(rest) > 0):
            self.left = int(rest or 1)
            return True
        if word == "c":
            self.until = lambda value, node, backward: False
            return True
        if word == "p":
            what = "gradient" if backward else "value"
            self.say(f"{what} {_shape(value)}:\n{value}\n")
        elif word == "d":
            import pdb

            pdb.set_trace()
        elif word == "q":
            self.exit(0)
        elif command == "u" and rest and self.wait_for(rest):
            return True
        elif word:
            self.say(DEBUG_USAGE)
        return False

    def wait_for(self, what: str) -> bool:
        """Runs until a pass, a name or a condition; whether there is such a thing."""
        if what.startswith("lambda"):
            try:
                condition = eval(what, {"np": np})  # typed by whoever steps through the model
            except SyntaxError as e:
                self.say(f"{e}\n")
                return False
            self.until = lambda value, node, backward: bool(condition(value, node))
        elif what in self.names:
            self.until = lambda value, node, backward: node.name == what
        elif what in ("f", "b"):
            self.until = lambda value, node, backward: backward is (what == "b")
        else:
            self.say(f"There is no node named {what!r}.\n")
            return False
        return True


def _shape(value: Any) -> Any:
    return [s.shape for s in value] if isinstance(value, list) else value.shape


class _DebugNode(UserFunction):
    """Hands a value on, and stops on the way."""

    PROMPT_FORWARD = "[cogkit forward] >>> "
    PROMPT_BACKWARD = "[cogkit backward] >>> "

    def __init__(self, arg: Variable, session: _Session, after: Any, name: str = ""):
        self.session, self.after = session, after
        super().__init__([arg], name=name or f"debug {arg.uid}")

    def clone(self, cloned_inputs: Any) -> _DebugNode:  # type: ignore[override]
        """The same behind another value."""
        return _DebugNode(cloned_inputs[0], self.session, self.after, self.name)

    def infer_outputs(self) -> list[Variable]:
        """As the input."""
        x = self.inputs[0]
        return [output_variable(x.shape, x.dtype, x.dynamic_axes)]

    def forward(self, argument: Any, device: Any = None, outputs_to_retain: Any = None) -> Any:
        """Stops with the value."""
        self.session.arrive(self.after, argument, False)
        return None, argument

    def backward(self, state: Any, root_gradients: Any) -> Any:
        """Stops with its gradient."""
        self.session.arrive(self.after, root_gradients, True)
        return root_gradients


def debug_model(
    model: Function, in_stream: Any = None, out_stream: Any = None, exit_func: Callable[[int], Any] = sys.exit
) -> Function:
    """A copy of a model, of the same parameters and inputs, that stops behind every node, parameter and input and takes commands.

    Blocks are one node. in_stream, out_stream: have `readline`, and `write` and `flush` (default: the terminal). Raises `ValueError` for a
    model in which user functions of debugging stand already.
    """
    nodes = nodes_of(model.root)
    if any(isinstance(getattr(n, "function", None), _DebugNode) for n in nodes):
        raise ValueError(
            here("debug_model: expected a model without debug nodes, got one that has some; use the model it was made of")
        )
    leaves = [v for v in leaves_of(model.root) if v.is_parameter or v.is_input or v.is_constant and v.name]
    names = {n.name for n in nodes if n.name} | {v.name for v in leaves if v.name}
    session = _Session(in_stream or sys.stdin, out_stream or sys.stdout, exit_func, names)
    mapping: dict[Variable, Variable] = {v: _behind(v, v, session) for v in leaves}
    mine = {id(n) for n in nodes}
    later: dict[Variable, Variable] = {}  # what a cycle reads before it is made
    copies: list[Primitive] = []
    root = model.root

    def operand(v: Variable) -> Variable:
        if v not in mapping and v.is_output and id(v.node) in mine:
            return later.setdefault(v, Placeholder())
        return mapping.get(v, v)

    for n in nodes:
        made = copy_node(n, [operand(v) for v in n.operands], CloneMethod.share, {})
        copies.append(made)
        if not isinstance(n, Combined):
            after = Node(n)
            mapping.update((old, _behind(new, after, session)) for old, new in zip(n.outputs, made.outputs, strict=True))
        root = made
    if later:
        substitute([*copies, *(v.node for v in mapping.values())], {id(p): mapping[v] for v, p in later.items()})
    if isinstance(root, Combined):
        return Function(root)
    ends = [mapping[v] for v in model.outputs]
    return Function(ends[0].node) if len(ends) == 1 else Function(Combined(ends))


def _behind(v: Variable, after: Any, session: _Session) -> Variable:
    made = _DebugNode(v, session, after)
    _ = made.root.types
    return made.root.outputs[0]
