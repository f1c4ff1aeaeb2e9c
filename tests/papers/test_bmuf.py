"""The folder of block momentum: ranks that are alone, virtual or real train alike; the virtual clock; a stop at any place."""

import dataclasses
from pathlib import Path

import pytest

from cogkit.errors import DataError
from cogkit.papers.bmuf.measure import measure
from cogkit.papers.bmuf.train import run
from cogkit.papers.datasets import prepare_data
from cogkit.papers.running import Out, Row, Stopped
from cogkit.papers.sheets import read_paper

PAPER = read_paper(Path(__file__).resolve().parents[2] / "papers" / "bmuf")


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    stamp = tmp_path_factory.mktemp("speech") / "speech.json"
    try:
        return Path(prepare_data("speech", "12,4", stamp, must=True)["path"])
    except DataError as error:
        pytest.skip(f"no speech: {error}")


@pytest.fixture
def train(speech, tmp_path):
    """train(name, **knobs): results of a smoke row with other knobs; `out` may be given."""

    def train(name: str, out: Out | None = None, **knobs):
        row = PAPER.find("smoke", name)
        row = dataclasses.replace(row, knobs={**row.knobs, **knobs})
        return run(Row(row), [speech], out or Out(tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"))

    return train


def test_alone_it_is_sgd(train):
    want = train("sgd-1-s1")
    for method in ("ma", "classic", "nesterov", "cntk"):
        assert train("sgd-1-s1", method=method) == want


def test_real_ranks_train_as_virtual_ones(train):
    real, virtual = train("real-2-s1"), train("real-2-s1", world="virtual")
    assert real.pop("seconds") is None and virtual.pop("seconds") > 0
    assert real == virtual


def test_the_clock_of_virtual_ranks(train):
    """1,024 frames after the warm start: 64 minibatches of 16 frames, on two ranks at the same time."""
    each = 100e-6 + 16 * 2e-6
    assert train("sgd-1-s1")["seconds"] == pytest.approx(64 * each, abs=1e-6)
    assert 32 * each < train("real-2-s1", world="virtual")["seconds"] < 34 * each


@pytest.mark.parametrize("calls", [3, 33])  # within the warm start, and after it
def test_a_stop_changes_nothing(train, tmp_path, calls):
    class Stopping(Out):
        asked = 0

        def due(self) -> bool:
            self.asked += 1
            self.stopping = self.asked >= calls
            return self.stopping

    with pytest.raises(Stopped):
        train("ma-3-s1", Stopping(tmp_path / "parts"), block=8)
    stopped = Out(tmp_path / "parts")
    got = train("ma-3-s1", stopped, block=8)
    whole = Out(tmp_path / "whole")
    assert got == train("ma-3-s1", whole, block=8) and stopped.curve == whole.curve


def test_measured_costs(speech, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work = measure(Row(PAPER.find("smoke", "sgd-1-s1")), speech, repeats=2)
    assert work.per_sample + work.fixed > 0 and work.values > 0


def test_what_is_no_run(train):
    with pytest.raises(ValueError, match="expected a method of sgd, ma, classic, nesterov, cntk, got 'easgd'"):
        train("sgd-1-s1", method="easgd")
    with pytest.raises(ValueError, match="expected one rank for sgd, got 2"):
        train("sgd-1-s1", ranks=2)
    with pytest.raises(ValueError, match="expected a world of virtual or real ranks, got 'dreamt'"):
        train("sgd-1-s1", world="dreamt")
