"""Small corpora for the tests of readers."""

import numpy as np
from scipy import sparse as sp

from cogkit.data import (
    CTFDeserializer,
    HTKFeatureDeserializer,
    HTKMLFDeserializer,
    StreamDef,
    StreamDefs,
    write_archive,
    write_ctf,
    write_mlf,
)

LENGTHS = (3, 1, 7, 2, 9, 4, 1, 5)
STATES = ("sil", "a", "b", "č")


def sequences(seed=0, lengths=LENGTHS):
    """Dicts of f (n, 3) float32, l (n, 4) one-hot CSR, u (1, 2)."""
    rng = np.random.default_rng(seed)
    return [
        {
            "f": rng.standard_normal((n, 3), np.float32),
            "l": sp.csr_matrix(np.eye(4, dtype=np.float32)[rng.integers(0, 4, n)]),
            "u": rng.standard_normal((1, 2), np.float32),
        }
        for n in lengths
    ]


def text(path, items=None):
    """A CTF file and its deserialiser."""
    items = items or sequences()
    write_ctf(path, items)
    return items, CTFDeserializer(
        path, StreamDefs(f=StreamDef(shape=3), l=StreamDef(shape=4, is_sparse=True), u=StreamDef(shape=2))
    )


def speech(folder, lengths=LENGTHS, **stream):
    """An HTK archive with labels: ([(key, frames, labels)], deserialisers)."""
    rng = np.random.default_rng(1)
    items = [
        (f"spk{i % 2}/utt{i}", rng.standard_normal((n, 2), np.float32), rng.integers(0, 4, n)) for i, n in enumerate(lengths)
    ]
    write_archive(folder / "a.ark", ((k, f) for k, f, _ in items), folder / "a.scp")
    write_mlf(folder / "a.mlf", ((k, [(t, t + 1, STATES[c]) for t, c in enumerate(labels)]) for k, _, labels in items))
    (folder / "states").write_text("\n".join(STATES), encoding="utf-8")
    return items, open_speech(folder, **stream)


def open_speech(folder, **stream):
    """Deserialisers of such a folder."""
    stream = {"shape": 2, "scp": str(folder / "a.scp")} | stream
    return [
        HTKFeatureDeserializer(StreamDefs(f=StreamDef(**stream))),
        HTKMLFDeserializer(folder / "states", StreamDefs(l=StreamDef(shape=4, mlf=str(folder / "a.mlf")))),
    ]


def drain(source, size, **options):
    """All minibatches of a source, by stream name."""
    out = []
    while batch := source.next_minibatch(size, **options):
        out.append({info.name: data for info, data in batch.items()})
    return out
