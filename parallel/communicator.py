"""CNTK's face of the ranks: who this rank is, how many there are."""

from __future__ import annotations

import os
import platform

import numpy as np

from cogkit.parallel.world import Alone, World, current_world, leave_world
from cogkit.train.ranks import use_communicator

__all__ = ["Communicator", "WorkerDescriptor", "mpi_communicator"]


class WorkerDescriptor:
    """A rank: its number and the machine that it runs on."""

    def __init__(self, global_rank: int, host_id: str):
        self.global_rank, self.host_id = global_rank, host_id

    def __repr__(self) -> str:
        return f"WorkerDescriptor({self.global_rank}, {self.host_id!r})"


class Communicator:
    """The ranks that train together; alone in a process that no `mpiexec` has started."""

    def __init__(self, world: World | None = None):
        self._given = world

    @property
    def _world(self) -> World:
        """The world that it was given, else that of the caller."""
        return current_world() if self._given is None else self._given

    @staticmethod
    def rank() -> int:
        """This rank's number, from 0."""
        return current_world().rank

    @staticmethod
    def num_workers() -> int:
        """How many ranks there are."""
        return current_world().size

    @staticmethod
    def finalize() -> None:
        """To be called once by every rank at the end: MPI can end only when all have come. Without it, the end of the process does so."""
        world = current_world()
        if hasattr(world, "finalize"):
            world.finalize()
            leave_world()

    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self._world.is_main

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sums of a few float64 numbers over all ranks, the same bits on each of them."""
        total = np.array(values, np.float64)
        self._world.all_reduce(total.reshape(-1), "sums")
        return total

    def barrier(self) -> None:
        """Returns when all ranks have come. Raises RankError when one does not."""
        self._world.barrier()

    def current_worker(self) -> WorkerDescriptor:
        """This rank."""
        return WorkerDescriptor(self._world.rank, platform.node())

    def workers(self) -> list[WorkerDescriptor]:
        """All ranks, which must ask together."""
        hosts = self._world.all_gather_bytes(os.fsencode(platform.node()), "hosts")
        return [WorkerDescriptor(r, os.fsdecode(host)) for r, host in enumerate(hosts)]

    def __repr__(self) -> str:
        return f"Communicator(rank {self._world.rank} of {self._world.size}{', alone' if isinstance(self._world, Alone) else ''})"


def mpi_communicator() -> Communicator:
    """The ranks that train together."""
    return Communicator()


use_communicator(Communicator())  # with whom evaluators test that have no learners
