"""Where the time of a rank goes: compute, wait, pack, send, unpack; and the bytes that its exchanges move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

__all__ = ["Meter", "Spent"]

PHASES = ("compute", "wait", "pack", "send", "unpack")


@dataclasses.dataclass(frozen=True)
class Spent:
    """What some steps took: seconds by phase, bytes; see `Meter`."""

    steps: int
    seconds: dict[str, float]
    bytes: int

    def since(self, before: Spent) -> Spent:
        """What was spent after an earlier look."""
        seconds = {phase: s - before.seconds[phase] for phase, s in self.seconds.items()}
        return Spent(self.steps - before.steps, seconds, self.bytes - before.bytes)

    def advice(self) -> str:
        """One sentence where communication takes more than half of the time, else ''."""
        total = sum(self.seconds.values())
        talk = total - self.seconds["compute"]
        if not self.steps or talk <= 0.5 * total:
            return ""
        if self.seconds["wait"] > 0.5 * talk:
            return (
                f"ranks wait for each other {self.seconds['wait'] / total:.0%} of the time: "
                "give them equal work, or train asynchronously (asgd_distributed_learner)"
            )
        return (
            f"{talk / total:.0%} of the time goes into exchanges: take larger minibatches, fewer bits (num_quantization_bits=1), "
            "or exchange models once a block (block_momentum_distributed_learner)"
        )

    def report(self) -> str:
        """One line: time a step by phase, bytes a step, and the advice."""
        told = self.record()
        parts = ", ".join(f"{phase} {ms:.2f}" for phase, ms in told["ms"].items())
        advice = f"; {told['advice']}" if told["advice"] else ""
        return f"{self.steps} steps, ms a step: {parts}; {told['bytes']:.0f} bytes sent a step{advice}"

    def record(self) -> dict[str, Any]:
        """The same as plain data: steps, ms (by phase, a step), bytes (a step), advice."""
        n = max(self.steps, 1)
        ms = {phase: 1e3 * s / n for phase, s in self.seconds.items()}
        return {"steps": self.steps, "ms": ms, "bytes": self.bytes / n, "advice": self.advice()}


class Meter:
    """Seconds by phase and bytes moved. One clock goes round: `lap` gives what has passed since the last lap to a phase.

    wait: for other ranks to come; send: for what they send. What travels while a rank computes is in neither. bytes: of arrays that
    this rank sends to others, and of what others answer to its requests (asgd), which are counted where they are asked for: so each byte
    that travels is counted on one rank. What MPI adds to them is not counted.
    """

    def __init__(self, clock: Callable[[], float]):
        self.clock = clock
        self.clear()

    def clear(self) -> None:
        """Starts new sums."""
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.bytes = self.steps = 0
        self.last = self.clock()

    def lap(self, phase: str) -> None:
        """The time since the last lap was of this phase."""
        now = self.clock()
        self.seconds[phase] += now - self.last
        self.last = now

    def spent(self) -> Spent:
        """The sums so far."""
        return Spent(self.steps, dict(self.seconds), self.bytes)

    def advice(self) -> str:
        """See `Spent.advice`."""
        return self.spent().advice()

    def report(self) -> str:
        """See `Spent.report`."""
        return self.spent().report()
