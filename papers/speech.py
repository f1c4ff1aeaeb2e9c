"""Prepared speech: frames and states of utterances, what is normalised by; for nets without memory single frames and their error."""

import functools
from collections.abc import Iterator
from pathlib import Path

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

__all__ = ["Frames", "Speech"]

TEST_BATCH = 8000  # frames


class Speech:
    """A prepared folder of HTK files: frames with `context` neighbours on both sides, and the states spoken.

    states: names; dim: numbers of a frame; width: the same with its neighbours; frames: how many each split has (train, dev, test).
    mean, inverse: of the frames of training, and 1 / their deviation, for a frame with its neighbours.
    """

    def __init__(self, path: Path | str, context: int):
        self.folder, self.context = open_folder(path), context
        self.states = self.folder["states.list"].read_text(encoding="utf-8").split()
        self.dim = self.folder.about["dim"]
        self.width = self.dim * (2 * context + 1)
        self.frames = {split: self.folder.about[split]["frames"] for split in ("train", "dev", "test")}
        self.mean, self.inverse = (np.tile(a, 2 * context + 1) for a in _statistics(str(path)))

    def normalised(self, x):
        """x less the mean of training, divided by its deviation."""
        return (x - C.constant(self.mean)) * C.constant(self.inverse)

    def source(self, split: str, seed: int = 0, **options) -> MinibatchSource:
        """`features` and `labels` in an order that goes by the seed; without a seed in the order of the script."""
        features = StreamDef(shape=self.dim, context=(self.context, self.context), scp=str(self.folder[f"{split}.scp"]))
        labels = StreamDef(shape=len(self.states), mlf=str(self.folder[f"{split}.mlf"]))
        return MinibatchSource(
            [
                HTKFeatureDeserializer(StreamDefs(features=features)),
                HTKMLFDeserializer(str(self.folder["states.list"]), StreamDefs(labels=labels)),
            ],
            randomize=bool(seed),
            randomization_seed=seed,
            **options,
        )


class Frames(Speech):
    """Single frames of it."""

    def source(self, split: str, sweeps: int = 1, seed: int = 0) -> MinibatchSource:
        """Frames in an order that goes by the seed; without a seed in the order of the script."""
        return super().source(split, seed, max_sweeps=sweeps, frame_mode=True)

    def error(self, z, x, split: str) -> float:
        """Frames of a split, in per cent, whose most probable state is wrong; z: scores of the states for x."""
        wrong = sum(int((z.eval({x: u}).argmax(axis=1) != s).sum()) for u, s in self._all(split))
        return 100.0 * wrong / self.frames[split]

    def _all(self, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        source = self.source(split)
        while minibatch := source.next_minibatch(TEST_BATCH):
            yield minibatch[source.streams.features].asarray(), minibatch[source.streams.labels].asarray().indices


@functools.lru_cache(maxsize=1)
def _statistics(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the frames of training and 1 / their deviation; virtual ranks share them."""
    x = read_features(open_folder(path)["train.features"]).astype(np.float64)
    return x.mean(axis=0).astype(np.float32), (1 / np.maximum(x.std(axis=0), 1e-6)).astype(np.float32)
