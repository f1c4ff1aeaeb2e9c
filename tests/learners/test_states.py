"""Parameters and inner state of every learner over 20 updates as CNTK 2.7 records them, with schedules that change and a restart in between."""

import importlib.util
import pathlib

import numpy as np
import pytest

from cogkit import learners as L
from cogkit import ops

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
spec = importlib.util.spec_from_file_location("learner_states", GOLDENS / "make_learner_state_goldens.py")
recorder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recorder)
STORED = np.load(GOLDENS / "learner_states.npz")
CASES = dict(recorder.cases())
# CNTK keeps the states of a rule one below the other, in this order
ORDER = {"adam": "rs", "fsadagrad": "rs", "adadelta": "st", "rmsprop": ("r", "sign", "size"), "sgd": ""}
SCHEDULED = ("lr", "momentum", "variance_momentum")


def learner_of(function, named, parameters):
    return getattr(L, function)(parameters, **{k: recorder.made(L, v) if k in SCHEDULED else v for k, v in named.items()})


def test_all_cases_are_stored():
    assert {k.split("__")[0] for k in STORED.files if "__" in k} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_states_against_cntk(name):
    function, named = CASES[name]
    start, gradients = recorder.data()
    ps = [ops.parameter(v.shape, init=v, dtype=np.float64) for v in start]
    learner = learner_of(function, named, ps)
    wanted = {key: STORED[f"{name}__{key}"] for key in ("w", "s", "seen")}
    for i, (g, n) in enumerate(zip(gradients, recorder.COUNTS, strict=True)):
        if i == 12:
            other = learner_of(function, named, ps)
            other.restore_from_checkpoint(learner.create_checkpoint())
            learner = other
        assert learner.update(dict(zip(ps, g, strict=True)), n, i in recorder.ENDS)
        values = np.concatenate([p.value.ravel() for p in ps])
        np.testing.assert_allclose(values, wanted["w"][i], rtol=3e-7, atol=1e-9, err_msg=f"update {i + 1}")
        state = [learner.states[p][s].value.ravel() for p in ps for s in ORDER.get(function, "s")]
        found = np.concatenate(state) if state else np.zeros(0)
        np.testing.assert_allclose(found, wanted["s"][i], rtol=3e-7, atol=1e-12, err_msg=f"state after update {i + 1}")
        assert learner.total_number_of_samples_seen() == wanted["seen"][i]


@pytest.mark.parametrize("i", range(len(recorder.NOISE)))
def test_injected_noise_is_as_wide_as_cntks(i):
    n, options = recorder.NOISE[i]
    p = ops.parameter((200, 300), init=0.0)
    learner = L.sgd([p], lr=0.5, **{k: recorder.made(L, v) for k, v in options.items()})
    for wanted in STORED["noise"][i]:
        learner.update({p: np.zeros((200, 300), "f")}, n)
        mean, spread = p.value.mean(dtype=np.float64), p.value.std(dtype=np.float64)
        assert abs(mean - wanted[0]) < 8 * spread / p.value.size**0.5
        assert abs(spread / wanted[1] - 1) < 0.02
