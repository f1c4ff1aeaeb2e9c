"""One run of a paper: started, stopped, continued and written down.

A paper's `train.py` has `run(row, data, out)`: `row` is its line of runs.csv, `data` the paths of its prepared data in the
sheet's order, `out` an `Out`. It returns the final numbers, one for each name in METRICS; None: this row has no such number.
"""

import fcntl
import importlib
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cogkit.papers
from cogkit.papers.provenance import Clock, command_line, describe, write_json
from cogkit.papers.sheets import Paper, Run, key_of

__all__ = ["Out", "Row", "Stopped", "run_once"]


class Stopped(Exception):
    """The run was asked to stop; its last checkpoint is on disk."""


class Row:
    """A line of runs.csv as attributes: row.profile, row.run, row.group, row.seed and every knob. It notes what was read."""

    def __init__(self, run: Run):
        self._values = {"profile": run.profile, "run": run.name, "group": run.group, "seed": run.seed} | dict(run.knobs)
        self._knobs, self._read, self._place = set(run.knobs), set(), f"papers/{run.paper}/runs.csv:{run.line}"

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            value = self._values[name]
        except KeyError:
            known = ", ".join(self._values)
            raise AttributeError(
                f"{self._place}: expected one of the columns {known}, got row.{name}; add the column to the sheet"
            ) from None
        self._read.add(name)
        return value

    @property
    def read(self) -> list[str]:
        """Columns that training has looked at."""
        return sorted(self._read)

    @property
    def unread(self) -> list[str]:
        """Knobs that training never looked at: a sheet that states them says nothing true about the run."""
        return sorted(self._knobs - self._read)


class Out:
    """What a run writes to: its learning curve, its checkpoints, its progress line.

    Everything lives in `folder`, outside the declared outputs of any workflow, so a killed run continues there.
    A checkpoint is a folder written aside and renamed: the curve, the counts and the state in it belong together.
    """

    def __init__(
        self, folder: Path, label: str = "", every: float = 30.0, stream=None, log: Path | None = None, about: dict | None = None
    ):
        self.folder, self.label, self.every, self.log = Path(folder), label, every, log
        self.about = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | (about or {})
        self.folder.mkdir(parents=True, exist_ok=True)
        self.curve: list[dict] = []
        self.samples = 0
        self.expected = 0
        self.exchanges: dict | None = None  # of a run on several ranks, where the time of a step went
        self.sittings: list[dict] = []
        self.stopping = False
        self.clock = Clock()
        self._saved = time.monotonic()
        self._count = 0
        self._wrote = False  # a checkpoint of its own, in which this sitting is
        self._start_samples, self._start = 0, time.monotonic()
        self._line = _ProgressLine(label, stream if stream is not None else sys.stderr, log)

    def expect(self, samples: int) -> None:
        """Samples that the whole run will train on: the 100 % of its progress line."""
        self.expected = int(samples)

    def advance(self, samples: int, **shown: float) -> None:
        """Counts trained samples; `shown` are the latest numbers for the progress line."""
        self.samples += int(samples)
        elapsed = time.monotonic() - self._start
        self._line.show(self.samples, self.expected, (self.samples - self._start_samples) / max(elapsed, 1e-9), shown)

    def point(self, **numbers: float) -> None:
        """One point of the learning curve; `epoch`, where given, is its x."""
        self.curve.append({"samples": self.samples} | {k: float(v) if isinstance(v, float) else v for k, v in numbers.items()})
        self._line.say("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.curve[-1].items()))

    def due(self) -> bool:
        """Whether to save now: `every` seconds have gone, or the run was asked to stop."""
        return self.stopping or time.monotonic() - self._saved >= self.every

    def save(self, write: Callable[[Path], object], **state) -> None:
        """`write(folder)` puts models and learners into a fresh folder; `state` is small and goes to JSON.

        Raises Stopped afterwards where the run was asked to stop, OSError where the disk is full (the last checkpoint stays).
        """
        name = f"at-{self._count + 1:06d}"
        aside = self.folder / f".{name}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            write(aside)
            content = {"samples": self.samples, "curve": self.curve, "state": state}
            write_json(aside / "out.json", content | {"sittings": [*self.sittings, self.sitting()]})
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        aside.rename(self.folder / name)
        _sync(self.folder)
        self._count += 1
        self._wrote = True
        for old in self._checkpoints()[:-1]:
            shutil.rmtree(old, ignore_errors=True)
        self._saved = time.monotonic()
        if self.stopping:
            raise Stopped(f"{self.label}: stopped at {self.samples} samples; the same command continues")

    def resume(self) -> tuple[Path, dict] | None:
        """(folder, state) of the last checkpoint, its curve and counts taken back; None where there is none."""
        found = self._checkpoints()
        if not found:
            return None
        content = json.loads((found[-1] / "out.json").read_text(encoding="utf-8"))
        self.curve, self.samples = content["curve"], content["samples"]
        if not self._wrote:
            self.sittings = content["sittings"]
            self.clock = Clock(sum(s["wall_s"] for s in self.sittings), sum(s["cpu_s"] for s in self.sittings))
        self._count = int(found[-1].name.split("-")[1])
        self._start_samples, self._start = self.samples, time.monotonic()
        self._line.say(f"continues at {self.samples} samples")
        return found[-1], content["state"]

    def close(self) -> None:
        self._line.close()

    def _checkpoints(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("at-*") if (p / "out.json").is_file())

    def sitting(self) -> dict:
        """This process's part of the run: since when, by which code, the time that it has spent."""
        wall, cpu = self.clock.wall - self.clock.wall_before, self.clock.cpu - self.clock.cpu_before
        return self.about | {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)}


class _ProgressLine:
    """One live line on a terminal; elsewhere a plain line every ten seconds. A log file gets the plain lines."""

    def __init__(self, label: str, stream, log: Path | None):
        self.label, self.stream = label, stream
        self.live = bool(getattr(stream, "isatty", lambda: False)())
        self.log = None
        if log is not None:
            Path(log).parent.mkdir(parents=True, exist_ok=True)
            self.log = Path(log).open("a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self._drawn, self._plain, self._width = 0.0, time.monotonic(), 0

    def show(self, samples: int, expected: int, rate: float, shown: dict) -> None:
        now = time.monotonic()
        if self.live and now - self._drawn >= 0.2:
            self._drawn = now
            self._draw(self._text(samples, expected, rate, shown, bar=True))
        if now - self._plain >= 10.0:
            self._plain = now
            text = self._text(samples, expected, rate, shown, bar=False)
            if not self.live:
                print(text, file=self.stream, flush=True)
            self._write(text)

    def say(self, text: str) -> None:
        text = f"{self.label}  {text}"
        if self.live:
            self._draw(text)
            self.stream.write("\n")
            self.stream.flush()
            self._width = 0
        else:
            print(text, file=self.stream, flush=True)
        self._write(text)

    def close(self) -> None:
        if self.live and self._width:
            self._draw("")
        if self.log is not None:
            self.log.close()
            self.log = None

    def _text(self, samples: int, expected: int, rate: float, shown: dict, bar: bool) -> str:
        words = [self.label]
        if expected:
            part = min(1.0, samples / expected)
            if bar:
                words.append("█" * round(20 * part) + "░" * (20 - round(20 * part)))
            words.append(f"{100 * part:3.0f} %")
        words += [f"{k} {v:.4g}" for k, v in shown.items()]
        words.append(f"{rate:,.0f} samples/s")
        if expected and rate > 0:
            left = max(0, expected - samples) / rate
            words.append(f"{int(left // 60)}:{int(left % 60):02d} left")
        return "  ".join(words)

    def _draw(self, text: str) -> None:
        wide = shutil.get_terminal_size((100, 24)).columns - 1
        text = text[:wide]
        self.stream.write("\r" + text + " " * max(0, self._width - len(text)) + ("" if text else "\r"))
        self.stream.flush()
        self._width = len(text)

    def _write(self, text: str) -> None:
        if self.log is not None:
            print(time.strftime("%H:%M:%S"), text, file=self.log, flush=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_training(paper: Paper):
    """The paper's train module, imported as cogkit.papers.<slug>.train, wherever its folder lies."""
    parent = str(paper.folder.resolve().parent)
    if parent not in [str(Path(p).resolve()) for p in cogkit.papers.__path__]:
        cogkit.papers.__path__.insert(0, parent)
    module = importlib.import_module(f"cogkit.papers.{paper.slug}.train")
    got = Path(module.__file__ or "").resolve().parent
    if got != paper.folder.resolve():
        raise ValueError(
            f"{paper.folder}: expected its train.py, got that of {got}; another paper of this name was imported first"
        )
    return module


def run_once(
    paper: Paper,
    row: Run,
    stamps: Sequence[dict],
    out: Path,
    work: Path = Path("build/papers"),
    log: Path | None = None,
    every: float | None = None,
) -> dict:
    """Trains one row and writes its record to `out`; continues where an earlier, killed call stopped.

    stamps: what the data step wrote for each data set of the row, in order. A row whose data is not there gets the record
    "not run" with the reason. Raises whatever training raises; then no record is written and the work folder stays.
    """
    record: dict = {"record": 1, **row.as_dict(), "metrics": paper.metrics, "code": paper.code}
    record["data_sha256"] = {f"{s['data']}:{s['size']}": s.get("sha256") for s in stamps}
    record["data_about"] = {f"{s['data']}:{s['size']}": s["about"] for s in stamps if s["available"]}
    absent = [f"{s['data']}: {s['reason']}" for s in stamps if not s["available"]]
    if absent:
        record |= {"status": "not run", "reason": "; ".join(absent), "results": {}, "curve": []}
        write_json(out, record)
        return record
    module = load_training(paper)
    key = key_of(row.as_dict(), paper.code, [s["sha256"] for s in stamps])
    folder = Path(work) / paper.slug / row.profile / f"{row.name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"{folder}: expected to be alone, but another process trains this run; wait for it or stop it"
            ) from None
        seconds = float(os.environ.get("COGKIT_CHECKPOINT_SECONDS", 30.0)) if every is None else every
        here = describe(paper.folder)
        about = {k: here[k] for k in ("commit", "tree", "threads")}
        target = Out(folder, f"{paper.slug} {row.name}", seconds, log=log, about=about)
        asked = Row(row)
        with _stopping(target):
            try:
                results = module.run(asked, tuple(Path(s["path"]) for s in stamps), target)
            finally:
                target.close()
        results = _check_results(paper, row, results)
        sittings = [*target.sittings, target.sitting()]
        wall, cpu = sum(s["wall_s"] for s in sittings), sum(s["cpu_s"] for s in sittings)
        record |= {
            "status": "done",
            "reason": "",
            "results": results,
            "curve": target.curve,
            "exchanges": target.exchanges,
            "knobs_not_read": asked.unread,
            "provenance": {
                **here,
                "command": command_line(),
                "started": sittings[0]["started"],
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "sittings": sittings,
                "wall_s": round(wall, 3),
                "cpu_s": round(cpu, 3),
                "samples": target.samples,
                "samples_per_second": round(target.samples / wall, 2) if wall else None,
            },
        }
        write_json(out, record)
    shutil.rmtree(folder, ignore_errors=True)
    return record


class _stopping:
    """While it lasts, the first Ctrl-C or TERM asks for a checkpoint and a stop; a second one ends at once."""

    def __init__(self, out: Out):
        self.out, self.before = out, {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: a test, or somebody's own loop
                continue

    def _ask(self, number, frame):
        if self.out.stopping:
            raise KeyboardInterrupt
        self.out.stopping = True

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _check_results(paper: Paper, row: Run, results) -> dict[str, float]:
    place = f"{paper.folder / 'train.py'}: run() of '{row.name}'"
    if not isinstance(results, dict) or set(results) != set(paper.metrics):
        got = ", ".join(results) if isinstance(results, dict) else type(results).__name__
        raise ValueError(f"{place}: expected a dict with {', '.join(paper.metrics)}, got {got}")
    numbers = {name: float(results[name]) for name in paper.metrics if results[name] is not None}
    # JSON has no NaN; a diverged run is a result, and its record must still open everywhere
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}  # type: ignore[misc]
