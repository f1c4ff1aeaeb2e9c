"""Layers over sequences: loops of a step, delays, windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cogkit import ops
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here
from cogkit.functions import BlockFunction, Function, combine, to_variable
from cogkit.layers.composition import named
from cogkit.ops import sequence
from cogkit.variables import Variable

__all__ = ["Delay", "Fold", "ForwardDeclaration", "PastValueWindow", "Recurrence", "RecurrenceFrom", "UnfoldFrom"]

_FALSE, _ZERO = default_override_or(False), default_override_or(0)
_STATES = ("h", "c", "a", "b", "d", "e", "f", "g", "i", "j")  # CNTK's names of initial states as arguments


def _as_step(label: str, f: Any) -> tuple[Function, int]:
    """A step and how many states it has. A Python step must get all it reads as arguments and own no parameters."""
    if isinstance(f, Function):
        step = f
    elif not callable(f):
        raise TypeError(here(f"{label}: expected a step function (states..., x) -> states, got {type(f).__name__}"))
    else:
        since = to_variable(0).serial
        step = Function(f)
        captured = [v.name or v.uid for v in step.arguments if v.is_input]
        if captured:
            raise TypeError(
                here(
                    f"{label}: expected a step of its arguments alone, got one that also reads {', '.join(captured)};"
                    " splice it into the input, or decorate the step with @C.Function"
                )
            )
        made = [p.name or p.uid for p in step.parameters if p.serial > since]
        if made:
            raise TypeError(
                here(
                    f"{label}: expected a step that makes no parameters, got one that makes {', '.join(made)} at each call;"
                    " make layers and parameters before it"
                )
            )
    arguments, states = len(step._signature or step.arguments), len(step.outputs)
    if arguments != states + 1:
        raise TypeError(
            here(
                f"{label}: expected a step of its states and one input, got one of {arguments} arguments that gives {states};"
                " splice inputs into one"
            )
        )
    if states > len(_STATES):
        raise ValueError(here(f"{label}: expected a step of at most {len(_STATES)} states, got {states}; splice states into one"))
    return step, states


def _loop(step: Function, initial: Sequence[Any], x: Any, go_backwards: bool) -> Function:
    """The states at each step of x, as outputs of one function."""
    states = [ops.placeholder() for _ in initial]
    before = [sequence.delay(s, i, -1 if go_backwards else 1) for s, i in zip(states, initial, strict=True)]
    after = step(*before, x)
    open_ones = {id(p) for p in after.placeholders}
    closed = {s: v for s, v in zip(states, after.outputs, strict=True) if id(s) in open_ones}
    return after.replace_placeholders(closed) if closed else after


def _results(states: Sequence[Any], full: bool) -> Function:
    return combine(*(states if full else states[:1]))


def RecurrenceFrom(step_function: Any, go_backwards: Any = _FALSE, return_full_state: bool = False, name: str = "") -> Function:
    """`Recurrence` whose initial states are arguments: (states..., x) -> the first state at each step, or all.

    An initial state is a number, an array, a value a batch item, or a sequence whose last step (first, backwards) is taken.
    """
    go_backwards = get_default_override(RecurrenceFrom, go_backwards=go_backwards)
    step, n = _as_step("RecurrenceFrom", step_function)

    def recurrence(*args):
        return _results(_loop(step, args[:-1], args[-1], go_backwards).outputs, return_full_state)

    return named(recurrence, (*_STATES[:n], "x"), name)


def _initial_states(label: str, given: Any, n: int) -> list[Any]:
    """One initial state for each of n: a tuple is one each, anything else is for all."""
    states = list(given) if isinstance(given, tuple) else [given] * n
    if len(states) != n:
        raise ValueError(here(f"{label}: expected one initial_state for all or {n} in a tuple, got {len(states)}"))
    made: dict[int, Variable] = {}  # one constant for all that are given the same number
    return [made.setdefault(id(s), to_variable(s)) for s in states]


def Recurrence(
    step_function: Any, go_backwards: Any = _FALSE, initial_state: Any = _ZERO, return_full_state: bool = False, name: str = ""
) -> Function:
    """Runs a step (states..., x) -> states over each sequence: the first state at each step, or with return_full_state all of them.

    go_backwards: from the last step to the first. initial_state: a number, an array or a variable for all states, or a tuple of one each.
    Raises `TypeError` for a step that does not give as many states as it takes, or a Python one that reads inputs beside its arguments or
    makes parameters; `ValueError` for another number of initial states, and for more than 10 states, as CNTK.
    """
    go_backwards = get_default_override(Recurrence, go_backwards=go_backwards)
    initial_state = get_default_override(Recurrence, initial_state=initial_state)
    step, n = _as_step("Recurrence", step_function)
    initial = _initial_states("Recurrence", initial_state, n)

    def recurrence(x):
        return _results(_loop(step, initial, x, go_backwards).outputs, return_full_state)

    return Function(recurrence, name=name)


def Fold(
    folder_function: Any, go_backwards: Any = _FALSE, initial_state: Any = _ZERO, return_full_state: bool = False, name: str = ""
) -> Function:
    """The last state (the first in time, backwards) of a `Recurrence`, without sequence axis; with return_full_state all of them."""
    go_backwards = get_default_override(Fold, go_backwards=go_backwards)
    initial_state = get_default_override(Fold, initial_state=initial_state)
    step, n = _as_step("Fold", folder_function)
    initial = _initial_states("Fold", initial_state, n)
    final = sequence.first if go_backwards else sequence.last

    def fold(x):
        states = _loop(step, initial, x, go_backwards).outputs
        return combine(*(final(s) for s in (states if return_full_state else states[:1])))

    return Function(fold, name=name)


def UnfoldFrom(generator_function: Any, until_predicate: Any = None, length_increase: float = 1, name: str = "") -> Function:
    """Generates sequences: (initial_state, dynamic_axes_like) -> output, by state -> output, or -> (output, next state), again and again.

    The sequences are as long as those of dynamic_axes_like, times length_increase (rounded up), or end with the first step at whose
    output `until_predicate` is not 0. Raises `TypeError` for a generator of other arguments or outputs.
    """
    generator = generator_function if isinstance(generator_function, Function) else Function(generator_function)
    takes, gives = len(generator.arguments), len(generator.outputs)
    if takes != 1 or gives > 2:
        raise TypeError(
            here(
                f"UnfoldFrom: expected a generator state -> output or (output, next state), got one of {takes} arguments and {gives} outputs"
            )
        )

    def unfold(initial_state, dynamic_axes_like):
        like = dynamic_axes_like
        if length_increase != 1:
            like = sequence.where(sequence.broadcast_as(to_variable(length_increase), like))
        state = ops.placeholder()
        before = sequence.past_value(ops.reconcile_dynamic_axes(state, like), initial_state, name="unfold_prev_state")
        after = generator(before)
        after.replace_placeholders({state: after.outputs[-1]})
        output = combine(after.outputs[0], name="unfold_output")
        if until_predicate is None:
            return output
        ends = until_predicate(output)
        # 1 up to and with the first step that ends the sequence
        going = _loop(Function(lambda going, ended: going * (1 - ended)), [to_variable(1)], sequence.past_value(ends), False)
        return sequence.gather(output, ops.alias(going, name="valid_frames"), name="valid_output")

    return Function(unfold, name=name)


def Delay(T: int = 1, initial_state: Any = _ZERO, name: str = "") -> Function:
    """x of T steps ago; of -T steps ahead where T is negative. See `C.sequence.delay`."""
    initial_state = get_default_override(Delay, initial_state=initial_state)

    @BlockFunction("Delay", name)
    def delay(x):
        return sequence.delay(x, initial_state, T)

    return delay


def PastValueWindow(window_size: int, axis: int, go_backwards: Any = _FALSE, name: str = "") -> Function:
    """The last steps of each sequence along a static axis, the last one first; go_backwards: the first steps in order.

    Two outputs: value, `window_size` steps spliced along `axis` (-2 for vectors: a new one before the last), 0 where a sequence is too
    short; and valid, 1 where there is a step. Raises `ValueError` for a window without steps.
    """
    go_backwards = get_default_override(PastValueWindow, go_backwards=go_backwards)
    if window_size < 1:
        raise ValueError(here(f"PastValueWindow: expected a window_size of at least 1, got {window_size!r}"))

    @BlockFunction("PastValueWindow", name)
    def window(x):
        def steps(v, name):
            at = [(t, t + 1) if go_backwards else (-1 - t, -t) for t in range(window_size)]
            return ops.splice(*(sequence.slice(v, *bounds) for bounds in at), axis=axis, name=name)

        ones = sequence.broadcast_as(to_variable(1), x)
        return steps(x, "value"), steps(ones, "valid")

    return window


def ForwardDeclaration(name: str = "forward_declaration") -> Variable:
    """A placeholder for a function that is written later: `f = ForwardDeclaration(); g = ... f ...; f.resolve_to(g)`."""
    declared = ops.placeholder(name=name)
    declared.resolve_to = lambda f: f.replace_placeholders({declared: to_variable(f)})  # type: ignore[attr-defined]
    return declared
