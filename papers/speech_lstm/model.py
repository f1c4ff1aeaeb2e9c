"""Acoustic models from layers only: scores of the states of phones for each frame of speech.

Xiong, Wu, Alleva, Droppo, Huang, Stolcke: The Microsoft 2017 Conversational Speech Recognition System, arXiv:1708.06073: LSTMs that read
both ways, with and without convolutions below them. CNTK's AN4 example: a feed-forward net and stacked LSTMs.
"""

import cogkit as C
import cogkit.layers as L

__all__ = ["SYSTEMS", "acoustic_model"]

SYSTEMS = ("dnn", "lstm", "blstm", "cnn-blstm")
ACTIVATIONS = {"relu": C.relu, "sigmoid": C.sigmoid}
MAPS = (32, 64)


def acoustic_model(
    x, system: str, states: int, frames: int, dense: int, hidden: int, activation: str, layers: int, cells: int, stabilize: bool
):
    """Scores of `states` for x: (frames * features,), a frame and its neighbours, one after the other.

    system: "dnn" (`dense` layers of `hidden` units, each frame for itself), "lstm" (`layers` of `cells`), "blstm" (as many cells in
    each direction) or "cnn-blstm" (two convolutions over time and frequency below it).  stabilize: LSTMs with self-stabilisers, as CNTK has them.
    """
    if system not in SYSTEMS:
        raise ValueError(f"acoustic_model: expected a system of {', '.join(SYSTEMS)}, got '{system}'")
    if activation not in ACTIVATIONS:
        raise ValueError(f"acoustic_model: expected an activation of {', '.join(ACTIVATIONS)}, got '{activation}'")
    h = x
    if system == "dnn":
        init = C.he_normal() if activation == "relu" else C.glorot_uniform()
        for _ in range(dense):
            h = L.Dense(hidden, activation=ACTIVATIONS[activation], init=init)(h)
        return L.Dense(states)(h)
    if system == "cnn-blstm":
        h = C.reshape(h, (1, frames, x.shape[0] // frames))
        for k, maps in enumerate(MAPS):
            h = L.Convolution2D((3, 3), maps, activation=C.relu, init=C.he_normal(), pad=(k == 0, True))(h)
            h = L.MaxPooling((1, 2), strides=(1, 2))(h)
        h = L.Dense(2 * cells, activation=C.relu, init=C.he_normal())(h)
    for _ in range(layers):
        ways = [
            L.Recurrence(L.LSTM(cells, enable_self_stabilization=stabilize), go_backwards=backwards)(h)
            for backwards in ([False] if system == "lstm" else [False, True])
        ]
        h = C.splice(*ways) if len(ways) > 1 else ways[0]
    return L.Dense(states)(h)
