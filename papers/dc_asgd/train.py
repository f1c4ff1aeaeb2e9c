"""One run: a residual net on small images, trained by one worker, by several in step, or by several that do not wait for each other.

SGD without momentum, learning rates for the mean gradient of a minibatch; images padded by 4, cropped and flipped. All runs of a sheet
train on the same images in the same order; what differs is who computes a gradient at which model.
"""

import functools
import hashlib
import json

import numpy as np

import cogkit as C
from cogkit.data import ArrayDeserializer, MinibatchSource, StreamDef, StreamDefs, open_dataset, transforms
from cogkit.papers.dc_asgd.model import network
from cogkit.papers.provenance import write_json
from cogkit.papers.ranks import on_real_ranks, on_virtual_ranks
from cogkit.papers.running import Out
from cogkit.papers.training import PaperSession
from cogkit.parallel import (
    SimulatedWorld,
    asgd_distributed_learner,
    current_world,
    data_parallel_distributed_learner,
    dc_asgd_distributed_learner,
)
from cogkit.parallel.data_parallel import DataParallelLearner
from cogkit.parallel.delays import heavy_tailed

__all__ = ["METRICS", "run", "train"]

METRICS = {
    "test_error": "test error, %",
    "train_error": "training error, %",
    "train_loss": "loss on training images",
    "seconds": "virtual time, median minibatches",
    "digest": "digest of the model",
    "replay_digest": "digest of the model when the run is repeated",
}
METHODS = ("sgd", "ssgd", "asgd", "dc-asgd-c", "dc-asgd-a")
TEST_BATCH = 500


def run(row, data, out):
    """Trains one row: on virtual ranks, or on real ones, whose order of arrival virtual ranks then repeat.

    train_error: of the last epoch's minibatches as they were trained on; test_error and train_loss: of the final model. seconds: of
    virtual ranks. digest: 48 bits that tell models of other bytes apart.
    """
    _check(row)
    found = out.resume()
    begun = found[1]["minibatches"] if found else 0
    draw = heavy_tailed(1.0, row.tail, row.seed)

    def delay(rank: int, minibatch: int, samples: int) -> float:
        return draw(rank, begun + minibatch, samples)  # ranks count anew when they go on at a checkpoint

    if row.world == "virtual":
        return on_virtual_ranks(row.ranks, train, row, data, out, delay)
    results = on_real_ranks(row.ranks, train, row, data, out)
    order = json.loads((out.folder / "order.json").read_text(encoding="utf-8"))
    again = Out(out.folder / "again", f"{out.label} again", every=float("inf"))
    begun = 0
    repeated = on_virtual_ranks(row.ranks, functools.partial(train, order=order), row, data, again, delay)
    again.close()
    return results | {"replay_digest": repeated["digest"]}


def train(row, data, out, order=None):
    """What each rank does; order: of answers, from a run that is to be repeated."""
    world, rates = current_world(), [float(r) for r in row.rates.split()]
    task = Task(row, data[0])
    learner = make_learner(row, task.z.parameters, rates, order)
    trainer = C.Trainer(task.z, (task.loss, task.error), [learner])
    last = len(rates) * row.epoch
    source, streams = task.images("train", last, row.seed)
    arrivals = Arrivals(learner) if row.world == "real" and order is None else None
    out.expect(last)

    def test() -> dict[str, float]:
        return {"test_error": 100 * task.average("test", task.error)} if world.is_main else {}

    keep = None if arrivals is None else arrivals.write
    session = Session(out, trainer, source, row.batch * world.size, streams, row.epoch, test, keep=keep)
    if (found := out.resume()) is not None:
        session.resume(found[0])
        session.go_on(found[1])
        if arrivals is not None:
            arrivals.read(found[0])
    if world.size > 1:
        learner.join()  # here, where ranks have the same time: the order of arrivals is then that of a run without a stop
    session.train()
    if arrivals is not None:
        arrivals.write(out.out.folder if world.is_main else None)
    if not world.is_main:
        return {}
    return {
        "test_error": out.curve[-1]["test_error"],
        "train_error": out.curve[-1]["train_error"],
        "train_loss": task.average("train", task.loss),
        "seconds": session.seconds,
        "digest": task.digest(),
        "replay_digest": None,
    }


def make_learner(row, parameters, rates: list[float], order):
    """The learner of a row; ranks without a barrier meet after each epoch, which the curve and checkpoints need."""
    in_step, decay = row.method == "ssgd", row.decay
    size = row.batch * (row.ranks if in_step else 1)
    local = C.sgd(parameters, C.learning_parameter_schedule(rates, minibatch_size=size, epoch_size=row.epoch))
    if row.method == "sgd":
        return local
    if in_step:
        return data_parallel_distributed_learner(local)
    meet_every = row.epoch // (row.batch * row.ranks)
    if row.method == "asgd":
        return asgd_distributed_learner(local, meet_every=meet_every, order=order)
    adaptive = row.method == "dc-asgd-a"
    return dc_asgd_distributed_learner(local, row.lambda0, adaptive, decay, meet_every=meet_every, order=order)


def _check(row) -> None:
    """Raises ValueError for a row that says no sensible training."""
    if row.method not in METHODS or row.world not in ("virtual", "real"):
        raise ValueError(
            f"dc_asgd: expected a method of {', '.join(METHODS)} and a world of virtual, real; got '{row.method}', '{row.world}'"
        )
    if (row.method == "sgd") != (row.ranks == 1):
        raise ValueError(f"dc_asgd: expected one rank for sgd and several for the rest, got {row.ranks} for {row.method}")
    if row.world == "real" and row.method in ("sgd", "ssgd"):
        raise ValueError(f"dc_asgd: expected a method without a barrier on real ranks, got '{row.method}'")
    if row.lambda0 and not row.method.startswith("dc"):
        raise ValueError(f"dc_asgd: expected lambda0 of 0 where nothing is compensated, got {row.lambda0} for {row.method}")
    if row.epoch % (row.batch * row.ranks):
        raise ValueError(
            f"dc_asgd: expected an epoch of whole minibatches on {row.ranks} ranks, a multiple of {row.batch * row.ranks}; "
            f"got {row.epoch}"
        )


class Session(PaperSession):
    """Reads a virtual rank's clock, and counts its minibatches, over all sittings."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options, minibatches=0, seconds=0.0)
        self.world = current_world()
        self.timed = isinstance(self.world, SimulatedWorld)
        self.before = 0.0
        if self.world.size > 1 and not isinstance(self.trainer.parameter_learners[0], DataParallelLearner):
            self.out.agree = 1  # ranks without a barrier come to it once an epoch
        self.test_now, self.measure = self.measure, self.point

    def go_on(self, state) -> None:
        """Takes what a checkpoint says of the time before it."""
        self.state["minibatches"], self.before = state["minibatches"], state["seconds"]

    @property
    def seconds(self) -> float | None:
        """Virtual time since the beginning; real ranks have none."""
        return (
            round(self.before + self.world.clock(), 6) if self.timed else None
        )  # a clock that began anew rounds in other places

    def point(self) -> dict[str, float]:
        return self.test_now() | ({"seconds": self.seconds} if self.timed else {})

    def on_minibatch_end(self) -> bool:
        if self.timed and self.world.size == 1:
            self.world.computed(self.trainer.previous_minibatch_sample_count)
        self.state["minibatches"] += 1
        self.state["seconds"] = self.before + self.world.clock()
        return super().on_minibatch_end()


class Arrivals:
    """The order in which real ranks answer each other, over all sittings. All ranks call `write`; the first one's folder counts."""

    def __init__(self, learner):
        self.learner, self.earlier = learner, [[] for _ in range(current_world().size)]

    def write(self, folder) -> None:
        order = [before + now for before, now in zip(self.earlier, self.learner.recorded_order(), strict=True)]
        if current_world().is_main:
            write_json(folder / "order.json", order)

    def read(self, folder) -> None:
        """Takes the order up to a checkpoint."""
        self.earlier = json.loads((folder / "order.json").read_text(encoding="utf-8"))


class Task:
    """A net, and the images that it is trained and tested on."""

    def __init__(self, row, path):
        self.data, self.mean = open_dataset(path), mean_image(path)
        shape, self.classes = self.data["train"].features.shape[1:], len(self.data["train"].streams["labels"].classes)
        C.set_seed(row.seed)
        self.x, self.y = C.input_variable(shape), C.input_variable(self.classes)
        self.z = network(self.x, row.depth, row.width, self.classes, row.seed, row.stem_stride, row.bn_time_constant)
        self.loss, self.error = C.cross_entropy_with_softmax(self.z, self.y), C.classification_error(self.z, self.y)

    def images(self, split: str, samples: int, seed: int | None = None):
        """(source, streams by input): mean image taken off, about unit variance; with a seed in random order, padded, cropped, flipped."""
        steps = [transforms.normalize(self.mean, 1 / 64)] + ([] if seed is None else [transforms.pad_crop_flip(4)])
        labels = StreamDef(field="labels", shape=self.classes)
        streams = StreamDefs(features=StreamDef(field="features", transforms=steps), labels=labels)
        options = {"randomize": seed is not None, "randomization_seed": seed or 0, "prefetch": 0}
        source = MinibatchSource(ArrayDeserializer(self.data[split], streams), max_samples=samples, **options)
        return source, {self.x: source.streams.features, self.y: source.streams.labels}

    def average(self, split: str, function) -> float:
        """Of loss or error on a whole split, with the running statistics of batch normalisation."""
        samples, total, evaluator = self.data[split].count, 0.0, C.Evaluator(function)
        source, streams = self.images(split, samples)
        while minibatch := source.next_minibatch(TEST_BATCH, input_map=streams):
            total += evaluator.test_minibatch(minibatch) * minibatch[self.x].num_samples
        return total / samples

    def digest(self) -> int:
        data = b"".join(p.value.tobytes() for p in self.z.parameters)
        return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "big")


@functools.lru_cache(maxsize=1)
def mean_image(path) -> np.ndarray:
    """Of the images of training; virtual ranks share it."""
    return open_dataset(path)["train"].features.mean(axis=0, dtype=np.float64).astype(np.float32)
