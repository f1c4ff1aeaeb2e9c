"""The seed of the process, and what random numbers depend on besides."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Run", "random_state", "set_seed"]


class Run(NamedTuple):
    """What random numbers depend on besides the node and the element; who is told of results that come while it goes on."""

    seed: int
    step: int
    sample: int = 0
    arrivals: Any = None  # see `cogkit.train.ranks.Arrivals`; an engine may leave it alone


class _RandomState:
    """Seed of the process and runs of executables so far; `first`: the number of an executable's first run since it began."""

    def __init__(self, seed: int = 0):
        self.begin(seed)

    def begin(self, seed: int, step: int = 0) -> None:
        """All executables draw as if they had not run: those that take no other count go on from this step."""
        self.seed, self.step, self.first, self.begun = seed, step, step, object()


random_state = _RandomState()


def set_seed(seed: int) -> None:
    """Sets the one seed: initial values, dropout and random ops of what is built and run from here on repeat for equal seeds."""
    from cogkit import initializer
    from cogkit.ops import randomness

    random_state.begin(int(seed))
    randomness.restart()
    initializer.restart(int(seed))
