"""Runs of papers on several ranks: virtual ones in this process, or real ones that MPI starts.

A paper's training is a function `train(row, data, out)` of its train.py, called on every rank; `cogkit.parallel.current_world()` is then
the rank's world, and `out` one of the rank's own: the first one's writes curve and checkpoints, and all save at the same minibatch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.engine.cpu.native import get_num_threads, set_num_threads
from cogkit.errors import RankError
from cogkit.papers.provenance import write_json
from cogkit.papers.running import Out, Row, Stopped, load_training
from cogkit.papers.sheets import read_paper
from cogkit.parallel import current_world, simulate
from cogkit.parallel.delays import Delay, Network

__all__ = ["RankOut", "on_real_ranks", "on_virtual_ranks"]

AGREE = 16  # minibatches after which ranks agree on whether to save
PATIENCE = 10.0  # seconds that ranks are given to end before they are killed

Training = Callable[[Row, Sequence[Path], Any], dict[str, float]]


class RankOut:
    """An `Out` for one of several ranks. All call `due` and `save` in the same minibatches; rank 0's numbers are what is written.

    `check()` is called on rank 0 whenever ranks agree: it may ask for a stop by setting `out.stopping`. agree: calls of `due` after which
    they do; 1 suits a training that calls it seldom.
    """

    def __init__(self, out: Out | None, check: Callable[[], None] = lambda: None):
        self.out, self.world, self._check = out, current_world(), check
        self.agree, self._asked = AGREE, 0

    @property
    def curve(self) -> list[dict]:
        """Points of rank 0; none on the others."""
        return [] if self.out is None else self.out.curve

    def expect(self, samples: int) -> None:
        """See `Out.expect`."""
        if self.out is not None:
            self.out.expect(samples)

    def advance(self, samples: int, **shown: float) -> None:
        """See `Out.advance`."""
        if self.out is not None:
            self.out.advance(samples, **shown)

    def point(self, **numbers: float) -> None:
        """See `Out.point`."""
        if self.out is not None:
            self.out.point(**numbers)

    def due(self) -> bool:
        """Whether to save now, the same on all ranks: they agree on it every `agree` calls."""
        self._asked += 1
        if self._asked % self.agree:
            return False
        due = False
        if self.out is not None:
            self._check()
            due = self.out.due()
        return bool(self.world.all_gather(np.array([due]), "is a checkpoint due")[0, 0])

    def save(self, write: Callable[[Path], object], **state) -> None:
        """See `Out.save`; `write` is called on every rank, with the same folder."""
        stopping = False
        if self.out is not None:
            stopping = self.out.stopping

            def together(folder: Path) -> None:
                self.world.all_gather_bytes(json.dumps([str(folder.resolve()), stopping]).encode(), "folder of a checkpoint")
                self._written(write, folder)

            self.out.save(together, **state)
        else:
            told, stopping = json.loads(self.world.all_gather_bytes(b"", "folder of a checkpoint")[0])
            self._written(write, Path(told))
        if stopping:
            raise Stopped(f"rank {self.world.rank}: stopped")

    def _written(self, write: Callable[[Path], object], folder: Path) -> None:
        """Writes this rank's part; returns when all have, raises on all where one could not."""
        error: Exception | None = None
        try:
            write(folder)
        except Exception as e:
            error = e
        self.world.agree(error, f"checkpoint {folder.name}")

    def resume(self) -> tuple[Path, dict] | None:
        """See `Out.resume`: the same on all ranks."""
        found = None if self.out is None else self.out.resume()
        told = json.dumps(found and [str(found[0].resolve()), found[1]]).encode()
        told = json.loads(self.world.all_gather_bytes(told if self.out is not None else b"", "last checkpoint")[0])
        return told and (Path(told[0]), told[1])


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    """So many threads of the engine in a block."""
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def _share(ranks: int) -> int:
    """Threads of each of several ranks, real or virtual: bits may depend on them."""
    return max(1, get_num_threads() // ranks)


def on_virtual_ranks(
    ranks: int,
    train: Training,
    row: Row,
    data: Sequence[Path],
    out: Out,
    delay: Delay | None = None,
    network: Network | None = None,
) -> dict[str, float]:
    """What `train` returns on the first of so many virtual ranks of this process; see `cogkit.parallel.simulate`."""

    def main() -> dict[str, float]:
        results = train(row, data, RankOut(None if current_world().rank else out))
        if current_world().is_main:
            out.exchanges = exchanges("virtual")
        return results

    with _threads(_share(ranks)):
        return simulate(main, ranks, delay, network, row.seed)[0]


def exchanges(kind: str) -> dict[str, Any] | None:
    """Where the time of a step of this rank went (of virtual ranks: virtual time), and the bytes of it; None: it exchanged nothing."""
    world = current_world()
    told = world.meter.spent()
    return {"ranks": world.size, "kind": kind, **told.record()} if told.steps and told.bytes else None


def mpiexec() -> str:
    """The launcher beside this Python, else that of the path. Raises RankError where it or mpi4py is missing."""
    found = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")
    missing = [name for name, there in (("mpiexec", found), ("mpi4py", importlib.util.find_spec("mpi4py"))) if not there]
    if missing or found is None:
        raise RankError(
            f"this run trains on real ranks: expected mpi4py and a launcher of MPI, found no {' and no '.join(missing)}; "
            "pip install 'cogkit[parallel]', or make build in a checkout"
        )
    return found


def on_real_ranks(ranks: int, train: Training, row: Row, data: Sequence[Path], out: Out) -> dict[str, float]:
    """What `train`, a function of a paper's train.py, returns on the first of so many processes that MPI starts.

    They continue where an earlier call stopped. Raises Stopped where the run was asked to stop and they have saved; RankError where they
    fail, with what they said last.
    """
    launcher = mpiexec()
    result, stop = out.folder / "ranks.json", out.folder / "stop"
    for old in (result, stop):
        old.unlink(missing_ok=True)
    if out.resume() is not None:
        out.curve = []  # the ranks' own count: what they have is taken at the end
    spec = {
        "paper": str(Path(sys.modules[train.__module__].__file__ or "").resolve().parent),
        "train": train.__name__,
        "profile": row.profile,
        "run": row.run,
        "data": [str(Path(p).resolve()) for p in data],
        "folder": str(out.folder.resolve()),
        "label": out.label,
        "every": out.every,
        "log": None if out.log is None else str(out.log.resolve()),
        "about": out.about,
        "parent": os.getpid(),
    }
    write_json(out.folder / "spec.json", spec)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMPI_", "HYDI_"))}
    environment |= {"OMP_NUM_THREADS": str(_share(ranks)), "OMP_WAIT_POLICY": "passive", "PYTHONSAFEPATH": "1"}
    words = [launcher, "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", "cogkit.papers.ranks"]
    # A session of its own: Ctrl-C comes to this process alone, which has the ranks save and end.
    process = subprocess.Popen([*words, str(out.folder / "spec.json")], env=environment, start_new_session=True)
    try:
        while process.poll() is None:
            if out.stopping:
                stop.touch()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
    finally:
        _end(process)
    if process.returncode or not result.is_file():
        raise RankError(
            f"{out.label}: expected {ranks} ranks to train to the end, got exit status {process.returncode}; see above"
        )
    said = json.loads(result.read_text(encoding="utf-8"))
    for name in said["read"]:
        getattr(row, name)
    if said["stopped"]:
        raise Stopped(said["stopped"])
    out.curve, out.samples, out.exchanges = said["curve"], said["samples"], said["exchanges"]
    return said["results"]


def _end(process: subprocess.Popen) -> None:
    """Ends a launcher with all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)


def main(spec_file: str) -> None:
    """One real rank of a run."""
    spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    paper = read_paper(spec["paper"])
    row = Row(paper.find(spec["profile"], spec["run"]))
    train = getattr(load_training(paper), spec["train"])
    folder = Path(spec["folder"])
    first = current_world().is_main
    out = None
    if first:
        out = Out(folder, spec["label"], spec["every"], log=spec["log"] and Path(spec["log"]), about=spec["about"])

    def check() -> None:
        assert out is not None
        if (folder / "stop").exists():
            out.stopping = True
        if not _lives(spec["parent"]):
            raise RankError(f"{spec['label']}: expected process {spec['parent']}, which started these ranks, got its end")

    said: dict[str, Any] = {"results": {}, "stopped": ""}
    try:
        said["results"] = train(row, [Path(p) for p in spec["data"]], RankOut(out, check))
    except Stopped as stopped:
        said["stopped"] = str(stopped)
    if out is not None:
        out.close()
        own = {"read": row.read, "curve": out.curve, "samples": out.samples, "exchanges": exchanges("real")}
        write_json(folder / "ranks.json", said | own)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    main(sys.argv[1])
