"""The DC-ASGD folder: its net has the paper's size, runs that were stopped end alike, real orders of arrival are repeated."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from parallel.ranks import mpiexec

import cogkit as C
from cogkit.errors import DataError
from cogkit.papers.datasets import prepare_data
from cogkit.papers.dc_asgd.model import network
from cogkit.papers.running import Out, Row, Stopped, load_training
from cogkit.papers.sheets import read_paper

PAPER = read_paper(Path(__file__).resolve().parents[2] / "papers" / "dc_asgd")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    try:
        stamp = prepare_data("fashion_c32", "512,128", tmp_path_factory.mktemp("data") / "images.json", must=True)
    except DataError as error:
        pytest.skip(f"no images: {error}")
    return [Path(stamp["path"])]


def row(name: str, **knobs) -> Row:
    found = PAPER.find("smoke", name)
    assert set(knobs) <= set(found.knobs)
    return Row(dataclasses.replace(found, knobs=found.knobs | knobs))


def train(row, images, folder, stop=False):
    out = Out(folder, every=float("inf"))
    out.stopping = stop
    if stop:
        with pytest.raises(Stopped):
            load_training(PAPER).run(row, images, out)
        return None
    return load_training(PAPER).run(row, images, out)


def test_parameters():
    z = network(C.input_variable((3, 32, 32)), 20, 16, 10, 1)
    assert sum(int(np.prod(p.shape)) for p in z.parameters) == 269_722  # ResNet-20
    with pytest.raises(ValueError, match="expected a depth of 6n \\+ 2 .*, got 18"):
        network(C.input_variable((3, 32, 32)), 18, 16, 10, 1)


@pytest.mark.parametrize("method", ["asgd", "dc-asgd-a"])
def test_a_stop_changes_nothing(method, images, tmp_path):
    asked = row("asgd-3-s1", method=method, lambda0=2.0 * (method != "asgd"))
    whole = train(asked, images, tmp_path / "whole")
    train(asked, images, tmp_path / "parts", stop=True)
    assert train(asked, images, tmp_path / "parts") == whole


def test_a_real_run_that_was_stopped_is_repeated(images, tmp_path):
    mpiexec()
    asked = row("real-dc-asgd-a-2-s1")
    train(asked, images, tmp_path, stop=True)
    found = train(asked, images, tmp_path)
    assert found["digest"] == found["replay_digest"] and found["seconds"] is None


@pytest.mark.parametrize(
    ("name", "knobs", "words"),
    [
        ("asgd-3-s1", {"method": "sgd"}, "one rank for sgd"),
        ("asgd-3-s1", {"method": "easgd"}, "a method of sgd, ssgd"),
        ("asgd-3-s1", {"epoch": 200}, "a multiple of 48; got 200"),
        ("asgd-3-s1", {"lambda0": 0.5}, "lambda0 of 0 where nothing is compensated"),
        ("ssgd-2-s1", {"world": "real"}, "a method without a barrier"),
    ],
)
def test_rows_that_say_nothing(name, knobs, words, images, tmp_path):
    with pytest.raises(ValueError, match=words):
        train(row(name, **knobs), images, tmp_path)
