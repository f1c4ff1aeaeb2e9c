"""Runs on several ranks: real and virtual ones give the same, a stopped run goes on, what fails is named, nobody is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cogkit.errors import RankError
from cogkit.papers import ranks
from cogkit.papers.running import Stopped, run_once
from cogkit.papers.sheets import read_paper
from cogkit.papers.tables import EXCHANGES, exchanges
from cogkit.parallel import data_parallel_distributed_learner, simulate

pytest.importorskip("mpi4py")

TRAIN = '''"""Steps towards the mean of what ranks draw."""
import json
import os
import time

import numpy as np

from cogkit.papers.ranks import on_real_ranks, on_virtual_ranks
from cogkit.parallel import current_world

METRICS = {"error": "error, %", "size": "parameters"}


def run(row, data, out):
    return (on_real_ranks if row.world == "real" else on_virtual_ranks)(2, train, row, data, out)


def train(row, data, out):
    world, w, first = current_world(), np.zeros(3), 0
    out.expect(row.steps)
    if (found := out.resume()) is not None:
        w, first = np.array(json.loads((found[0] / f"w{world.rank}.json").read_text())), found[1]["step"]
    for step in range(first, row.steps):
        total = np.random.default_rng([row.seed, step, world.rank]).normal(size=3)
        world.all_reduce(total, "draws")
        w += 0.01 * (total + world.rank - w)
        time.sleep(row.pause)
        if step == row.fail and world.rank == 1:
            raise ValueError("rank 1 has had enough")
        out.advance(1)
        out.point(epoch=step, error=float(w[0]))
        if out.due():
            out.save(lambda at: (at / f"w{world.rank}.json").write_text(json.dumps(w.tolist())), step=step + 1)
    return {"error": float(world.all_gather(w, "ends").sum()), "size": 3}
'''
RUNS = "profile,run,group,data,seed,world,steps,pause,fail\n" + "".join(
    f"quick,{name},{name},none,1,{world},{steps},{pause},{fail}\n"
    for name, world, steps, pause, fail in (
        ("short", "virtual", 40, 0, -1),
        ("real", "real", 40, 0, -1),
        ("long", "virtual", 300, 0, -1),
        ("long-real", "real", 300, 0.02, -1),
        ("endless", "real", 100000, 0.02, -1),
        ("failing", "real", 40, 0, 30),
    )
)
EMPTY = {
    "claims_csv": "claim,profile,text,holds_if,test,confidence\n",
    "published_csv": "table,row,metric,data,value,std,runs,tag,source\n",
}
COMMAND = """
import sys
from pathlib import Path
from cogkit.papers.running import Stopped, run_once
from cogkit.papers.sheets import read_paper
paper, base = read_paper(Path(sys.argv[1])), Path(sys.argv[2])
try:
    run_once(paper, paper.find("quick", sys.argv[3]), [], base / "out.json", base / "work", every=0.0)
except Stopped:
    sys.exit(130)
"""


@pytest.fixture
def folder(write_paper, tmp_path, request):
    name = "".join(c for c in request.node.name if c.isalnum())
    return write_paper(tmp_path / name, train_py=TRAIN, runs_csv=RUNS, **EMPTY)


def once(folder, run, base, **more):
    paper = read_paper(folder)
    return run_once(paper, paper.find("quick", run), [], base / f"{run}.json", base / "work", **more)


def start(folder, base, run):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    return subprocess.Popen([sys.executable, "-c", COMMAND, str(folder), str(base), run], env=environment, start_new_session=True)


def checkpoints(base):
    return list((base / "work").glob("*/quick/*/at-*/out.json"))


def wait_until(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def processes_of(folder):
    """Processes whose command names a folder."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and str(folder) in Path(f"/proc/{entry}/cmdline").read_text(errors="replace"):
                found.append(int(entry))
        except OSError:
            continue
    return found


def test_a_record_says_where_time_goes():
    """Of a training with a distributed learner, on virtual ranks."""
    from parallel.nets import Net

    def main():
        net = Net()
        trainer = net.trainer(data_parallel_distributed_learner)
        assert ranks.exchanges("virtual") is None
        for i in range(4):
            trainer.train_minibatch(net.feed(i))
        return ranks.exchanges("virtual")

    told = simulate(main, 2)[0]
    assert (told["ranks"], told["kind"], told["steps"], told["ms"]["compute"]) == (2, "virtual", 4, 1000.0) and told[
        "bytes"
    ] > 1000
    (row,) = exchanges([{"group": "a", "exchanges": told}, {"group": "b"}, {"group": "a", "exchanges": told}])
    assert row[:4] == ["a", "2 virtual", "1,000", "1,000"] and len(row) == len(EXCHANGES)


def test_real_ranks_are_virtual_ones(folder, tmp_path):
    virtual, real = once(folder, "short", tmp_path), once(folder, "real", tmp_path)
    assert (virtual["results"], virtual["curve"]) == (real["results"], real["curve"])
    assert real["provenance"]["samples"] == 40 and real["knobs_not_read"] == []


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
def test_asked_to_stop_they_save_and_go_on_with_the_same_numbers(folder, tmp_path):
    process = start(folder, tmp_path, "long-real")
    wait_until(lambda: checkpoints(tmp_path))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not processes_of(tmp_path / "work")
    at = json.loads(checkpoints(tmp_path)[-1].read_text())["state"]["step"]
    assert 0 < at < 300
    again, whole = once(folder, "long-real", tmp_path, every=0.0), once(folder, "long", tmp_path)
    assert (again["results"], again["curve"]) == (whole["results"], whole["curve"])
    assert len(again["provenance"]["sittings"]) == 2


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGTERM, signal.SIGTERM]])
def test_nobody_is_left_behind(folder, tmp_path, signals):
    process = start(folder, tmp_path, "endless")
    wait_until(lambda: checkpoints(tmp_path))
    assert len(processes_of(tmp_path / "work")) >= 3  # launcher and ranks
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    process.wait(60)
    wait_until(lambda: not processes_of(tmp_path / "work"))


def test_a_rank_that_fails_ends_the_run(folder, tmp_path, capfd):
    with pytest.raises(RankError, match=r"failing: expected 2 ranks to train to the end, got exit status \d+; see above"):
        once(folder, "failing", tmp_path)
    assert "rank 1 has had enough" in capfd.readouterr().err
    assert not (tmp_path / "failing.json").exists()


def test_virtual_ranks_stop_together(folder, tmp_path, monkeypatch):
    def stop(out):
        out.stopping = True
        return True

    with monkeypatch.context() as patch:
        patch.setattr("cogkit.papers.running.Out.due", stop)
        with pytest.raises(Stopped):
            once(folder, "long", tmp_path)
    again = once(folder, "long", tmp_path)
    assert len(again["provenance"]["sittings"]) == 2 and again["curve"][-1]["epoch"] == 299


def test_without_a_launcher_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(ranks.shutil, "which", lambda *a, **k: None)
    with pytest.raises(RankError, match="found no mpiexec; pip install 'cogkit\\[parallel\\]'"):
        ranks.mpiexec()
