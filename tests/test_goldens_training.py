"""cogkit against CNTK 2.7: learners, schedules, initialisers, running statistics (see goldens/make_training_goldens.py)."""

import json
import pathlib

import numpy as np
import pytest
from cases import training as t

import cogkit as C

GOLDENS = pathlib.Path(__file__).parent / "goldens"
TEXT = json.loads((GOLDENS / "training.json").read_text())


def table(name):
    with np.load(GOLDENS / name, allow_pickle=False) as z:
        return {k: z[k] for k in z.files}


LEARNERS, STATISTICS = table("learners.npz"), table("statistics.npz")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", sorted(t.LEARNERS))
def test_learner(name, dtype):
    """Held to CNTK's float64 in both types: its float32 loses three digits in 1 - 0.9999986, the default variance momentum."""
    got = t.trajectory(C, name, np.dtype(dtype).type)
    assert got.dtype == dtype
    tolerance = 5e-6 if dtype == "f4" else 1e-11
    np.testing.assert_allclose(got, LEARNERS[name.replace("/", ":")], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", sorted(t.SCHEDULES))
def test_schedule(name):
    want, size = TEXT["schedules"][name]
    got, own = t.schedule_values(C, name)
    np.testing.assert_allclose(got, want, rtol=1e-14)
    assert own == size


def agree(got, want, uniform):
    n, mean, std, largest, kurtosis = want
    assert got[0] == n
    assert abs(got[1]) < 5 * std / n**0.5
    assert abs(got[2] / std - 1) < 5 * ((kurtosis - 1) / 2 / n) ** 0.5 + 1e-4  # both are draws: twice the variance of one
    if uniform:  # the bound itself
        assert abs(got[3] / largest - 1) < 30 / n
    assert abs(got[4] - kurtosis) < (0.1 if uniform else 0.5)


@pytest.mark.parametrize("name", sorted(t.DRAWS))
def test_initialiser(name):
    kind = name.split("/")[0]
    agree(t.draw_moments(C, name), TEXT["draws"][name], "uniform" in kind or kind == "xavier")


@pytest.mark.parametrize("name", sorted(t.LAYERS))
def test_layer_initialiser(name):
    agree(t.layer_moments(C, name), TEXT["layers"][name], True)


@pytest.mark.parametrize("k", t.BILINEAR)
def test_bilinear(k):
    np.testing.assert_allclose(t.bilinear(C, k), STATISTICS[f"bilinear/{k}"], rtol=1e-6)


def test_draws_differ_and_repeat():
    shape = (8, 9)
    values = [C.parameter(shape, init=C.glorot_uniform(seed=s)).value for s in (1, 1, 2)]
    assert np.array_equal(values[0], values[1]) and not np.array_equal(values[0], values[2])
    a, b = (C.parameter(shape, init=C.glorot_uniform()).value for _ in range(2))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("name", sorted(t.STATISTICS))
def test_running_statistics(name):
    got = t.statistics(C, name, np.float32)
    start = name.replace("/", ":") + "/"
    want = {k[len(start) :]: v for k, v in STATISTICS.items() if k.startswith(start)}
    assert set(got) == set(want)
    for key in sorted(want, key=lambda k: (k[-1], k)):
        np.testing.assert_allclose(got[key], want[key], rtol=3e-5, atol=3e-5, err_msg=key)
