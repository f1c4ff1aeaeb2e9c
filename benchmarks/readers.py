"""Reads the same files with cogkit and with CNTK 2.7, in turn: MB/s of a sweep, index included, and memory beside the corpus.

    PYTHONSAFEPATH= python -m benchmarks.readers --cntk PYTHON      PYTHON: one in which `import cntk` is CNTK 2.7

Files are made anew: text with frames of 80 numbers, text with sparse one-hot words, an HTK archive with frame labels; the same again
ten times as large for memory. Every measurement is a process of its own; rounds go A B A B; a number is the median of its rounds.
Readers run the same script, but for the name that they import. It reports, it does not judge.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse as sp

from cogkit.data import write_archive, write_ctf, write_mlf
from cogkit.data.ctf_native import format_rows

DIM, WORDS, TAGS, STATES = 80, 20000, 200, 500

# Runs under Python 3.6 too. {module} is cogkit or cntk.
WORKER = """
import json, resource, sys, time
import {module} as C
from {module}.{io} import *
kind, files, options = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start, cpu = time.perf_counter(), time.process_time()
if kind == "dense":
    parts = [CTFDeserializer(files[0], StreamDefs(f=StreamDef(field="f", shape={dim})))]
elif kind == "sparse":
    parts = [CTFDeserializer(files[0], StreamDefs(
        w=StreamDef(field="w", shape={words}, is_sparse=True), t=StreamDef(field="t", shape={tags}, is_sparse=True)))]
else:
    parts = [HTKFeatureDeserializer(StreamDefs(f=StreamDef(shape={dim}, context=(0, 0), scp=files[1]))),
             HTKMLFDeserializer(files[3], StreamDefs(l=StreamDef(shape={states}, mlf=files[2])))]
size = options.pop("size")
source = MinibatchSource(parts, max_sweeps=1, **options)
samples = sequences = 0
while True:
    batch = source.next_minibatch(size)
    if not batch:
        break
    first = batch[list(batch)[0]]
    samples += first.num_samples
    sequences += first.num_sequences
    del batch, first
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("\\n" + json.dumps(dict(seconds=seconds, cpu=time.process_time() - cpu, samples=samples, sequences=sequences,
                             peak=peak - imported)))
"""


def make(folder: Path, megabytes: float, kind: str) -> list[str]:
    """Files of a kind, about so large; a seed is all that they depend on."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    files = [str(folder / name) for name in ("corpus", "corpus.scp", "corpus.mlf", "corpus.states")]
    if kind == "dense":  # 9.9 bytes a number
        with open(files[0], "wb") as f:
            i = 0
            while f.tell() < megabytes * 1e6:
                n = int(rng.integers(50, 800))
                f.write(format_rows(rng.standard_normal((n, DIM), np.float32), b"%d |f" % i))
                i += 1
    elif kind == "sparse":
        write_ctf(files[0], words_and_tags(rng, int(megabytes * 1e6 / 22.5)))
    else:
        lengths = rng.integers(50, 800, max(4, int(megabytes * 1e6 / (4 * DIM) / 425)))
        keys = [f"speaker{i % 97}/utterance{i}" for i in range(len(lengths))]
        write_archive(
            files[0], ((k, rng.standard_normal((n, DIM), np.float32)) for k, n in zip(keys, lengths, strict=True)), files[1]
        )
        text = Path(files[1]).read_text().replace("=.../", f"={folder.resolve()}/")  # CNTK wants a folder there
        Path(files[1]).write_text(text)
        write_mlf(files[2], ((k, segments(rng, int(n))) for k, n in zip(keys, lengths, strict=True)))
        Path(files[3]).write_text("".join(f"s{i}\n" for i in range(STATES)))
    return files


def words_and_tags(rng: np.random.Generator, samples: int) -> Any:
    """Sequences of one-hot words and tags, as CSR."""
    while samples > 0:
        n = int(rng.integers(5, 40))
        samples -= n

        def one_hot(classes: int, n: int = n) -> sp.csr_matrix:
            return sp.csr_matrix((np.ones(n, np.float32), rng.integers(0, classes, n), np.arange(n + 1)), shape=(n, classes))

        yield {"w": one_hot(WORDS), "t": one_hot(TAGS)}


def segments(rng: np.random.Generator, frames: int) -> list[tuple[int, int, str]]:
    """Labels of an utterance, eight frames each."""
    return [(a, min(a + 8, frames), f"s{rng.integers(STATES)}") for a in range(0, frames, 8)]


def read(python: str, module: str, kind: str, files: list[str], options: dict[str, Any]) -> dict[str, float]:
    """What a child process found."""
    names = {
        "module": module,
        "io": "io" if module == "cntk" else "data",
        "dim": DIM,
        "words": WORDS,
        "tags": TAGS,
        "states": STATES,
    }
    script = WORKER
    for key, value in names.items():
        script = script.replace("{" + key + "}", str(value))
    env = dict(os.environ, PYTHONSAFEPATH="1")
    done = subprocess.run(
        [python, "-c", script, kind, json.dumps(files), json.dumps(options)],
        capture_output=True, text=True, env=env, cwd=os.path.dirname(files[0]), check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"benchmarks.readers: {module}, {kind}: {done.stderr.strip()[-800:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(arguments: list[str] | None = None) -> int:
    """Prints a line a corpus and order; exit status 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers", description=__doc__.split("\n")[0])
    parser.add_argument("--cntk", help="a Python in which `import cntk` is CNTK 2.7; without it cogkit is measured alone")
    parser.add_argument("--megabytes", type=float, default=100, help="of a corpus (default: 100)")
    parser.add_argument(
        "--times", type=int, default=10, help="how much larger the second corpus is, for memory; 1: none (default: 10)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=4096, help="samples a minibatch (default: 4096)")
    parser.add_argument("--folder", help="where the files are made (default: a temporary folder)")
    parser.add_argument("--json", help="a file for all that was measured")
    args = parser.parse_args(arguments)
    readers = {"cogkit": sys.executable} | ({"cntk": args.cntk} if args.cntk else {})
    measured = []
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs; MB/s of a whole sweep with its index; memory above imports"
    )
    print(
        f"{'corpus':8} {'order':8} {'MB':>6} {'cogkit MB/s':>12} {'CNTK MB/s':>10} {'ratio':>6} {'cogkit MiB':>11} {'CNTK MiB':>9}"
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as top:
        for kind in ("dense", "sparse", "htk"):
            for times in sorted({1, max(1, args.times)}):
                files = make(Path(top) / f"{kind}{times}", args.megabytes * times, kind)
                size = sum(os.path.getsize(f) for f in files if os.path.exists(f)) / 1e6
                for randomize in (False, True):
                    found: dict[str, list[dict[str, float]]] = {name: [] for name in readers}
                    for _ in range(args.rounds if times == 1 else 1):
                        for name, python in readers.items():
                            found[name].append(read(python, name, kind, files, {"size": args.size, "randomize": randomize}))
                    counts = {(r["samples"], r["sequences"]) for rs in found.values() for r in rs}
                    if len(counts) > 1:
                        raise SystemExit(f"benchmarks.readers: {kind}: expected readers to find the same samples, got {counts}")
                    speed = {n: size / statistics.median(r["seconds"] for r in rs) for n, rs in found.items()}
                    peak = {n: max(r["peak"] for r in rs) for n, rs in found.items()}
                    row = [f"{speed['cogkit']:.1f}", "-", "-", f"{peak['cogkit']:.0f}", "-"]
                    if args.cntk:
                        row[1:3], row[4] = (
                            [f"{speed['cntk']:.1f}", f"{speed['cogkit'] / speed['cntk']:.1f}"],
                            f"{peak['cntk']:.0f}",
                        )
                    widths = zip(row, (12, 10, 6, 11, 9), strict=True)
                    line = f"{kind:8} {'random' if randomize else 'in turn':8} {size:6.0f}"
                    print(line, *(f"{cell:>{width}}" for cell, width in widths), flush=True)
                    measured.append(
                        {"corpus": kind, "randomize": randomize, "mb": size, "speed": speed, "peak": peak, "rounds": found}
                    )
                for f in files:
                    Path(f).unlink(missing_ok=True)
    if args.json:
        Path(args.json).write_text(json.dumps(measured, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
