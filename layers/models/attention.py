"""Attention."""

from __future__ import annotations

from typing import Any

from cogkit import ops
from cogkit.axis import Axis
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here
from cogkit.functions import Function
from cogkit.initializer import glorot_uniform
from cogkit.layers.composition import identity
from cogkit.layers.dense import Dense
from cogkit.layers.normalization import Stabilizer
from cogkit.layers.sequence import PastValueWindow
from cogkit.ops import sequence

__all__ = ["AttentionModel"]

_NEVER = -1e30  # a score whose softmax is 0
_OUTSIDE = 50  # CNTK's, taken off the scores of steps that a window does not have


def AttentionModel(attention_dim: int, attention_span: int | None = None, attention_axis: int | None = None,
                   init: Any = default_override_or(glorot_uniform()), go_backwards: Any = default_override_or(False),
                   enable_self_stabilization: Any = default_override_or(True), name: str = "") -> Function:  # fmt: skip
    """(encoder states, decoder states) -> for each decoder step the encoder steps' mean, weighted by how well they match it.

    Scores v tanh(W_d d + W_e e) over `attention_dim` units, weights by softmax over the encoder's sequence; each operand of a product
    behind a `Stabilizer`, the result too. Bahdanau et al. 2014, arXiv:1409.0473. The weights are the node 'attention_weights'.
    attention_span, attention_axis: over the last (go_backwards: first) steps only, taken by `PastValueWindow` along that axis; give both or
    neither, else `ValueError`.
    """
    init = get_default_override(AttentionModel, init=init)
    go_backwards = get_default_override(AttentionModel, go_backwards=go_backwards)
    stabilize = get_default_override(AttentionModel, enable_self_stabilization=enable_self_stabilization)
    if (attention_span is None) != (attention_axis is None):
        missing = "attention_span" if attention_span is None else "attention_axis"
        raise ValueError(here(f"AttentionModel: expected attention_span and attention_axis or neither, got no {missing}"))

    def projection(size: int) -> Function:
        dense = Dense(size, init=init, activation=identity, input_rank=1, bias=False)
        return Stabilizer(enable_self_stabilization=stabilize) >> dense

    of_encoder, of_decoder, of_both = projection(attention_dim), projection(attention_dim), projection(1)
    scale = Stabilizer(enable_self_stabilization=stabilize)

    def scores(states: Any, decoder: Any) -> Function:
        """One score a step: (steps, size) to (steps, 1)."""
        return of_both(ops.tanh(of_decoder(decoder) + sequence.broadcast_as(of_encoder(states), decoder)))

    def over_sequence(encoder_hidden_state, decoder_hidden_state):
        states, valid = sequence.unpack(encoder_hidden_state, padding_value=0).outputs
        valid = sequence.broadcast_as(ops.reshape(valid, (1,), begin_axis=Axis.end_static_axis()), decoder_hidden_state)
        u = ops.element_select(valid, scores(states, decoder_hidden_state), _NEVER)
        weights = ops.alias(ops.softmax(u, axis=0), name="attention_weights")
        mean = ops.reduce_sum(sequence.broadcast_as(states, weights) * weights, axis=0)
        return scale(ops.reshape(mean, (), 0, 1))

    def over_window(h_enc, h_dec):
        states, valid = PastValueWindow(attention_span, attention_axis, go_backwards=go_backwards)(h_enc).outputs
        u = scores(states, h_dec) + (sequence.broadcast_as(valid, h_dec) - 1) * _OUTSIDE
        weights = ops.alias(ops.softmax(u, axis=attention_axis), name="attention_weights")
        return scale(ops.reduce_sum(sequence.broadcast_as(states, h_dec) * weights, axis=attention_axis))

    return Function(over_sequence if attention_span is None else over_window, name=name)
