"""`python -m cogkit convert ...`: HTK features and labels to text (CTF) and back, prepared data sets to text; a few sequences at a time."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse as sp

from cogkit.data.ctf import CTFDeserializer, write_ctf
from cogkit.data.format import open_dataset, write_aside
from cogkit.data.htk import write_archive, write_mlf
from cogkit.data.htk_readers import HTKFeatureDeserializer, HTKMLFDeserializer
from cogkit.data.sequences import Joined, available_threads
from cogkit.data.streams import StreamDef, StreamDefs
from cogkit.errors import DataError

__all__ = ["ctf_to_htk", "htk_to_ctf", "prepared_to_ctf"]

SAMPLES = 1 << 14  # read at a time


def sequences_of(joined: Joined) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, rows by stream) of all sequences in their order; DataError for the first fault."""
    if joined.faults:
        raise DataError(str(joined.faults[0]))
    sizes = np.ones(joined.count, np.int64) if joined.sizes is None else np.asarray(joined.sizes)
    begin = 0
    while begin < joined.count:
        end = begin + max(1, int(np.searchsorted(np.cumsum(sizes[begin : begin + SAMPLES]), SAMPLES)))
        places = np.arange(begin, min(end, joined.count))
        rows, faults = joined.read(places, np.zeros(len(places), np.int64), 0, np.empty, available_threads())
        if faults:
            raise DataError(str(faults[0][1]))
        at = dict.fromkeys(rows, 0)
        for k, place in enumerate(places.tolist()):
            sequence = {}
            for name, (value, lengths) in rows.items():
                n = 1 if lengths is None else int(lengths[k])
                sequence[name] = value[at[name] : at[name] + n]
                at[name] += n
            yield joined.key_of(place), sequence
        begin = int(places[-1]) + 1


def htk_to_ctf(
    scp: str | os.PathLike[str],
    out: str | os.PathLike[str],
    dim: int,
    mlf: str | os.PathLike[str] = "",
    states: str | os.PathLike[str] = "",
    classes: int = 0,
    context: tuple[int, int] = (0, 0),
    period: float = 0.01,
) -> None:
    """Text with the streams `features` and, from `mlf`, `labels` (sparse); sequence i is utterance i of the script. Raises DataError."""
    parts: list[Any] = [
        *HTKFeatureDeserializer(StreamDefs(features=StreamDef(shape=dim, scp=os.fspath(scp), context=context))).parts
    ]
    if mlf:
        if states and not classes:
            classes = sum(1 for line in Path(states).read_text(encoding="utf-8").splitlines() if line.strip())
        stream = StreamDefs(labels=StreamDef(shape=classes, mlf=os.fspath(mlf)))
        parts += HTKMLFDeserializer(states, stream, period=period).parts
    write_ctf(out, (rows for _, rows in sequences_of(Joined(parts))))


def ctf_to_htk(
    ctf: str | os.PathLike[str],
    out: str | os.PathLike[str],
    features: str,
    dim: int,
    labels: str = "",
    names: list[str] | None = None,
    classes: int = 0,
    period: float = 0.01,
) -> None:
    """`out`.ark and `out`.scp from the stream `features`; with `labels` (sparse or dense one-hot rows) `out`.mlf and `out`.states too.

    Keys are the ids of the sequences. `names` of the classes, by default their numbers. Raises ValueError, DataError.
    """
    out = os.fspath(out)
    streams = {"features": StreamDef(field=features, shape=dim)}
    if labels:
        names = names or [str(k) for k in range(classes)]
        if not names:
            raise ValueError("ctf_to_htk: expected classes=, how many labels there are, or their names=, got none")
        streams["labels"] = StreamDef(field=labels, shape=len(names), is_sparse=True)
    joined = Joined([CTFDeserializer(ctf, StreamDefs(**streams))])
    write_archive(f"{out}.ark", ((key, rows["features"]) for key, rows in sequences_of(joined)), f"{out}.scp", period)
    if labels:
        write_mlf(f"{out}.mlf", ((key, list(_segments(key, rows, names or []))) for key, rows in sequences_of(joined)), period)
        with write_aside(f"{out}.states") as aside:
            aside.write_text("".join(f"{name}\n" for name in names or []), encoding="utf-8")


def _segments(key: str, rows: Mapping[str, Any], names: list[str]) -> Iterator[tuple[int, int, str]]:
    """Runs of one label."""
    labels = rows["labels"]
    if (np.diff(labels.indptr) != 1).any():
        raise DataError(f"ctf_to_htk, sequence '{key}': expected one label a sample, got none or several")
    if labels.shape[0] != len(rows["features"]):
        raise DataError(
            f"ctf_to_htk, sequence '{key}': expected as many labels as frames ({len(rows['features'])}), got {labels.shape[0]}"
        )
    cuts = [0, *(np.flatnonzero(np.diff(labels.indices)) + 1).tolist(), labels.shape[0]]
    for a, b in zip(cuts, cuts[1:], strict=False):
        yield a, b, names[labels.indices[a]]


def prepared_to_ctf(path: str | os.PathLike[str], split: str, out: str | os.PathLike[str]) -> None:
    """Text of a split of a prepared data set: a sample a sequence, labels with classes as sparse one-hot rows. Raises DataError."""
    dataset = open_dataset(path)
    if split not in dataset:
        raise DataError(f"{os.fspath(path)}: expected a split {', '.join(dataset)}, got {split!r}")
    data = dataset[split]

    def samples() -> Iterator[dict[str, Any]]:
        for i in range(data.count):
            rows: dict[str, Any] = {}
            for name, stream in data.streams.items():
                value = data[name][i]
                if stream.classes:
                    rows[name] = sp.csr_matrix(([1.0], [int(value)], [0, 1]), shape=(1, len(stream.classes)))
                else:
                    rows[name] = np.reshape(value, (1, -1))
            yield rows

    write_ctf(out, samples())


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 1 with one message on stderr."""
    parser = argparse.ArgumentParser(prog="python -m cogkit convert", description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    h = kinds.add_parser("htk-to-ctf", help="a script of features, and labels, to text with the streams features and labels")
    h.add_argument("scp")
    h.add_argument("out")
    h.add_argument("--dim", type=int, required=True, help="numbers in a frame")
    h.add_argument("--mlf", default="", help="frame labels")
    h.add_argument("--states", default="", help="names of labels, one a line")
    h.add_argument("--classes", type=int, default=0, help="how many labels there are, where no names are given")
    h.add_argument(
        "--context", type=int, nargs=2, default=(0, 0), metavar=("LEFT", "RIGHT"), help="neighbours of a frame (default: 0 0)"
    )
    c = kinds.add_parser("ctf-to-htk", help="text to OUT.ark and OUT.scp, and OUT.mlf and OUT.states")
    c.add_argument("ctf")
    c.add_argument("out")
    c.add_argument("--features", required=True, help="the stream of frames")
    c.add_argument("--dim", type=int, required=True, help="numbers in a frame")
    c.add_argument("--labels", default="", help="the stream of labels")
    c.add_argument("--classes", type=int, default=0)
    c.add_argument("--states", default="", help="names of labels, one a line (default: their numbers)")
    p = kinds.add_parser("prepared-to-ctf", help="a split of a prepared data set to text")
    p.add_argument("file")
    p.add_argument("split")
    p.add_argument("out")
    for each in (h, c):
        each.add_argument("--period", type=float, default=0.01, help="seconds of a frame (default: 0.01)")
    a = parser.parse_args(arguments)
    try:
        if a.kind == "htk-to-ctf":
            htk_to_ctf(a.scp, a.out, a.dim, a.mlf, a.states, a.classes, tuple(a.context), a.period)
        elif a.kind == "ctf-to-htk":
            names = Path(a.states).read_text(encoding="utf-8").split() if a.states else None
            ctf_to_htk(a.ctf, a.out, a.features, a.dim, a.labels, names, a.classes, a.period)
        else:
            prepared_to_ctf(a.file, a.split, a.out)
    except (ValueError, OSError) as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
