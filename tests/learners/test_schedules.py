"""Schedules: every form against CNTK 2.7, and what they refuse."""

import json
import pathlib

import pytest

from cogkit.learners import schedules as S

GOLDENS = json.loads((pathlib.Path(__file__).parent / "goldens.json").read_text())


def pairs(value):
    return [tuple(v) if isinstance(v, list) else v for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", GOLDENS["schedules"], ids=lambda c: f"{c['form']}{c['args']}{c['kwargs']}")
def test_forms_against_cntk(case):
    made = getattr(S, case["form"])(*map(pairs, case["args"]), **case["kwargs"])
    assert [made[i] for i in range(40)] == pytest.approx(case["values"], rel=1e-15)
    assert made.minibatch_size == case["minibatch_size"]
    assert made.is_minibatch_size_explicitly_specified == case["explicit"]
    assert S.TrainingParameterSchedule.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_older_form_with_minibatch_size():
    made = S.learning_rate_schedule([0.05] * 3 + [0.025] * 2, minibatch_size=S.IGNORE, epoch_size=100)
    assert [made[n] for n in (0, 299, 300, 499, 10**9)] == [0.05, 0.05, 0.025, 0.025, 0.025]
    assert made.minibatch_size == S.IGNORE and made.is_minibatch_size_explicitly_specified


def test_a_number_warns_about_epoch_size():
    with pytest.warns(RuntimeWarning, match="epoch_size means nothing"):
        S.learning_parameter_schedule(0.1, epoch_size=10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S.learning_parameter_schedule([]), "expected at least one value"),
        (lambda: S.learning_parameter_schedule([(0, 0.1)]), "expected a count of at least 1"),
        (lambda: S.learning_parameter_schedule([0.1], epoch_size=0), "expected epoch_size of at least 1"),
        (lambda: S.learning_parameter_schedule([0.1], minibatch_size=-1), "expected minibatch_size of at least 1"),
        (lambda: S.learning_parameter_schedule("fast"), "expected a number or a list of values, got str"),
        (lambda: S.learning_parameter_schedule((1, 2)), "expected a number or a list of values, got tuple"),
        (lambda: S.learning_parameter_schedule([(1, 2, 3)]), "pairs in the list"),
        (lambda: S.training_parameter_schedule(0.1, unit="epoch"), "expected unit 'sample' or 'minibatch', got 'epoch'"),
        (lambda: S.learning_rate_schedule(0.1, "sample", minibatch_size=3), "got both"),
        (lambda: S.learning_parameter_schedule(0.1)[-1], "from 0 up"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
