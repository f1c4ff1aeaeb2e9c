"""The ResNet folder: its nets train as CNTK 2.7 trains them, and have the paper's sizes."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import cogkit as C
from cogkit.papers.resnet.model import network
from cogkit.papers.resnet.train import read_schedule

HERE = Path(__file__).parent
CNTK = json.loads((HERE / "resnet_cntk27.json").read_text())


def load_steps():
    spec = importlib.util.spec_from_file_location("resnet_steps", HERE / "resnet_steps.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.steps


@pytest.mark.parametrize("shortcut", CNTK)
def test_steps_are_cntks(shortcut):
    seen, tested = load_steps()("cogkit", shortcut)
    want, want_tested = CNTK[shortcut]
    # float32 rounding grows from step to step; the learning rate is high, so that it shows
    assert np.array(seen)[:4, 0] == pytest.approx(np.array(want)[:4, 0], rel=1e-5)
    assert np.array(seen)[:, 0] == pytest.approx(np.array(want)[:, 0], rel=1e-3)
    assert np.array(seen)[:, 1] == pytest.approx(np.array(want)[:, 1])
    assert tested == pytest.approx(want_tested)


@pytest.mark.parametrize(
    ("depth", "shortcut", "count"),
    [
        (20, "identity", 269_722),
        (20, "none", 269_722),
        (32, "identity", 464_154),
        (56, "identity", 853_018),
        (8, "projection", 78_042),
    ],
)
def test_parameters(depth, shortcut, count):
    z = network(C.input_variable((3, 32, 32)), depth, shortcut, 10, 1)
    assert sum(int(np.prod(p.shape)) for p in z.parameters) == count  # the paper rounds to 0.27, 0.46 and 0.85 million


def test_what_is_no_network():
    x = C.input_variable((3, 32, 32))
    with pytest.raises(ValueError, match="expected a depth of 6n \\+ 2 .*, got 18"):
        network(x, 18, "none", 10, 1)
    with pytest.raises(ValueError, match="expected a shortcut of none, identity, projection, got 'both'"):
        network(x, 8, "both", 10, 1)


def test_schedules():
    assert read_schedule("0.1x1 1x80 0.01x39") == [(1, 0.1), (80, 1), (39, 0.01)]
    for text in ("", "1", "1x", "x1", "1x0.5"):
        with pytest.raises(ValueError, match="schedule: expected"):
            read_schedule(text)
