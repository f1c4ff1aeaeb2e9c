"""One run: a feed-forward net on frames of speech, with minibatches of one size, or of sizes that grow as long as the net learns as well.

Momentum SGD with rates for each frame and momentum of so many frames, which mean the same for every size.
"""

import cogkit as C
from cogkit.papers.parallelizability.model import acoustic_model
from cogkit.papers.parallelizability.speed import RANKS, break_even_of, pays_from, speedup_of
from cogkit.papers.speech import Frames
from cogkit.papers.training import PaperSession
from cogkit.parallel.minibatch_size import automatic_minibatch_size

__all__ = ["METRICS", "run"]

METRICS = {
    "frame_error": "frame error, %",
    "minibatch": "frames a minibatch, mean",
    "pays_from": "modelled Gbit/s from which 2 K20X pay, 32 bits",
    "break_even": "modelled K20X at break-even, 32 bits",
    "two_full": "modelled speed-up of 2 K20X, 32 bits",
    "eight_full": "modelled speed-up, 32 bits (table: 8 K20X)",
    "eight_one_bit": "modelled speed-up, 1 bit (table: 8 K20X)",
}


def run(row, data, out):
    """Trains one row; minibatch: frames over minibatches of the whole training. Speed-ups: see `speed`."""
    frames = Frames(data[0], row.context)
    rates, total = [float(r) for r in row.rates.split()], frames.frames["train"]

    C.set_seed(row.seed)
    x, y = C.input_variable(frames.width), C.input_variable(len(frames.states), is_sparse=True)
    z = acoustic_model(frames.normalised(x), len(frames.states), row.layers, row.hidden)
    learner = C.momentum_sgd(
        z.parameters,
        C.learning_parameter_schedule(rates, minibatch_size=1, epoch_size=total),
        C.momentum_as_time_constant_schedule(row.momentum),
    )
    trainer = C.Trainer(z, (C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)), [learner])
    source = frames.source("train", len(rates), row.seed)
    streams = {x: source.streams.features, y: source.streams.labels}
    size, search = row.first, {"samples": row.trial, "margin": row.margin, "frequency": row.search or None}
    if row.largest > row.first:
        size = automatic_minibatch_size(trainer, source, streams, row.first, row.largest, **search)
    out.expect(len(rates) * total)
    session = Sizes(out, trainer, source, size, streams, total, lambda: {"dev_error": frames.error(z, x, "dev")}, sizes={})
    if (found := out.resume()) is not None:
        session.resume(found[0])
        session.state.update(found[1])
    session.train()

    sizes = {int(k): n for k, n in session.state["sizes"].items()}
    mean = sum(sizes.values()) / sum(n / k for k, n in sizes.items())
    for ranks in RANKS:
        found = {name: speedup_of(sizes, bits, ranks, row.network) for name, bits in (("full", 32), ("one_bit", 1))}
        out.point(ranks=ranks, eight_full=found["full"], eight_one_bit=found["one_bit"])
    return {
        "frame_error": frames.error(z, x, "test"),
        "minibatch": mean,
        "pays_from": pays_from(mean, 32),
        "break_even": break_even_of(mean, 32, row.network),
        "two_full": speedup_of(sizes, 32, 2, row.network),
        "eight_full": speedup_of(sizes, 32, 8, row.network),
        "eight_one_bit": speedup_of(sizes, 1, 8, row.network),
    }


class Sizes(PaperSession):
    """Counts the frames that are trained with each size of minibatch."""

    def on_minibatch_start(self) -> None:
        self.wanted = self.get_minibatch_size()

    def on_minibatch_end(self) -> bool:
        n, sizes = self.trainer.total_number_of_samples_seen - self.done, self.state["sizes"]
        sizes[str(self.wanted)] = sizes.get(str(self.wanted), 0) + n
        return super().on_minibatch_end()
