"""One run: an acoustic model that ranks train apart, a block at a time, after a warm start of one rank alone.

Frames less the mean of training, divided by its deviation, with their neighbours; momentum SGD, learning rates for each frame. Every run
of a sheet trains on the same frames, in the same order, from the same warm start.
"""

import copy
import functools
import hashlib

import numpy as np

import cogkit as C
from cogkit.data import FULL_DATA_SWEEP, MinibatchSource
from cogkit.papers.bmuf.model import acoustic_model
from cogkit.papers.ranks import on_real_ranks, on_virtual_ranks
from cogkit.papers.speech import Speech
from cogkit.papers.training import PaperSession
from cogkit.parallel import (
    SimulatedWorld,
    block_momentum_distributed_learner,
    bmuf_distributed_learner,
    current_world,
    model_averaging_distributed_learner,
)
from cogkit.parallel.cost_model import NETWORKS
from cogkit.parallel.delays import constant

__all__ = ["METRICS", "run", "train"]

METRICS = {
    "frame_error": "frame error, %",
    "train_error": "training frame error, %",
    "seconds": "virtual seconds after the warm start",
    "digest": "digest of the model",
}
TEST_BATCH = 8000  # frames
METHODS = {
    "sgd": lambda local, block: local,
    "ma": functools.partial(model_averaging_distributed_learner, reset_momentum=True),
    "classic": functools.partial(bmuf_distributed_learner, nesterov=False),
    "nesterov": bmuf_distributed_learner,
    "cntk": block_momentum_distributed_learner,
}


def run(row, data, out):
    """Trains one row: one rank alone for the first epochs, then virtual ranks of this process or real ones.

    train_error: of the last epoch's minibatches as they were trained on. seconds: of virtual ranks, by the row's costs and network.
    digest: 48 bits that tell models of other bytes apart.
    """
    if row.method not in METHODS:
        raise ValueError(f"bmuf: expected a method of {', '.join(METHODS)}, got '{row.method}'")
    if row.method == "sgd" and row.ranks > 1:
        raise ValueError(f"bmuf: expected one rank for sgd, got {row.ranks}")
    if row.world not in ("virtual", "real"):
        raise ValueError(f"bmuf: expected a world of virtual or real ranks, got '{row.world}'")
    delay, network = constant(row.fixed_us * 1e-6, row.frame_us * 1e-6), NETWORKS[row.network]
    found = out.resume()
    if found is None or found[1]["warming"]:
        warm_up(row, data, out, found)
    if row.world == "real":
        return on_real_ranks(row.ranks, train, row, data, out)
    return on_virtual_ranks(row.ranks, train, row, data, out, delay, network)


class System:
    """A model, its inputs and its data."""

    def __init__(self, row, path):
        self.row = row
        self.rates = [float(r) for r in row.rates.split()]  # one for each `epoch` frames, of all ranks together
        self.samples = len(self.rates) * row.epoch
        self.corpus = open_corpus(path, row.context, row.system == "dnn")
        C.set_seed(row.seed)
        variable = C.input_variable if self.corpus.single else C.sequence.input_variable
        self.x, self.y = variable(self.corpus.width), variable(len(self.corpus.states), is_sparse=True)
        x = self.corpus.normalised(self.x)
        self.z = acoustic_model(x, row.system, len(self.corpus.states), row.layers, row.width)

    def local_learner(self, rates: list[float]):
        return C.momentum_sgd(
            self.z.parameters,
            C.learning_parameter_schedule(rates, minibatch_size=1, epoch_size=self.row.epoch),
            C.momentum_schedule(self.row.momentum),
        )

    def session(self, out, learner, samples: int, first: int = 0, **state) -> "Session":
        """Trains until the source has given so many samples."""
        z, row = self.z, self.row
        trainer = C.Trainer(z, (C.cross_entropy_with_softmax(z, self.y), C.classification_error(z, self.y)), [learner])
        source = self.corpus.source("train", samples, row.seed)
        streams = {self.x: source.streams.features, self.y: source.streams.labels}
        size = row.batch * current_world().size
        return Session(self, out, trainer, source, size, streams, row.epoch, first, state)

    def frame_error(self, split: str) -> float:
        wrong = sum(int((self.scores(x).argmax(axis=1) != y).sum()) for x, y in self.corpus.all(split))
        return 100.0 * wrong / self.corpus.frames[split]

    def scores(self, x) -> np.ndarray:
        scores = self.z.eval({self.x: x})
        return np.concatenate(scores) if isinstance(scores, list) else np.asarray(scores)

    def digest(self) -> int:
        data = b"".join(p.value.tobytes() for p in self.z.parameters)
        return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "big")


def warm_up(row, data, out, found) -> None:
    """The epochs of one rank alone; at their end there is a checkpoint, from which all ranks begin."""
    system = System(row, data[0])
    out.expect(system.samples)
    learner = system.local_learner(system.rates)
    session = system.session(out, learner, max(1, row.warm * row.epoch), warming=True, position=None, seconds=0.0)
    if found is not None:
        session.resume(found[0])
    if row.warm:
        session.train()
    position = session.source.get_checkpoint_state()
    out.save(lambda folder: system.z.save(folder / "model"), warming=False, position=position)


def train(row, data, out):
    """What each rank does after the warm start."""
    system = System(row, data[0])
    world = current_world()
    out.expect(system.samples)
    learner = METHODS[row.method](system.local_learner(system.rates[row.warm :]), row.block * world.size)
    session = system.session(out, learner, system.samples, row.warm, warming=False, position=None, seconds=0.0)
    folder, state = out.resume()
    if state["position"] is None:
        session.resume(folder)
        session.state["seconds"] = state["seconds"]
    else:
        system.z.restore(folder / "model")
        session.source.restore_from_checkpoint(state["position"])
    if world.size > 1:
        learner.join()  # here, where it takes no time of the clock
    session.train()
    if not world.is_main:
        return {}
    return {
        "frame_error": system.frame_error("test"),
        "train_error": out.curve[-1]["train_error"],
        "seconds": session.seconds,
        "digest": system.digest(),
    }


class Session(PaperSession):
    """Adds up a virtual rank's time in minibatches and exchanges, without that of tests and checkpoints."""

    def __init__(self, system: System, out, trainer, source, size: int, streams: dict, epoch: int, first: int, state: dict):
        super().__init__(out, trainer, source, size, streams, epoch, self.test_now, first, **state)
        self.system, self.world = system, current_world()
        self.timed = isinstance(self.world, SimulatedWorld)

    def test_now(self) -> dict[str, float]:
        numbers = {"dev_error": self.system.frame_error("dev")} if self.world.is_main else {}
        return numbers | ({"seconds": self.seconds} if self.timed else {})

    @property
    def seconds(self) -> float | None:
        """Virtual time since the warm start; real ranks have none."""
        return round(self.state["seconds"], 6) if self.timed else None  # a clock that began anew rounds in other places

    def on_minibatch_start(self) -> None:
        self.begun = self.world.clock()

    def on_minibatch_end(self) -> bool:
        if self.timed:
            if not getattr(self.trainer.parameter_learners[0], "is_distributed", False):
                self.world.computed(self.trainer.previous_minibatch_sample_count)
            self.state["seconds"] += self.world.clock() - self.begun
        return super().on_minibatch_end()


class Corpus(Speech):
    """A prepared folder of HTK files; single: each frame for itself, in random order, else whole utterances. Virtual ranks share it."""

    def __init__(self, path, context: int, single: bool):
        super().__init__(path, context)
        self.single = single
        self.sources: dict[tuple, MinibatchSource] = {}

    def source(self, split: str, samples: int = FULL_DATA_SWEEP, seed: int = 0) -> MinibatchSource:
        """Frames with their neighbours, and their states; without a seed in the order of the script."""
        key = split, samples, seed
        if key not in self.sources:
            self.sources[key] = super().source(split, seed, max_samples=samples, frame_mode=self.single, prefetch=0)
        # what has been read is kept once for all virtual ranks; the position is the copy's own
        return copy.copy(self.sources[key])

    def all(self, split: str):
        """(what the model is fed, states of all its frames), many at a time."""
        source = self.source(split)
        while minibatch := source.next_minibatch(TEST_BATCH):
            x, y = minibatch[source.streams.features], minibatch[source.streams.labels]
            if self.single:
                yield x.asarray(), y.asarray().indices
            else:
                yield x.as_sequences(), np.concatenate([s.indices for s in y.as_sequences()])


@functools.lru_cache(maxsize=1)
def open_corpus(path, context: int, single: bool) -> Corpus:
    """A corpus that all virtual ranks share."""
    return Corpus(path, context, single)
