"""Trains the workloads with cogkit and with PyTorch in turn and prints what each takes, beside what the arithmetic alone would.

Every measurement is a process of its own; rounds go A B A B; a number is the median of its rounds. It reports, it does not judge.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# a file beside this one, whether this is run as a package or loaded by its path
sys.path.append(os.path.dirname(os.path.abspath(__file__)))
from workloads import WORDS, padding_points  # noqa: E402

HERE = Path(__file__).resolve().parent
TORCH = "2.13.0"
WORKLOADS = ("mlp", "resnet20", "vgg13_fer", "lstm_speech", "rnn_past_value", *WORDS)
VARIANTS = {
    "mlp": ("eager", "compile"),
    "resnet20": ("eager", "channels_last", "compile", "compile_channels_last"),
    "vgg13_fer": ("eager", "channels_last", "compile", "compile_channels_last"),
    "lstm_speech": ("padded", "packed", "packed_sorted", "compile_padded"),
    "rnn_past_value": ("padded", "packed", "packed_sorted", "script_padded", "script_packed_sorted", "compile_padded"),
    "padding": ("padded", "packed", "packed_sorted"),
    **{name: ("sparse", "dense") for name in WORDS},
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
NO_TORCH = f"PyTorch not found: pip install torch=={TORCH} in an environment of its own and pass --torch"

Record = dict[str, Any]


class Bench:
    """Runs measurements in child processes and keeps what they found."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.env = dict(os.environ, PYTHONSAFEPATH="1", **dict.fromkeys(THREADS, str(options.threads)))
        self.failures: dict[str, str] = {}

    def child(self, what: str, command: list[str]) -> Record | None:
        """The record that a child prints last; None where it failed, and then why is remembered."""
        print(f"  {what} ...", end="\r", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=self.env, timeout=self.options.limit, check=False, cwd=HERE.parent
            )
            found = json.loads(done.stdout.strip().splitlines()[-1])
        except subprocess.TimeoutExpired:
            self.failures[what] = f"longer than {self.options.limit:g} s"
            return None
        except (IndexError, ValueError, OSError) as e:
            lines = (done.stderr if isinstance(e, (IndexError, ValueError)) else str(e)).strip().splitlines() or ["no output"]
            self.failures[what] = lines[-1][:200]
            return None
        print(f"  {what}: {time.perf_counter() - start:.0f} s" + " " * 20, file=sys.stderr, flush=True)
        return found

    def part(self, *arguments: str) -> Record | None:
        """One of parts.py."""
        return self.child(" ".join(arguments), [sys.executable, str(HERE / "parts.py"), *arguments])

    def workload(self, name: str) -> Record:
        """Rounds of every variant of one workload, in turn."""
        o = self.options
        seconds = str(o.seconds)
        commands = {"cogkit": [sys.executable, str(HERE / "workloads.py"), "cogkit", name, seconds]}
        if o.torch:
            for v in VARIANTS[name]:
                commands["torch " + v] = [*o.torch, str(HERE / "peers.py"), name, seconds, v]
        if o.cntk:
            commands["cntk"] = [*o.cntk, str(HERE / "workloads.py"), "cntk", name, seconds]
        rounds: dict[str, list[Record]] = {k: [] for k in commands}
        for r in range(o.rounds):
            for variant, command in commands.items():
                if r and not rounds[variant]:
                    continue  # it failed the first time
                found = self.child(f"{name} {variant} {r + 1}/{o.rounds}", command)
                if found:
                    rounds[variant].append(found)
        return {k: _middle(v) for k, v in rounds.items() if v}


def _middle(rounds: list[Record]) -> Record:
    """The median of each number; how far apart the rounds are is kept beside it."""
    out = {}
    for key, value in rounds[0].items():
        numbers = [r[key] for r in rounds]
        if isinstance(value, list):
            out[key] = [statistics.median(each) for each in zip(*numbers, strict=True)]
        else:
            out[key] = statistics.median(numbers) if isinstance(value, (int, float)) else value
    out["rounds_ms"] = [r["ms"] for r in rounds]
    return out


# what is printed ---------------------------------------------------------------------------------------------------------------


def _table(head: list[str], rows: list[list[str]], words: int = 1) -> str:
    """A table that is Markdown and is aligned for the terminal too: words in the first columns, then numbers."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        found = [c.ljust(w) if i < words else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "| " + " | ".join(found) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i < words else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *(line(r) for r in rows)])


def speed_table(results: Record, gflops: float | None) -> str:
    """Ours beside the best variant of PyTorch."""
    head = ["workload", "ours ms", "torch best ms", "(which)", "ratio", "ratio CPU", "CNTK ms", "CNTK ratio", "floor ms", "of peak",
            "peak MiB ours", "theirs", "samples/s"]  # fmt: skip
    rows = []
    for name, found in results.items():
        ours, operations = found.get("cogkit"), found.get("operations")
        theirs = {k[6:]: v for k, v in found.items() if k.startswith("torch ")}
        if ours is None:
            rows.append([name, "failed", *[""] * (len(head) - 2)])
            continue
        row = [name, f"{ours['ms']:.2f}"]
        if theirs:
            best = min(theirs, key=lambda k: theirs[k]["ms"])
            cpu = min(t["cpu_ms"] for t in theirs.values())
            row += [f"{theirs[best]['ms']:.2f}", best, f"{theirs[best]['ms'] / ours['ms']:.2f}", f"{cpu / ours['cpu_ms']:.2f}"]
        else:
            row += ["-"] * 4
        cntk = found.get("cntk")
        row += [f"{cntk['ms']:.2f}", f"{cntk['ms'] / ours['ms']:.2f}"] if cntk else ["-", "-"]
        floor = operations / gflops * 1e-6 if operations and gflops else None
        row += [f"{floor:.2f}", f"{floor / ours['ms']:.0%}"] if floor else ["-", "-"]
        row += [_memory(ours), min((_memory(t) for t in theirs.values()), key=lambda m: float(m.split()[0]), default="-")]
        rows.append([*row, f"{1e3 * ours['samples'] / ours['ms']:.0f}"])
    return _table(head, rows)


def padding_shares() -> list[float]:
    """How much of each minibatch of `padding` would be padding, were it an array as long as its longest sequence."""
    return [1 - sum(lengths) / (len(lengths) * max(lengths)) for _, lengths in padding_points()]


def padding_table(found: Record) -> str:
    """Milliseconds of each minibatch of `padding`, by who ran it, and what a frame takes of them."""
    who = [k for k in found if "each_ms" in found[k]]
    rows = []
    for i, ((what, lengths), share) in enumerate(zip(padding_points(), padding_shares(), strict=True)):
        ms = [found[k]["each_ms"][i] for k in who]
        frames = sum(lengths)
        row = [what, str(len(lengths)), str(max(lengths)), str(frames), f"{share:.0%}", *(f"{t:.1f}" for t in ms)]
        rows.append([*row, *(f"{1e3 * t / frames:.1f}" for t in ms)])
    head = ["lengths", "sequences", "longest", "frames", "padding", *(k + " ms" for k in who), *(k + " µs/frame" for k in who)]
    return _table(head, rows)


def padding_figure(found: Record, path: Path) -> None:
    """Time of a step against the share of padding, frames being equal, and against the frames, lengths being equal; written aside, renamed."""
    from matplotlib.figure import Figure

    points, shares = padding_points(), padding_shares()
    frames = [sum(lengths) for _, lengths in points]
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    families = {"one long": "o-", "ever shorter": "s--"}
    for k, (who, r) in enumerate((who, r) for who, r in found.items() if "each_ms" in r):
        ms = r["each_ms"]
        for family, style in families.items():
            at = [i for i, (what, _) in enumerate(points) if what in ("equal lengths", family)]
            label = f"{who}, {family}"
            left.plot([100 * shares[i] for i in at], [ms[i] for i in at], style, color=f"C{k}", label=label)
        at = sorted((i for i, (what, _) in enumerate(points) if what.endswith("equal lengths")), key=lambda i: frames[i])
        right.plot([frames[i] for i in at], [ms[i] for i in at], "o-", color=f"C{k}", label=who)
    left.set(xlabel="padding, % of the padded array", ylabel="ms a training step", title=f"{frames[0]} frames", yscale="log")
    right.set(xlabel="frames", ylabel="ms a training step", title="no padding", xlim=(0, None), ylim=(0, None))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="x-small")
    aside = path.with_name(path.name + ".part")
    figure.savefig(aside, format="svg")
    aside.replace(path)


def _memory(r: Record) -> str:
    return f"{r['peak_mib'] - r['import_mib']:.0f} (+{r['import_mib']:.0f})"


def variants_table(results: Record) -> str:
    """Every variant that ran."""
    rows = []
    for name, found in results.items():
        for variant, r in found.items():
            if isinstance(r, dict) and "rounds_ms" in r:
                spread = f"{min(r['rounds_ms']):.2f} .. {max(r['rounds_ms']):.2f}"
                ready = f"{r['ready_s']:.1f}"
                rows.append([name, variant, f"{r['ms']:.2f}", spread, f"{r['cpu_ms']:.2f}", _memory(r), ready, str(r["version"])])
    return _table(
        ["workload", "variant", "ms", "rounds", "CPU ms", "peak MiB (+import)", "s to the first step", "version"], rows, 2
    )


def parts_table(parts: Record) -> str:
    """What the parts of the engine cost."""
    rows = []

    def row(what: str, part: str, *texts: str) -> None:
        found = parts.get(part)
        rows.append([what, "; ".join(t.format(**found) for t in texts) if found else "failed"])

    row("peak, one matrix product of 1536", "peak", "{gflops:.0f} GFLOP/s")
    row("copy beyond the caches, read and written", "copy", "{gb_s:.1f} GB/s")
    row("executor, the smallest kernel there is", "executor", "{bare_us:.4f} µs an instruction")
    row("executor, a plan of {instructions} tiny instructions".format(**parts.get("executor") or {"instructions": "?"}), "executor",
        "{plan_us:.3f} µs an instruction with its work", "{run_us:.1f} µs a run beside them")  # fmt: skip
    for name in ("mlp", "resnet20"):
        row(f"train_minibatch beside its instructions, {name}", f"overhead {name}",
            "{python_us:.0f} µs ({instructions} instructions, {parameters} parameters)")  # fmt: skip
    for name in ("lstm_speech", "rnn_past_value"):
        found = parts.get(f"lengths {name}")
        again = "no" if found and not found["lowered_again"] else "YES, {lowered_again:.0f} times"
        row(f"lengths that are new to a plan, {name}", f"lengths {name}",
            "binding {bind_new_ms:.2f} ms, the first ever {bind_first_ms:.1f}, met before {bind_again_ms:.3f}",
            "feeding {feed_new_ms:.2f} ms, met before {feed_again_ms:.2f}",
            "step {step_new_ms:.2f} ms, met before {step_again_ms:.2f}, first ever {first_step_ms:.0f}", "lowered again: " + again)  # fmt: skip
    row("import cogkit", "startup", "{ms:.0f} ms, {cpu_ms:.0f} ms CPU", "NumPy's share {numpy_ms:.0f} ms")
    passes = "resolve and gradient {resolve_gradient_ms:.0f}, fuse {fuse_ms:.0f}, layout {layout_ms:.0f}, memory {memory_ms:.0f}"
    row("lowering of resnet20's training", "lowering resnet20", "{total_ms:.0f} ms", passes + ", kernels {bind_ms:.0f}")
    row("relu as a user's C function, of C.relu's time", "user_ops", "{ratio_64:.2f} of 64 numbers, {ratio_65536:.2f} of 65536,"
        " {ratio_1048576:.2f} of 1048576", "a user function in Python takes {python_64:.1f} µs")  # fmt: skip
    return _table(["part", "found"], rows, 2)


def pointwise_table(found: Record) -> str:
    """Programs of the pointwise machine."""
    return _table(["program over 32 MiB", "GB/s", "ms"], [[k, f"{r['gb_s']:.1f}", f"{r['ms']:.2f}"] for k, r in found.items()])


def products_table(name: str, found: Record, gflops: float | None) -> str:
    """Each product of a workload, equal ones together, slowest first."""
    sums: dict[tuple, list[float]] = {}
    for r in found["rows"]:
        if r["operations"]:
            shapes = " ".join("x".join(map(str, s)) for s in r["shapes"])
            s = sums.setdefault((r["what"], shapes, r["implementation"]), [0, 0.0, 0.0])
            s[0] += 1
            s[1] += r["ms"]
            s[2] += r["operations"]
    rows = []
    for (what, shapes, how), (count, ms, operations) in sorted(sums.items(), key=lambda kv: -kv[1][1]):
        rate = 1e-6 * operations / ms
        rows.append([what, shapes, f"{count:.0f}", f"{ms:.3f}", f"{rate:.0f}", f"{rate / gflops:.0%}" if gflops else "-", how])
    return f"{name}\n\n" + _table(["product", "shapes", "times", "ms", "GFLOP/s", "of peak", "implementation"], rows, 2)


def profile_table(name: str, found: Record) -> str:
    """All instructions of a workload, equal ones together, slowest first."""
    sums: dict[str, list[float]] = {}
    for r in found["rows"]:
        s = sums.setdefault(r["what"], [0, 0.0, 0.0, 0.0])
        for i, v in enumerate((1, r["ms"], r["operations"], r["bytes"])):
            s[i] += v
    total = sum(s[1] for s in sums.values())
    rows = []
    for what, (count, ms, operations, moved) in sorted(sums.items(), key=lambda kv: -kv[1][1]):
        short = what if len(what) <= 70 else what[:67] + "..."
        rate = f"{1e-6 * operations / ms:.0f}" if operations else ""
        rows.append([short, f"{count:.0f}", f"{ms:.3f}", f"{ms / total:.0%}", rate, f"{1e-6 * moved / ms:.1f}" if ms else ""])
    return f"{name}: {total:.2f} ms\n\n" + _table(["instruction", "times", "ms", "share", "GFLOP/s", "GB/s"], rows)


# the machine -------------------------------------------------------------------------------------------------------------------


def machine() -> Record:
    """What the numbers depend on beside the code."""
    model = platform.machine()
    with contextlib.suppress(OSError, AttributeError):
        model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text()).group(1)  # type: ignore[union-attr]
    try:
        git = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, cwd=HERE, check=True
        ).stdout.strip()
        commit = git + (" and edits" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version(), "commit": commit,
            "load_before": load, "date": time.strftime("%Y-%m-%d")}  # fmt: skip


def place(here: Record, folder: Path) -> Path:
    """Where results go: <machine>-<date>.md."""
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)|cpu|processor|@.*", " ", here["cpu"].lower())).strip("-")
    return folder / f"{slug}-{here['date']}.md"


def write(text: str, record: Record, folder: Path) -> Path:
    """The table and its numbers as <machine>-<date>.md and .json, each written aside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = place(record["machine"], folder)
    for target, content in ((path, text), (path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")):
        aside = target.with_name(target.name + ".part")
        aside.write_text(content, encoding="utf-8")
        aside.replace(target)
    return path


def _said(argv: list[str]) -> str:
    """The command line; where somebody's Pythons lie is left out."""
    return re.sub(r"(--(?:torch|cntk)[= ])\S+", r"\1PYTHON", " ".join(argv))


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    p.add_argument("workload", nargs="*", help=f"of {', '.join(WORKLOADS)} (default: all)")
    p.add_argument(
        "--torch", default=None, help=f"a Python that has torch (for the record: {TORCH}, CPU); default: this one if it has"
    )
    p.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    p.add_argument("--cntk", default=None, help="a Python (or a wrapper of one) that has CNTK 2.7")
    p.add_argument("--rounds", type=int, default=3, help="processes of each variant, in turn (default 3)")
    p.add_argument("--seconds", type=float, default=4.0, help="measured in each process (default 4)")
    p.add_argument("--threads", type=int, default=2, help="of everybody (default 2)")
    p.add_argument("--limit", type=float, default=900.0, help="seconds after which a process counts as failed")
    p.add_argument("--no-parts", action="store_true", help="workloads alone")
    p.add_argument("--parts", action="store_true", help="parts of the engine alone")
    p.add_argument("--padding", action="store_true", help="time against the share of padding alone")
    p.add_argument(
        "--readers", action="store_true", help="MB/s of the readers alone (python -m benchmarks.readers has more options)"
    )
    p.add_argument("--convolutions", action="store_true", help="GFLOP/s of each product of the workloads")
    p.add_argument("--profile", action="store_true", help="all instructions of the workloads")
    p.add_argument("--write", action="store_true", help="keep table and numbers in benchmarks/results")
    o = p.parse_args(argv)
    unknown = [w for w in o.workload if w not in WORKLOADS]
    if unknown:
        p.error(f"expected workloads of {', '.join(WORKLOADS)}, got {', '.join(unknown)}")
    o.torch = [] if o.no_torch else [o.torch] if o.torch else [sys.executable] if importlib.util.find_spec("torch") else []
    o.cntk = [o.cntk] if o.cntk else []
    bench, here = Bench(o), machine()
    names = o.workload or list(WORKLOADS)
    record: Record = {"machine": here, "threads": o.threads, "rounds": o.rounds, "seconds": o.seconds}
    text = [f"# Speed, {here['date']}", "",
            f"{here['cpu']}, {here['cores']} cores, {o.threads} threads; Python {here['python']}; commit {here['commit']}; load before "
            f"{here['load_before']:.1f}; `python -m benchmarks {_said(sys.argv[1:] if argv is None else argv)}`"]  # fmt: skip
    if here["load_before"] > 0.5:
        text += ["", "The machine was busy: numbers of wall time mean little, those of processor time and of --threads 1 more."]
    peak = bench.part("peak")
    gflops = peak["gflops"] if peak else None
    alone = o.parts or o.padding or o.readers or o.convolutions or o.profile
    if not alone:
        results = record["workloads"] = {}
        for name in names:
            results[name] = bench.workload(name)
            products = bench.part("profile", name)
            if products:
                results[name].update({k: products[k] for k in ("operations", "arena_mib", "held_mib")})
        text += ["", "## Training", "", speed_table(results, gflops), "",
                 "ratio: theirs / ours, above 1 we are faster; CPU: of processor time, least of theirs. floor: operations of the direct algorithms "
                 "at the measured peak; Winograd's does less, so that a share of peak may pass 100 %. samples: images, or frames of the sequences, "
                 "whose lengths are other ones in each minibatch. Peak memory beyond the import's (+import); "
                 "theirs: the least of all variants.", "", variants_table(results)]  # fmt: skip
        if not o.torch and not o.no_torch:
            text += ["", NO_TORCH]
    if o.convolutions or o.profile:
        for name in names:
            found = bench.part("profile", name)
            if found:
                record.setdefault("instructions", {})[name] = found
                text += ["", "## " + (products_table(name, found, gflops) if o.convolutions else profile_table(name, found))]
    if o.parts or not alone and not o.no_parts:
        parts = record["parts"] = {"peak": peak}
        for part in ("copy", "executor", "overhead mlp", "overhead resnet20", "lengths lstm_speech", "lengths rnn_past_value", "startup",
                     "lowering resnet20", "user_ops"):  # fmt: skip
            parts[part] = bench.part(*part.split())
        text += ["", "## Parts", "", parts_table(parts)]
        programs = record["pointwise"] = bench.part("pointwise")
        if programs:
            text += ["", "## Pointwise programs", "", pointwise_table(programs)]
    if o.padding or o.parts or not alone and not o.no_parts:
        found = record["padding"] = bench.workload("padding")
        text += ["", "## Padding", "", padding_table(found), "",
                 "One layer of 512 LSTM cells, 80 inputs, forward, backward and update. padding: of an array as long as the longest sequence. "
                 "The share grows at equal frames, then the frames at equal lengths."]  # fmt: skip
        if o.write and any("each_ms" in r for r in found.values()):
            figure = place(here, HERE / "results").with_suffix(".padding.svg")
            figure.parent.mkdir(parents=True, exist_ok=True)
            padding_figure(found, figure)
            text += ["", f"![time against padding]({figure.name})"]
    if o.readers:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "readers.json"
            command = [sys.executable, str(HERE / "readers.py"), "--rounds", str(o.rounds), "--json", str(file)]
            done = subprocess.run([*command, *(["--cntk", *o.cntk] if o.cntk else [])], stdout=subprocess.PIPE, text=True, env=bench.env,
                                  check=False)  # fmt: skip
            if done.returncode:
                bench.failures["readers"] = f"status {done.returncode}"
            else:
                record["readers"] = json.loads(file.read_text())
                text += ["", "## Readers", "", "```", done.stdout.rstrip(), "```"]
    if bench.failures:
        record["failures"] = bench.failures
        text += ["", "## Failed", "", *(f"- {k}: {v}" for k, v in bench.failures.items())]
    page = "\n".join(text) + "\n"
    print(page)
    if o.write:
        print(f"written: {write(page, record, HERE / 'results')}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
