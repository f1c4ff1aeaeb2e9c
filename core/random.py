"""Random ops under CNTK's names, and the run's one seed."""

from cogkit.engine.seeding import random_state, set_seed
from cogkit.ops.randomness import (
    SentinelValueForAutoSelectRandomSeed,
    bernoulli,
    bernoulli_like,
    gumbel,
    gumbel_like,
    normal_like,
    uniform_like,
)
from cogkit.ops.randomness import random_normal as normal
from cogkit.ops.randomness import random_uniform as uniform

__all__ = [
    "bernoulli",
    "bernoulli_like",
    "gumbel",
    "gumbel_like",
    "normal",
    "normal_like",
    "random_state",
    "set_seed",
    "uniform",
    "uniform_like",
]

auto_select = SentinelValueForAutoSelectRandomSeed
