"""One run: a tagger on sentences, by the recipe of CNTK's language-understanding example.

Adam-like AdaGrad with momentum 0.9 a minibatch, learning rates for each sample (word), gradients cut at 15 a sample, minibatches of so
many words. CNTK counts an epoch as 36,000 words; here it is the training set.
"""

import numpy as np

import cogkit as C
from cogkit.data import CTFDeserializer, MinibatchSource, StreamDef, StreamDefs, open_folder
from cogkit.papers.atis.model import tagger
from cogkit.papers.atis.score import f1
from cogkit.papers.training import PaperSession

__all__ = ["METRICS", "run"]

METRICS = {
    "slot_error": "slot error per word, %",
    "slot_loss": "cross-entropy per word",
    "slot_f1": "slot F1, %",
    "parameters": "parameters",
}
CLIP = 15.0  # a sample
TEST_BATCH = 2000  # words


def run(row, data, out):
    """Trains one row; the numbers are those of the final model on all test sentences, whose BOS and EOS count as words."""
    folder = open_folder(data[0])
    names = folder["slots.wl"].read_text(encoding="utf-8").split()
    words, tags, tokens = folder.about["words"], len(names), folder.about["train"]["tokens"]
    rates = [float(r) for r in row.rates.split()]

    C.set_seed(row.seed)
    x, y = (C.sequence.input_variable(n, is_sparse=True) for n in (words, tags))
    z = tagger(x, row.model, tags, row.embed, row.cells, row.batch_norm)
    loss, error = C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)
    learner = C.fsadagrad(
        z.parameters,
        C.learning_parameter_schedule(rates, minibatch_size=1, epoch_size=tokens),
        C.momentum_schedule(row.momentum, minibatch_size=row.batch),
        gradient_clipping_threshold_per_sample=CLIP,
    )
    trainer = C.Trainer(z, (loss, error), [learner])

    source = sentences(folder["train.ctf"], words, tags, row.seed, len(rates))
    streams = {x: source.streams.query, y: source.streams.slots}
    out.expect(len(rates) * tokens)
    session = PaperSession(
        out, trainer, source, row.batch, streams, tokens, lambda: evaluate(z, loss, x, y, folder, words, names)
    )
    if (found := out.resume()) is not None:
        session.resume(found[0])
    session.train()
    last = {k: out.curve[-1][k] for k in ("slot_error", "slot_loss", "slot_f1")}
    return last | {"parameters": sum(int(np.prod(p.shape)) for p in z.parameters)}


def sentences(path, words: int, tags: int, seed: int, sweeps: int) -> MinibatchSource:
    """A source over one CTF file; without a seed in the order of the file."""
    streams = StreamDefs(
        query=StreamDef(field="S0", shape=words, is_sparse=True), slots=StreamDef(field="S2", shape=tags, is_sparse=True)
    )
    deserializer = CTFDeserializer(str(path), streams)
    return MinibatchSource(deserializer, max_sweeps=sweeps, randomize=bool(seed), randomization_seed=seed)


def evaluate(z, loss, x, y, folder, words: int, names: list[str]) -> dict[str, float]:
    """Error, loss and F1 on the test sentences."""
    source = sentences(folder["test.ctf"], words, len(names), 0, 1)
    streams = {x: source.streams.query, y: source.streams.slots}
    both = C.combine([z, loss])
    pairs, total, count, wrong = [], 0.0, 0, 0
    while minibatch := source.next_minibatch(TEST_BATCH, input_map=streams):
        got = both.eval({x: minibatch[x], y: minibatch[y]})
        for scores, true in zip(got[z.output], minibatch[y].as_sequences(y), strict=True):
            found, wanted = np.asarray(scores).argmax(axis=1), np.asarray(true.argmax(axis=1)).ravel()
            pairs.append(([names[k] for k in wanted], [names[k] for k in found]))
            wrong, count = wrong + int((found != wanted).sum()), count + len(found)
        total += sum(float(np.sum(v)) for v in got[loss.output])
    return {"slot_error": 100.0 * wrong / count, "slot_loss": total / count, "slot_f1": f1(pairs)}
