"""One run: a feed-forward net on frames of speech, whose gradients ranks exchange in few bits.

Frames less the mean of training, divided by its deviation, with their neighbours; momentum SGD, learning rates for each frame.
"""

import functools
import hashlib

import numpy as np

import cogkit as C
from cogkit.data import (
    HTKFeatureDeserializer,
    HTKMLFDeserializer,
    MinibatchSource,
    StreamDef,
    StreamDefs,
    open_folder,
    read_features,
)
from cogkit.papers.one_bit_sgd.model import acoustic_model
from cogkit.papers.one_bit_sgd.speed import RANKS, speedups
from cogkit.papers.ranks import on_real_ranks, on_virtual_ranks
from cogkit.papers.training import PaperSession
from cogkit.parallel import current_world, data_parallel_distributed_learner

__all__ = ["METRICS", "run", "train"]

METRICS = {
    "frame_error": "frame error, %",
    "train_error": "training frame error, %",
    "bytes": "bytes sent by a rank, a minibatch",
    "speedup_2880": "modelled speed-up of 8 K20X, minibatch of 2,880",
    "speedup_16k": "modelled speed-up of 8 K20X, minibatch of 16k",
    "digest": "digest of the model",
}
TEST_BATCH = 8000  # frames
WORLDS = {"virtual": on_virtual_ranks, "real": on_real_ranks}


def run(row, data, out):
    """Trains one row, on virtual ranks of this process or on real ones; the numbers are those of the final model."""
    if row.world not in WORLDS:
        raise ValueError(f"one_bit_sgd: expected a world of {', '.join(WORLDS)}, got '{row.world}'")
    return WORLDS[row.world](row.ranks, train, row, data, out)


def train(row, data, out):
    """What each rank does. bytes: mean over ranks; digest: 48 bits that tell models of other bytes apart; speed-ups: see `speed`."""
    corpus, first = Corpus(data[0], row.context), current_world().is_main
    rates = [float(r) for r in row.rates.split()]
    frames, states = corpus.frames["train"], len(corpus.states)

    C.set_seed(row.seed)
    x, y = C.input_variable(corpus.width), C.input_variable(states, is_sparse=True)
    mean, inverse = statistics(data[0], row.context)
    z = acoustic_model((x - C.constant(mean)) * C.constant(inverse), states, row.layers, row.hidden)
    loss, error = C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)
    local = C.momentum_sgd(
        z.parameters,
        C.learning_parameter_schedule(rates, minibatch_size=1, epoch_size=frames),
        C.momentum_as_time_constant_schedule(row.momentum),
    )
    learner = data_parallel_distributed_learner(
        local, distributed_after=row.warm, num_quantization_bits=row.bits, error_feedback=row.feedback
    )
    trainer = C.Trainer(z, (loss, error), [learner])
    source = corpus.source("train", len(rates), row.seed)
    streams = {x: source.streams.features, y: source.streams.labels}

    def wrong(split: str) -> float:
        return 100.0 * sum(int((z.eval({x: u}).argmax(axis=1) != s).sum()) for u, s in corpus.all(split)) / corpus.frames[split]

    out.expect(len(rates) * frames)
    session = Counting(out, trainer, source, row.batch, streams, frames, lambda: {"dev_error": wrong("dev")} if first else {})
    if (found := out.resume()) is not None:
        session.resume(found[0])
        session.state.update(found[1])
    session.train()
    numbers = {"bytes": float(current_world().all_gather(np.array([session.state["bytes"]]), "bytes sent").mean())}
    if not first:
        return numbers
    bits = hashlib.blake2b(b"".join(p.value.tobytes() for p in z.parameters), digest_size=6).digest()
    numbers |= {"frame_error": wrong("test"), "train_error": out.curve[-1]["train_error"], "digest": int.from_bytes(bits, "big")}
    for ranks in RANKS:
        out.point(ranks=ranks, **speedups(row.bits, row.network, ranks))
    return numbers | speedups(row.bits, row.network)


class Counting(PaperSession):
    """Counts the bytes that this rank sends in a minibatch; in all but the first it is the same number."""

    def on_minibatch_start(self) -> None:
        self.sent = current_world().meter.bytes

    def on_minibatch_end(self) -> bool:
        if self.trainer.total_number_of_samples_seen > self.done:
            self.state["bytes"] = current_world().meter.bytes - self.sent
        return super().on_minibatch_end()


class Corpus:
    """A prepared folder of HTK files: frames with `context` neighbours on both sides, and their states."""

    def __init__(self, path, context: int):
        self.folder, self.context = open_folder(path), context
        self.states = self.folder["states.list"].read_text(encoding="utf-8").split()
        self.dim = self.folder.about["dim"]
        self.width = self.dim * (2 * context + 1)
        self.frames = {split: self.folder.about[split]["frames"] for split in ("train", "dev", "test")}

    def source(self, split: str, sweeps: int = 1, seed: int = 0) -> MinibatchSource:
        """Single frames; without a seed in the order of the script."""
        features = StreamDef(shape=self.dim, context=(self.context, self.context), scp=str(self.folder[f"{split}.scp"]))
        labels = StreamDef(shape=len(self.states), mlf=str(self.folder[f"{split}.mlf"]))
        return MinibatchSource(
            [
                HTKFeatureDeserializer(StreamDefs(features=features)),
                HTKMLFDeserializer(str(self.folder["states.list"]), StreamDefs(labels=labels)),
            ],
            max_sweeps=sweeps,
            randomize=bool(seed),
            randomization_seed=seed,
            frame_mode=True,
        )

    def all(self, split: str):
        """(frames with neighbours, states), many at a time."""
        source = self.source(split)
        while minibatch := source.next_minibatch(TEST_BATCH):
            yield minibatch[source.streams.features].asarray(), minibatch[source.streams.labels].asarray().indices


@functools.lru_cache(maxsize=1)
def statistics(path, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the frames of training, and 1 / their deviation, repeated for each neighbour; virtual ranks share them."""
    x = read_features(open_folder(path)["train.features"]).astype(np.float64)
    wide = 2 * context + 1
    mean, inverse = x.mean(axis=0), 1 / np.maximum(x.std(axis=0), 1e-6)
    return np.tile(mean, wide).astype(np.float32), np.tile(inverse, wide).astype(np.float32)
