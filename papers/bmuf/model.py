"""Acoustic models from layers only: scores of the states of phones for frames of speech.

Chen, Huo: Scalable training of deep learning machines by incremental block training with intra-block parallel optimization and blockwise
model-update filtering, ICASSP 2016: a feed-forward net, and LSTMs that read both ways.
"""

import cogkit as C
import cogkit.layers as L

__all__ = ["SYSTEMS", "acoustic_model"]

SYSTEMS = ("dnn", "blstm")


def acoustic_model(x, system: str, states: int, layers: int, width: int):
    """Scores of `states` for x: (frames * features,), a frame and its neighbours.

    system: "dnn" (`layers` of `width` rectified units, each frame for itself) or "blstm" (`layers` of `width` cells in each direction).
    """
    if system not in SYSTEMS:
        raise ValueError(f"acoustic_model: expected a system of {', '.join(SYSTEMS)}, got '{system}'")
    h = x
    for _ in range(layers):
        if system == "dnn":
            h = L.Dense(width, activation=C.relu, init=C.he_normal())(h)
        else:
            h = C.splice(*(L.Recurrence(L.LSTM(width), go_backwards=backwards)(h) for backwards in (False, True)))
    return L.Dense(states)(h)
