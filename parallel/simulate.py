"""The simulated world: virtual ranks in one process, with real arithmetic, a model of time, and one order of events for one seed.

Each virtual rank is a coroutine with a clock of its own. The one whose clock is behind runs, until it waits for others; nothing
depends on how long anything really took. What differs from real ranks is only who carries the arrays.
"""

from __future__ import annotations

import contextvars
import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cogkit import initializer
from cogkit.engine.seeding import random_state
from cogkit.errors import RankError
from cogkit.ops import randomness
from cogkit.parallel.delays import Delay, Network, constant
from cogkit.parallel.world import Handler, Pending, World, enter_world

__all__ = ["SimulatedWorld", "simulate"]


def simulate(
    main: Callable[[], Any],
    size: int,
    delay: Delay | None = None,
    network: Network | None = None,
    seed: int = 0,
) -> list[Any]:
    """Runs `main()` once on each of `size` virtual ranks, with what `current_world()` gives there, and returns their results.

    delay: seconds that a minibatch takes, by (rank, minibatch of the rank, samples); default: 1 for each. network: what a message takes;
    default: nothing. seed: of random numbers, as `set_seed` sets it, on every rank. Raises what a rank raises, with the rank in a note;
    RankError where ranks wait for each other for ever.
    """
    return _Hub(size, delay or constant(1.0), network or Network(), seed).run(main)


class SimulatedWorld(World):
    """A virtual rank's view of the others. `now` is its clock, in seconds from the start."""

    def __init__(self, hub: _Hub, rank: int):
        self.hub, self.rank, self.size = hub, rank, hub.size
        self.now = 0.0
        self.minibatches = 0
        self.begun: float | None = None  # when the minibatch was begun of which a part has been computed
        self.place = "before its first exchange"
        self.order: list[int] = []
        self.mail: dict[int, Callable[[], None]] = {}  # rank -> delivery of the request that it waits for an answer to
        super().__init__()

    def clock(self) -> float:
        """Virtual time."""
        return self.now

    def computing(self, samples: int, part: float) -> None:
        """Moves the clock on by a part of what the delay model says of this minibatch."""
        if self.begun is None:
            self.begun = self.now
        self.now = max(self.now, self.begun + part * self.hub.delay(self.rank, self.minibatches, samples))
        self.hub.resume(self)
        self.hub.leave()

    def computed(self, samples: int) -> None:
        """Moves the clock on by what the delay model says of this minibatch."""
        begun = self.now if self.begun is None else self.begun
        self.now = max(self.now, begun + self.hub.delay(self.rank, self.minibatches, samples))
        self.begun = None
        self.minibatches += 1
        self.hub.resume(self)
        self.hub.leave()

    def start_exchange(
        self, pieces: Sequence[np.ndarray], into: Sequence[np.ndarray], what: str, number: int | None = None
    ) -> Pending:
        """See `World.start_exchange`."""
        if number is None:
            number = self.reserve()
            self.place = f"in exchange {number} ({what}), last finished step {self.step}"
        self.meter.bytes += sum(p.nbytes for r, p in enumerate(pieces) if r != self.rank)
        meeting = self.hub.meetings.setdefault(number, _Meeting(self.hub, number, what))
        meeting.join(self, pieces, into, what)
        return _Attendance(self, meeting)

    def serve(self, handler: Handler, order: Sequence[int] | None = None) -> Callable[[], None]:
        """See `World.serve`."""
        self.handler, self.order = handler, list(order or ())[::-1]
        self.deliver()

        def end() -> None:
            self.handler = None

        return end

    def deliver(self) -> None:
        """Answers what has come, as far as it is its turn."""
        while self.mail and self.handler is not None:
            rank = self.order[-1] if self.order else next(iter(self.mail))
            if rank not in self.mail:
                return
            if self.order:
                self.order.pop()
            self.mail.pop(rank)()

    def request(self, arrays: Sequence[Sequence[np.ndarray]], into: Sequence[Sequence[np.ndarray]], what: str) -> None:
        """See `World.request`."""
        self.place = f"waiting for answers ({what}), last finished step {self.step}"
        hub, left = self.hub, self.size

        def seconds(of: Sequence[Sequence[np.ndarray]]) -> float:  # messages of one rank share its bandwidth
            return hub.seconds([a for owner, part in zip(hub.worlds, of, strict=True) if owner is not self for a in part], True)

        there, back = seconds(arrays), seconds(into)

        def ask(owner: SimulatedWorld, sent: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> Callable[[], None]:
            def answer() -> None:
                found = hub.as_rank(owner, lambda: owner.handler(self.rank, [a.reshape(-1) for a in sent]))
                for target, array in zip(got, found, strict=True):
                    target.reshape(-1)[...] = array.reshape(-1)
                hub.later(hub.time + (back if owner is not self else 0.0), arrive)

            def come() -> None:
                owner.mail[self.rank] = answer
                owner.deliver()

            return come

        def arrive() -> None:
            nonlocal left
            left -= 1
            if not left:
                self.now = hub.time
                hub.resume(self)

        for owner, sent, got in zip(hub.worlds, arrays, into, strict=True):
            others = owner is not self
            self.meter.bytes += sum(a.nbytes for a in (*sent, *got)) if others else 0
            hub.later(self.now + (there if others else 0.0), ask(owner, sent, got))
        hub.leave()


class _Meeting:
    """An exchange that ranks join one after another; the last one carries out all of it."""

    def __init__(self, hub: _Hub, sequence: int, what: str):
        self.hub, self.sequence, self.what = hub, sequence, what
        self.joined: dict[int, tuple[Sequence[np.ndarray], Sequence[np.ndarray]]] = {}
        self.begun = 0.0
        self.end: float | None = None  # virtual time; None until all have come
        self.waiting: list[SimulatedWorld] = []

    def join(self, world: SimulatedWorld, pieces: Sequence[np.ndarray], into: Sequence[np.ndarray], what: str) -> None:
        if what != self.what:
            raise RankError(
                f"rank {world.rank} {world.place}: expected the same exchange as of rank {min(self.joined)}, which is in {self.what}; "
                "all ranks must train alike"
            )
        self.joined[world.rank] = pieces, into
        self.begun = max(self.begun, world.now)
        if len(self.joined) == self.hub.size:
            del self.hub.meetings[self.sequence]
            self.exchange()

    def exchange(self) -> None:
        longest = 0.0
        for rank, (_, into) in self.joined.items():
            for other, (pieces, _) in self.joined.items():
                if other == rank:
                    continue
                sent, target = pieces[rank], into[other]
                if sent.nbytes != target.nbytes:
                    raise RankError(
                        f"rank {rank} in exchange {self.sequence} ({self.what}): expected {target.nbytes} bytes from rank {other}, got "
                        f"{sent.nbytes}; all ranks must train the same model alike"
                    )
                target[...] = sent
            longest = max(longest, self.hub.seconds([a for r, a in enumerate(into) if r != rank], True))
        latency = self.hub.network.seconds(0)
        self.end = self.begun + longest
        if longest > 2 * latency:  # large exchanges share the bandwidth, one after another; small ones slip in between
            self.end = max(self.begun, self.hub.busy) + longest
            self.hub.busy = self.end - latency
        for world in self.waiting:
            world.now = max(world.now, self.end)
            self.hub.resume(world)


class _Attendance(Pending):
    """One rank's part of a meeting."""

    def __init__(self, world: SimulatedWorld, meeting: _Meeting):
        self.world, self.meeting = world, meeting

    def advance(self) -> bool:
        return self.meeting.end is not None and self.meeting.end <= self.world.now

    def wait(self) -> None:
        world, meeting = self.world, self.meeting
        if meeting.end is None:
            meeting.waiting.append(world)
        else:  # the others go on first where they come first
            world.now = max(world.now, meeting.end)
            world.hub.resume(world)
        world.hub.leave()


class _Globals:
    """What random numbers depend on in a process; each virtual rank has its own."""

    def __init__(self, seed: int):
        self.kept = (itertools.count(), seed, itertools.count(1), vars(type(random_state)(seed)))

    def swap(self) -> None:
        """Exchanges them with those in force."""
        now = (initializer._serial, initializer._seed, randomness._purposes, dict(vars(random_state)))
        initializer._serial, initializer._seed, randomness._purposes, state = self.kept
        vars(random_state).update(state)
        self.kept = now


class _Hub:
    """Lets ranks run and messages arrive in the order of virtual time; of the same time first messages, then the lowest rank."""

    def __init__(self, size: int, delay: Delay, network: Network, seed: int):
        if size < 1:
            raise ValueError(f"simulate: expected at least one rank, got {size}")
        self.size, self.delay, self.network = size, delay, network
        self.time = 0.0
        self.busy = 0.0  # until when ranks are sending
        self.meetings: dict[int, _Meeting] = {}
        self.ready: list[tuple[float, int]] = []
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = itertools.count()
        self.worlds = [SimulatedWorld(self, r) for r in range(size)]
        self.globals = [_Globals(seed) for _ in range(size)]

    def seconds(self, arrays: Sequence[np.ndarray], travels: bool) -> float:
        """What a message of these arrays takes."""
        return self.network.seconds(sum(a.nbytes for a in arrays)) if travels else 0.0

    def later(self, time: float, event: Callable[[], None]) -> None:
        """Has something happen at a time."""
        heapq.heappush(self.events, (time, next(self.serial), event))

    def resume(self, world: SimulatedWorld) -> None:
        """Has a rank go on when its clock's time has come."""
        heapq.heappush(self.ready, (world.now, world.rank))

    def leave(self) -> None:
        """Called in a rank: lets the others run, until somebody resumes it."""
        self.main.switch()

    def as_rank(self, world: SimulatedWorld, call: Callable[[], Any]) -> Any:
        """Calls something as if this rank did."""
        self.globals[world.rank].swap()
        try:
            with enter_world(world):
                return call()
        finally:
            self.globals[world.rank].swap()

    def run(self, main: Callable[[], Any]) -> list[Any]:
        """See `simulate`."""
        try:
            import greenlet
        except ImportError as error:
            raise RankError(f"simulate: expected the package greenlet, got '{error}'; pip install greenlet") from None
        self.main = greenlet.getcurrent()
        results: list[Any] = [None] * self.size
        ended: list[int] = []

        def body(world: SimulatedWorld) -> None:
            with enter_world(world):
                results[world.rank] = main()
            ended.append(world.rank)

        coroutines = []
        for world in self.worlds:
            coroutine = greenlet.greenlet(lambda world=world: body(world), self.main)
            coroutine.gr_context = contextvars.copy_context()
            coroutines.append(coroutine)
            self.resume(world)
        try:
            while len(ended) < self.size:
                if self.events and (not self.ready or self.events[0][0] <= self.ready[0][0]):
                    self.time, _, event = heapq.heappop(self.events)
                    event()
                elif self.ready:
                    self.time, rank = heapq.heappop(self.ready)
                    self.globals[rank].swap()
                    try:
                        coroutines[rank].switch()
                    except Exception as error:
                        error.add_note(f"in virtual rank {rank} of {self.size}")
                        raise
                    finally:
                        self.globals[rank].swap()
                else:
                    raise RankError(self.stuck(ended))
        finally:
            for coroutine in coroutines:
                if coroutine and not coroutine.dead:
                    coroutine.throw()
        return results

    def stuck(self, ended: list[int]) -> str:
        """Says where each rank is when none can go on."""
        places = [f"rank {w.rank} {'has ended' if w.rank in ended else 'is ' + w.place}" for w in self.worlds]
        return f"simulate: expected a rank that can go on, got none: {'; '.join(places)}"
