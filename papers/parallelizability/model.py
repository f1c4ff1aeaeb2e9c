"""A feed-forward acoustic model from layers only: scores of states for one frame of speech and its neighbours.

Seide, Fu, Droppo, Li, Yu: On Parallelizability of Stochastic Gradient Descent for Speech DNNs, ICASSP 2014.
"""

import cogkit as C
import cogkit.layers as L

__all__ = ["acoustic_model"]


def acoustic_model(x, states: int, layers: int, hidden: int):
    """Scores of `states` for x: (frames * features,); so many layers of rectified units before."""
    h = x
    for _ in range(layers):
        h = L.Dense(hidden, activation=C.relu, init=C.he_normal())(h)
    return L.Dense(states)(h)
