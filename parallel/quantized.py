"""Sums over ranks in few bits: each rank quantises its gradient for the owners of its stripes, who sum and quantise again for all.

    rank r:  q_r = Q(g_r + e_r),      e_r = g_r + e_r - q_r           e_r: error of the rank, kept for its next minibatch
    owner:   p = Q(sum of q_r + d),   d = sum of q_r + d - p          d: error of the owner, for its stripe
    all:     gradient = p

Source: Seide et al. 2014 (see `quantize`). That an owner quantises its own gradient too is as CNTK's Python learners do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cogkit.parallel.flat import Flat
from cogkit.parallel.quantize import Columns, column_sizes, pack, unpack
from cogkit.parallel.world import Pending, World

__all__ = ["Quantized"]


class Quantized:
    """Sums what is in the flat buffers over all ranks, in `bits` bits a value; `residual` and `own_residual` keep the errors.

    error_feedback: False forgets them, as no training should: it is there to be compared with.
    """

    def __init__(self, world: World, flat: Flat, bits: int, zero_threshold: bool, error_feedback: bool = True):
        self.world, self.flat, self.zero_threshold, self.error_feedback = world, flat, zero_threshold, error_feedback
        self.stripes = [self._stripes(i, bits) for i in range(len(flat.buffers))]  # columns by buffer and owner
        self.residual = [np.zeros_like(b) for b in flat.buffers]
        self.own_residual = [np.zeros_like(b) for b in flat.buffers]  # only this rank's stripes are used
        self.messages = [[c.message() for c in stripes] for stripes in self.stripes]
        self.given = [[stripes[world.rank].message() for _ in range(world.size)] for stripes in self.stripes]
        for messages, given in zip(self.messages, self.given, strict=True):
            given[world.rank] = messages[world.rank]
        self.pending: list[Pending] = []

    def _stripes(self, i: int, bits: int) -> list[Columns]:
        """The columns of a buffer, dealt out in runs of about equally many values."""
        buffer = self.flat.buffers[i]
        places = []
        for at, shape in self.flat.places[i]:
            for n in column_sizes(shape):
                places.append((at, n))
                at += n
        total, done = sum(n for _, n in places), 0
        owned: list[list[tuple[int, int]]] = [[] for _ in range(self.world.size)]
        for begin, n in places:
            owned[min((done + n // 2) * self.world.size // total, self.world.size - 1)].append((begin, n))
            done += n
        return [Columns(columns, bits, buffer.dtype) for columns in owned]

    def start(self) -> None:
        """Quantises what is in the flat buffers and sends it to the owners."""
        world = self.world
        for i, (buffer, stripes) in enumerate(zip(self.flat.buffers, self.stripes, strict=True)):
            if not self.error_feedback:
                self.residual[i].fill(0)
            for columns, message in zip(stripes, self.messages[i], strict=True):
                pack(columns, self.zero_threshold, buffer, self.residual[i], message)
        world.meter.lap("pack")
        self.pending = [
            world.start_exchange(messages, given, f"quantised gradients {i}")
            for i, (messages, given) in enumerate(zip(self.messages, self.given, strict=True))
        ]

    def wait(self) -> None:
        """Returns when the flat buffers hold the sums."""
        world = self.world
        if not self.pending:
            return
        for pending in self.pending:
            pending.wait()
        world.meter.lap("send")
        for i, (buffer, stripes, messages) in enumerate(zip(self.flat.buffers, self.stripes, self.messages, strict=True)):
            own = stripes[world.rank]
            for r, message in enumerate(self.given[i]):
                unpack(own, message, buffer, add=r > 0)
            if not self.error_feedback:
                self.own_residual[i].fill(0)
            pack(own, self.zero_threshold, buffer, self.own_residual[i], messages[world.rank])
            world.meter.lap("pack")
            world.share(messages, f"quantised sums {i}")
            world.meter.lap("send")
            for columns, message in zip(stripes, messages, strict=True):
                unpack(columns, message, buffer)
            world.meter.lap("unpack")
        self.pending = []

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """The errors of this rank, for its checkpoint."""
        for i, (worker, owner) in enumerate(zip(self.residual, self.own_residual, strict=True)):
            yield f"residual.{i}", worker
            yield f"own_residual.{i}", owner
