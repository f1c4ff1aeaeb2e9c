"""Losses and errors over all alignments of two sequences: connectionist temporal classification, edit distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit.axis import Axis
from cogkit.errors import here
from cogkit.functions import Function, apply
from cogkit.op import Op, Type, common_dtype, constant_gradient, size_of
from cogkit.ops.rows import BATCH, has_steps, needs_steps, spread

__all__ = ["edit_distance_error", "forward_backward", "labels_to_graph"]

LAST = 2**64 - 1  # CNTK's way to say: the last class is the blank


def _classes(types: Sequence[Type], what: str) -> int:
    """The number of classes of two values over sequences, all elements of a sample together."""
    a, b = (size_of(t.shape) for t in types)
    if a != b and a >= 0 and b >= 0:
        raise ValueError((f"{what} of one size", f"{types[0]} and {types[1]}", "give each sample one element a class"))
    return max(a, b)


# primitives ----------------------------------------------------------------------------------------------------------------------


def _ctc_type(types, attrs):
    return [Type((), common_dtype(types), BATCH), types[1]]


def _ctc_gradient(n, dloss, dslope):
    if dslope is not None:
        raise ValueError(("first derivatives", "a derivative of the gradient of a ForwardBackward", ""))
    return [None, None if dloss is None else spread(dloss, n.inputs[1]) * n.outputs[1]]


# labels, logits -> loss of each sequence, softmax(logits) - posterior (the gradient of the loss); attrs blank, delay
Op("ctc", "Ctc", _ctc_type, _ctc_gradient, "ctc", "Graves 2006, equations 7 to 16", own_rows=True)


def _edits_type(types, attrs):
    return [Type((), common_dtype(types), BATCH)] * 2


# a, b -> edits from each sequence to the other, length of the second one; attrs penalties, squash, ignored
Op("edit_distance", "EditDistance", _edits_type, constant_gradient, "edit_distance", "Levenshtein 1966", own_rows=True)


# connectionist temporal classification -------------------------------------------------------------------------------------------


def _graph_type(types, attrs):
    needs_steps(types[0])
    return [types[0]]


Op("labels_to_graph", "LabelsToGraph", _graph_type, None, "expand", "CNTK v2", expand=lambda g, x, attrs, training: x[0].stop())


def labels_to_graph(labels: Any, name: str = "") -> Function:
    """Frame labels as `forward_backward` takes them: the largest element of a row is 2 where a label begins, 1 where it goes on.

    They pass as they are. Raises `ValueError` for a value without a sequence axis.
    """
    return apply("labels_to_graph", [labels], name)


def _ctc_loss_type(types, attrs):
    for t in types:
        needs_steps(t)
    classes = _classes(types, "labels and outputs")
    if attrs["blank"] != LAST and attrs["blank"] >= classes >= 0:
        raise ValueError((f"a blankTokenId in [0, {classes})", str(attrs["blank"]), ""))
    if attrs["delay"] >= 0 and types[0].axes != types[1].axes:
        raise ValueError(
            ("a label a frame, to hold a delayConstraint against", "labels of another sequence axis", "leave it at -1")
        )
    return [Type((), common_dtype(types), ())]


def _ctc_loss(g, x, attrs, training):
    labels, logits = x
    blank = attrs["blank"] if attrs["blank"] != LAST else math.prod(logits.type.shape) - 1
    loss, _ = g.node("ctc", [labels.stop(), logits], blank=blank, delay=attrs["delay"])
    return loss.node("reduce_sum", axes=(), rows=True)


Op("forward_backward", "ForwardBackward", _ctc_loss_type, None, "expand", "CNTK v2", expand=_ctc_loss)


def forward_backward(graph: Any, features: Any, blankTokenId: int, delayConstraint: int = -1, name: str = "") -> Function:
    """Connectionist temporal classification: the sum over all sequences of -log p(labels | outputs), one number a minibatch.

    graph: `labels_to_graph` of one row a frame, or of a sequence axis of its own. features: outputs before the softmax, one element a
    class. Labels are the rows whose largest element is 2. blankTokenId: the class that stands for no label. delayConstraint: frames that
    a label may still last after the next one began in the labels, -1: any. The gradient of the outputs is softmax - posterior.
    A sequence that no alignment fits (more labels, and blanks between equal ones, than frames) gives inf and no gradient, where CNTK gives
    1e11; NaN or infinity among a sequence's outputs give NaN. CNTK 2.7 reads past its tables for the last blank under a
    delayConstraint of 1 or more; here the last blank is free. Raises `ValueError` for operands or settings that do not fit.
    """
    if not isinstance(blankTokenId, (int, np.integer)) or blankTokenId < 0:
        raise ValueError(here(f"ForwardBackward: expected the number of a class as blankTokenId, got {blankTokenId!r}"))
    if not isinstance(delayConstraint, (int, np.integer)) or not -1 <= delayConstraint < 2**31:
        raise ValueError(
            here(f"ForwardBackward: expected a delayConstraint of -1 (none) or a number of frames, got {delayConstraint!r}")
        )
    return apply("forward_backward", [graph, features], name, blank=int(blankTokenId), delay=int(delayConstraint))


# edit distance -------------------------------------------------------------------------------------------------------------------


def _edit_error_type(types, attrs):
    for t in types:
        if not t.axes:
            needs_steps(t)
    _classes(types, "classes")
    return [Type((), common_dtype(types), ())]


def _steps(g, v):
    """A value of the batch as sequences of one step."""
    if has_steps(v.type.axes):
        return v
    axes, _ = g.space((*BATCH, Axis("toSequence_one")), v.type.axes, ("lengths", 1), None)
    return v.reshape((1, *v.type.shape)).node("move_rows", move=("pack", 1), axes=axes, shape=v.type.shape)


def _edit_error(g, x, attrs, training):
    a, b = (_steps(g, v.stop()) for v in x)
    edits, length = g.node("edit_distance", [a, b], **attrs)
    edits, length = (v.node("reduce_sum", axes=(), rows=True) for v in (edits, length))
    return edits * b.node("row_count") / length


Op("edit_distance_error", "EditDistanceError", _edit_error_type, constant_gradient, "expand", "CNTK v2", expand=_edit_error)


def edit_distance_error(
    input_a: Any,
    input_b: Any,
    subPen: float = 1,
    delPen: float = 1,
    insPen: float = 1,
    squashInputs: bool = False,
    tokensToIgnore: Sequence[int] = (),
    name: str = "",
) -> Function:
    """Edits from sequences to references, as a share of the references' labels times their frames: one number a minibatch, no gradient.

    input_a, input_b: one element a class and step; a step's symbol is its first largest element. Penalties choose the cheapest way from a
    to b; what is counted is its edits. squashInputs: repeats are one symbol; tokensToIgnore: symbols left out after that. The number of
    frames of input_b is a factor, so that the mean over frames is edits / labels, labels being those left of input_b; without any
    it is inf or NaN, as in CNTK. Values without a sequence axis are one step each. Sequences may have axes of their own, where CNTK
    wants equal lengths. Raises `ValueError` for sizes that differ and symbols that there are not.
    """
    ignored = tuple(int(c) for c in tokensToIgnore)
    if any(c < 0 for c in ignored):
        raise ValueError(here(f"EditDistanceError: expected numbers of classes as tokensToIgnore, got {list(tokensToIgnore)}"))
    penalties = (float(subPen), float(delPen), float(insPen))
    if not all(map(math.isfinite, penalties)):
        raise ValueError(here(f"EditDistanceError: expected finite penalties, got {penalties}"))
    return apply("edit_distance_error", [input_a, input_b], name, penalties=penalties, squash=bool(squashInputs), ignored=ignored)
