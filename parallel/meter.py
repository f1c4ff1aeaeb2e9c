"""Where the time of a rank goes: compute, wait, pack, send, unpack; and the bytes that it sends."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Meter"]

PHASES = ("compute", "wait", "pack", "send", "unpack")


class Meter:
    """Seconds by phase and bytes sent. One clock goes round: `lap` gives what has passed since the last lap to a phase."""

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
        n = max(self.steps, 1)
        parts = ", ".join(f"{phase} {1e3 * s / n:.2f}" for phase, s in self.seconds.items())
        advice = self.advice()
        return f"{self.steps} steps, ms a step: {parts}; {self.bytes / n:.0f} bytes sent a step" + (
            f"; {advice}" if advice else ""
        )
