"""`python -m cogkit validate FILE...`: reads files whole and lists every fault; nothing is kept of what was read.

Text (CTF), HTK feature files, scripts of them, label files and prepared data sets are told apart by what is in them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cogkit.data import ctf_native
from cogkit.data.ctf import CTFDeserializer
from cogkit.data.format import MAGIC, open_dataset
from cogkit.data.htk import HEADER, check_header
from cogkit.data.htk_readers import HTKFeatureDeserializer, HTKMLFDeserializer
from cogkit.data.sequences import Fault, Joined, SequenceDeserializer, available_threads
from cogkit.data.streams import StreamDef, StreamDefs
from cogkit.errors import DataError

__all__ = ["kind_of", "validate"]

BLOCK = 1 << 22  # bytes of rows that are read at a time
Tick = Callable[[float], None]  # told the share that is done


def kind_of(path: str | os.PathLike[str]) -> str:
    """'prepared', 'mlf', 'htk', 'scp' or 'ctf', by the first bytes of a file. Raises DataError where there is none."""
    try:
        with open(path, "rb") as f:
            head, size = f.read(4096), os.fstat(f.fileno()).st_size
    except OSError as e:
        raise DataError(f"{os.fspath(path)}: expected a file to read, got {e.strerror}") from None
    if head.startswith(MAGIC):
        return "prepared"
    if head.lstrip().startswith(b"#!MLF!#"):
        return "mlf"
    if len(head) >= HEADER.size:
        count, _, width, _ = HEADER.unpack(head[: HEADER.size])
        if b"\0" in head[: HEADER.size] and count >= 0 and width > 0:  # text has no zeros; a cut file is one too
            return "htk"
    lines = [line for line in head.split(b"\n")[:3] if line.strip()]
    if lines and b"|" not in lines[0]:
        return "scp"
    return "ctf" if lines or not size else "scp"


def validate(
    paths: Sequence[str | os.PathLike[str]], states: str | os.PathLike[str] = "", period: float = 0.01, tick: Tick | None = None
) -> Iterator[Fault]:
    """Every fault of the files, each as soon as it is found; scripts and label files among them are also held against each other.

    `states`: the label names; without them a label may be any word. `tick` is told the share of the files that was read.
    """
    tick = tick or (lambda share: None)
    scripts: list[SequenceDeserializer] = []
    labels: list[SequenceDeserializer] = []
    total = sum(os.path.getsize(p) if os.path.exists(p) else 0 for p in paths) or 1
    done = 0
    for path in paths:
        name = os.fspath(path)
        size = os.path.getsize(name) if os.path.exists(name) else 0

        def part(share: float, done: int = done, size: int = size) -> None:
            tick((done + share * size) / total)

        try:
            kind = kind_of(name)
            if kind == "prepared":
                open_dataset(name, verify=True)
            elif kind == "htk":
                yield from _features(name, part)
            elif kind == "ctf":
                yield from _read(_open_text(name), part)
            elif kind == "scp":
                scripts.append(_open_script(name))
                yield from _read(scripts[-1], part)
            else:
                labels.append(_open_labels(name, states, period))
                yield from _read(labels[-1], part)
        except DataError as e:
            yield Fault(name, 0, 0, "", str(e))
        done += size
        tick(done / total)
    for script in scripts:
        for label in labels:
            known = {*script.faults, *label.faults}
            yield from (f for f in Joined([script, label]).faults if f not in known)
            keys = set(script.keys())  # type: ignore[arg-type]
            for i, key in enumerate(label.keys()):  # type: ignore[arg-type]
                if key not in keys:
                    yield Fault(
                        *label.place_of(i),
                        f"expected this key in {script.place_of(0)[0] if keys else 'the script'} too, got none",
                    )


def _read(d: SequenceDeserializer, tick: Tick) -> Iterator[Fault]:
    """Faults of a deserialiser, all of whose sequences are read, a block at a time."""
    yield from d.faults
    d.every_fault = True
    sizes = np.ones(d.count, np.int64)
    for name, info in d.streams.items():
        lengths = d.stream_lengths(name)
        width = 4 if info.storage_format == "sparse" else 4 * int(np.prod(info.shape))
        sizes += (1 if lengths is None else lengths.astype(np.int64)) * width
    begin = 0
    while begin < d.count:
        end = begin + max(1, int(np.searchsorted(np.cumsum(sizes[begin : begin + BLOCK]), BLOCK)))
        numbers = np.arange(begin, min(end, d.count))
        _, found = d.read_sequences(numbers, np.empty, available_threads(), True)
        yield from (f for _, f in found)
        begin = int(numbers[-1]) + 1
        tick(begin / d.count)


def _open_text(path: str) -> CTFDeserializer:
    """Text with all its streams; a stream is sparse, or as wide, as its first sample is."""
    fd = os.open(path, os.O_RDONLY)
    try:
        offsets, _, columns, faults = ctf_native.scan(fd, os.fstat(fd).st_size, available_threads())
        if faults:
            raise DataError(f"expected text with '|' and names of streams, got none at byte {faults[0][1]}")
        streams = {}
        for name, count in columns:
            i = int(np.argmax(count > 0))
            values = _first_sample(os.pread(fd, int(offsets[i + 1] - offsets[i]), int(offsets[i])), name)
            if values is not None:
                try:
                    streams[name.decode()] = StreamDef(shape=2**31 - 1 if values < 0 else values, is_sparse=values < 0)
                except UnicodeDecodeError:
                    continue  # the parser says where it is
    finally:
        os.close(fd)
    if not streams:
        raise DataError("expected lines of text with '|', the name of a stream and its numbers, got none")
    return CTFDeserializer(path, StreamDefs(**streams))


def _first_sample(text: bytes, name: bytes) -> int | None:
    """Numbers of a stream's first sample, -1 where it is sparse; None where there is nothing to count."""
    for line in text.split(b"\n"):
        for field in line.split(b"|")[1:]:
            words = field.split()
            if words and words[0] == name and len(words) > 1:
                return -1 if b":" in words[1] else len(words) - 1
    return None


def _open_script(path: str) -> SequenceDeserializer:
    """A script, with frames as wide as those of most of its files."""
    folder = os.path.dirname(os.path.abspath(path))
    widths: dict[int, int] = {}
    for line in Path(path).read_bytes().decode(errors="replace").splitlines()[:100]:
        given = line.strip().rsplit("=", 1)[-1].split("[")[0]
        for place in (given, os.path.join(folder, given.removeprefix(".../"))):
            if given and os.path.isfile(place):
                with open(place, "rb") as f:
                    head = f.read(HEADER.size)
                width = HEADER.unpack(head)[2] if len(head) == HEADER.size else 0
                widths[width] = widths.get(width, 0) + 1
                break
    dim = max(1, max(widths, key=lambda w: widths[w], default=4) // 4)
    return HTKFeatureDeserializer(StreamDefs(features=StreamDef(shape=dim, scp=path, context=(0, 0)))).parts[0]


def _open_labels(path: str, states: str | os.PathLike[str], period: float) -> SequenceDeserializer:
    """A label file; without names, all words in it are names."""
    if not states:
        with open(path, "rb") as f:
            words = {words[2] for line in f if len(words := line.split()) > 2 and _is_text(words[2])}
        stream = StreamDefs(labels=StreamDef(shape=max(1, len(words)), mlf=path))
        return HTKMLFDeserializer("", stream, period=period, names=sorted(words)).parts[0]
    with open(states, "rb") as f:
        classes = max(1, sum(1 for line in f if line.strip()))
    return HTKMLFDeserializer(states, StreamDefs(labels=StreamDef(shape=classes, mlf=path)), period=period).parts[0]


def _is_text(word: bytes) -> bool:
    try:
        word.decode()
    except UnicodeDecodeError:
        return False
    return True


def _features(path: str, tick: Tick) -> Iterator[Fault]:
    """Faults of one feature file."""
    with open(path, "rb") as f:
        count, _, width, kind = HEADER.unpack(f.read(HEADER.size))
        try:
            check_header(path, count, width, kind, os.fstat(f.fileno()).st_size)
        except DataError as e:
            yield Fault(path, 0, 0, "", str(e).split(": ", 1)[-1])
            if width % 4:
                return
        rows = max(1, BLOCK // width)
        for first in range(0, count, rows):
            frames = np.fromfile(f, ">f4", min(rows, count - first) * width // 4)
            for k in np.flatnonzero(~np.isfinite(frames)).tolist():
                at = HEADER.size + first * width + 4 * k
                yield Fault(path, at, 0, "", f"expected finite numbers, got {frames[k]} in frame {first + 4 * k // width}")
            tick((first + rows) / count)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if all files are sound, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m cogkit validate", description=__doc__.split("\n")[0])
    parser.add_argument("file", nargs="+", help="text (CTF), an HTK feature file, script or label file, or a prepared data set")
    parser.add_argument("--states", default="", help="the names of labels, one a line")
    parser.add_argument("--period", type=float, default=0.01, help="seconds of a frame of labels (default: 0.01)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    args = parser.parse_args(arguments)
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    faults = 0
    with Progress(console=console, transient=True, disable=args.quiet or not console.is_terminal) as progress:
        bar = progress.add_task("reading", total=1.0)
        for fault in validate(args.file, args.states, args.period, lambda share: progress.update(bar, completed=share)):
            faults += 1
            progress.console.file.flush()
            print(fault, flush=True)
    print(f"{faults} faults in {len(args.file)} files" if faults else f"{len(args.file)} files are sound", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
