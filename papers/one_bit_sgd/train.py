"""One run: a feed-forward net on frames of speech, whose gradients ranks exchange in few bits.

Frames less the mean of training, divided by its deviation, with their neighbours; momentum SGD, learning rates for each frame.
"""

import hashlib

import numpy as np

import cogkit as C
from cogkit.papers.one_bit_sgd.model import acoustic_model
from cogkit.papers.one_bit_sgd.speed import RANKS, speedups
from cogkit.papers.ranks import on_real_ranks, on_virtual_ranks
from cogkit.papers.speech import Frames
from cogkit.papers.training import PaperSession
from cogkit.parallel import current_world, data_parallel_distributed_learner

__all__ = ["METRICS", "run", "train"]

METRICS = {
    "frame_error": "frame error, %",
    "train_error": "training frame error, %",
    "bytes": "bytes sent by a rank, a minibatch",
    "speedup_2880": "modelled speed-up, 2,880 a minibatch (table: 8 K20X)",
    "speedup_16k": "modelled speed-up, 16k a minibatch (table: 8 K20X)",
    "digest": "digest of the model",
}
WORLDS = {"virtual": on_virtual_ranks, "real": on_real_ranks}


def run(row, data, out):
    """Trains one row, on virtual ranks of this process or on real ones; the numbers are those of the final model."""
    if row.world not in WORLDS:
        raise ValueError(f"one_bit_sgd: expected a world of {', '.join(WORLDS)}, got '{row.world}'")
    return WORLDS[row.world](row.ranks, train, row, data, out)


def train(row, data, out):
    """What each rank does. bytes: mean over ranks; digest: 48 bits that tell models of other bytes apart; speed-ups: see `speed`."""
    frames, first = Frames(data[0], row.context), current_world().is_main
    rates, total = [float(r) for r in row.rates.split()], frames.frames["train"]

    C.set_seed(row.seed)
    x, y = C.input_variable(frames.width), C.input_variable(len(frames.states), is_sparse=True)
    z = acoustic_model(frames.normalised(x), len(frames.states), row.layers, row.hidden)
    loss, error = C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)
    local = C.momentum_sgd(
        z.parameters,
        C.learning_parameter_schedule(rates, minibatch_size=1, epoch_size=total),
        C.momentum_as_time_constant_schedule(row.momentum),
    )
    learner = data_parallel_distributed_learner(
        local, distributed_after=row.warm, num_quantization_bits=row.bits, error_feedback=row.feedback
    )
    trainer = C.Trainer(z, (loss, error), [learner])
    source = frames.source("train", len(rates), row.seed)
    streams = {x: source.streams.features, y: source.streams.labels}

    out.expect(len(rates) * total)
    session = Counting(
        out, trainer, source, row.batch, streams, total, lambda: {"dev_error": frames.error(z, x, "dev")} if first else {}
    )
    if (found := out.resume()) is not None:
        session.resume(found[0])
        session.state.update(found[1])
    session.train()
    numbers = {"bytes": float(current_world().all_gather(np.array([session.state["bytes"]]), "bytes sent").mean())}
    if not first:
        return numbers
    bits = hashlib.blake2b(b"".join(p.value.tobytes() for p in z.parameters), digest_size=6).digest()
    numbers |= {
        "frame_error": frames.error(z, x, "test"),
        "train_error": out.curve[-1]["train_error"],
        "digest": int.from_bytes(bits, "big"),
    }
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
