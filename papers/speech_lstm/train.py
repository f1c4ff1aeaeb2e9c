"""One run: an acoustic model on frames of speech, or several of them and the weighted mean of their posteriors.

Frames less the mean of training, divided by its deviation, with their neighbours; FSAdaGrad with momentum of 1,000 frames, learning rates for
each frame, gradients cut at 15 a frame, as in CNTK's AN4 example.
"""

import numpy as np

import cogkit as C
from cogkit.papers.speech import Speech
from cogkit.papers.speech_lstm.decode import PhoneLoop, phone_error, read_segments, read_transcripts
from cogkit.papers.speech_lstm.model import acoustic_model
from cogkit.papers.training import PaperSession

__all__ = ["METRICS", "run"]

METRICS = {
    "frame_error": "frame error, %",
    "phone_error": "phone error, %",
    "train_error": "training frame error, %",
    "parameters": "parameters",
}
CLIP = 15.0  # a frame
MOMENTUM = 1000  # frames
TEST_BATCH = 8000  # frames
WEIGHTS = (0.25, 0.5, 1.0, 2.0)  # of the bigram; the best on dev is taken
FLOOR = 1e-8  # under the mean of posteriors


def run(row, data, out):
    """Trains the systems of a row, one after the other; the numbers are those of the final models, and of all of them together.

    train_error: of the last epoch's minibatches as they were trained on, mean over the systems.
    """
    corpus = Corpus(data[0], row.context)
    names = row.systems.split()
    rates = [float(r) for r in row.rates.split()]
    size = {
        "dense": row.dense,
        "hidden": row.hidden,
        "activation": row.activation,
        "layers": row.layers,
        "cells": row.cells,
        "stabilize": row.stabilize,
    }
    feeding = {"seed": row.seed, "frames": row.frames, "batch": row.batch, "truncation": row.truncation}
    out.expect(len(names) * len(rates) * corpus.frames["train"])

    errors: list[float] = []
    at, state = out.resume() or (None, {})
    systems = []
    for k, name in enumerate(names):
        C.set_seed(row.seed)
        system = System(corpus, name, rates, size, feeding)
        systems.append(system)
        if k < state.get("system", 0):
            system.z.restore(str(at / names[k]))
            errors.append(state["errors"][k])
            continue
        errors.append(system.train(out, at if k == state.get("system", -1) else None, systems[:-1], errors))
    return {
        **score(corpus, systems),
        "train_error": sum(errors) / len(errors),
        "parameters": sum(int(np.prod(p.shape)) for s in systems for p in s.z.parameters),
    }


class Corpus(Speech):
    """A prepared folder of HTK files and what training must know of it."""

    def utterances(self, split: str):
        """(frames with neighbours, states) of each utterance, several at a time."""
        source = self.source(split, max_sweeps=1)
        while minibatch := source.next_minibatch(TEST_BATCH):
            x, y = (minibatch[s].as_sequences() for s in (source.streams.features, source.streams.labels))
            yield x, [np.asarray(s.argmax(axis=1)).ravel() for s in y]


class System:
    """One acoustic model and its training; a net without memory is trained on single frames in random order."""

    def __init__(self, corpus: Corpus, name: str, rates: list[float], size: dict, feeding: dict):
        self.corpus, self.name, self.rates, self.feeding = corpus, name, rates, feeding
        self.single = name == "dnn"
        variable = C.input_variable if self.single else C.sequence.input_variable
        self.x, self.y = variable(corpus.width), variable(len(corpus.states), is_sparse=True)
        x = corpus.normalised(self.x)
        self.z = acoustic_model(x, name, len(corpus.states), 2 * corpus.context + 1, **size)

    def train(self, out, resumed, before: list, errors: list[float]) -> float:
        """The error of the last epoch in per cent. A checkpoint holds the systems that were trained before, too."""
        frames, seed = self.corpus.frames["train"], self.feeding["seed"]
        loss, error = C.cross_entropy_with_softmax(self.z, self.y), C.classification_error(self.z, self.y)
        batch = self.feeding["frames" if self.single else "batch"]
        learner = C.fsadagrad(
            self.z.parameters,
            C.learning_parameter_schedule(self.rates, minibatch_size=1, epoch_size=frames),
            C.momentum_as_time_constant_schedule(MOMENTUM),
            gradient_clipping_threshold_per_sample=CLIP,
        )
        trainer = C.Trainer(self.z, (loss, error), [learner])
        options = {"frame_mode": True} if self.single else {"truncation_length": self.feeding["truncation"]}
        source = self.corpus.source("train", seed, max_sweeps=len(self.rates), **options)
        streams = {self.x: source.streams.features, self.y: source.streams.labels}
        session = PaperSession(
            out,
            trainer,
            source,
            batch,
            streams,
            frames,
            lambda: {"dev_error": self.frame_error("dev")},
            first=len(before) * len(self.rates),
            keep=lambda at: keep(at, before),
            system=len(before),
            errors=errors,
        )
        if resumed is not None:
            session.resume(resumed)
        session.train()
        return out.curve[-1]["train_error"]

    def log_posteriors(self, x: list[np.ndarray]) -> list[np.ndarray]:
        """(frames, states) of each utterance."""
        if self.single:
            ends = np.cumsum([len(u) for u in x])[:-1]
            scores = np.split(self.z.eval({self.x: np.concatenate(x)}), ends)
        else:
            scores = self.z.eval({self.x: x})
        return [s - np.logaddexp.reduce(s, axis=1, keepdims=True) for s in map(np.asarray, scores)]

    def frame_error(self, split: str) -> float:
        wrong = 0
        for x, y in self.corpus.utterances(split):
            wrong += sum(int((p.argmax(axis=1) != s).sum()) for p, s in zip(self.log_posteriors(x), y, strict=True))
        return 100.0 * wrong / self.corpus.frames[split]


def keep(at, systems: list[System]) -> None:
    """The models of the systems that were trained before, as part of a checkpoint."""
    for system in systems:
        system.z.save(str(at / system.name))


def mixture(posteriors: np.ndarray, rounds: int = 50) -> np.ndarray:
    """Weights (systems,) under which the true states are most likely, from what each system gives them (frames, systems), by EM."""
    weights = np.full(posteriors.shape[1], 1 / posteriors.shape[1])
    for _ in range(rounds):
        shares = posteriors * weights + FLOOR
        weights = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights


def score(corpus: Corpus, systems: list[System]) -> dict[str, float]:
    """Frame and phone error on test of the weighted mean of the systems' posteriors.

    Those weights are the most likely on dev, and that of the bigram has the lowest phone error there.
    """
    segments = read_segments(corpus.folder["train.mlf"])
    loop = PhoneLoop(corpus.states, segments.values(), read_transcripts(corpus.folder["train.phones"]).values())
    silence = corpus.folder.about["silence"]

    def posteriors(split: str):
        for x, y in corpus.utterances(split):
            parts = [[np.exp(p) for p in s.log_posteriors(x)] for s in systems]
            yield from zip(zip(*parts, strict=True), y, strict=True)

    def mean(parts) -> np.ndarray:
        return np.log(sum(w * p for w, p in zip(weights, parts, strict=True)) + FLOOR)

    true = {split: list(read_transcripts(corpus.folder[f"{split}.phones"]).values()) for split in ("dev", "test")}
    dev = list(posteriors("dev"))
    weights = mixture(np.concatenate([np.stack([p[range(len(y)), y] for p in parts], axis=1) for parts, y in dev]))
    scores = [mean(parts) for parts, _ in dev]
    best = min(WEIGHTS, key=lambda w: phone_error(zip(true["dev"], (loop.decode(p, w) for p in scores), strict=True), silence))
    wrong, found = 0, []
    for parts, states in posteriors("test"):
        p = mean(parts)
        wrong += int((p.argmax(axis=1) != states).sum())
        found.append(loop.decode(p, best))
    return {
        "frame_error": 100.0 * wrong / corpus.frames["test"],
        "phone_error": phone_error(zip(true["test"], found, strict=True), silence),
    }
