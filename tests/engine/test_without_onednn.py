"""The engine of machines that oneDNN is not made for: the same results within rounding (COGKIT_WITHOUT_ONEDNN=1 anywhere)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cogkit.engine.cpu.onednn")
TESTS = Path(__file__).resolve().parents[1]
WITHOUT = {**os.environ, "COGKIT_WITHOUT_ONEDNN": "1"}

STEPS = """
import json, sys
import numpy as np
import cogkit as C
from cogkit.engine.cpu import kernels
from cogkit.layers import BatchNormalization, Convolution2D, Dense, GlobalAveragePooling, MaxPooling, Sequential
assert (kernels.onednn is None) == (sys.argv[1] == "without")
C.set_seed(3)
x, y = C.input_variable((3, 12, 12)), C.input_variable(4)
z = Sequential([Convolution2D((3, 3), 16, pad=True, activation=C.relu), BatchNormalization(), MaxPooling((2, 2), strides=2),
                Convolution2D((3, 3), 32, pad=True, strides=2, bias=False), C.relu, GlobalAveragePooling(), Dense(4)])(x)
loss = C.cross_entropy_with_softmax(z, y)
trainer = C.Trainer(z, (loss, None), [C.momentum_sgd(z.parameters, 0.05, 0.9)])
rng = np.random.default_rng(0)
losses = []
for _ in range(10):
    feed = {x: rng.standard_normal((8, 3, 12, 12)).astype(np.float32), y: np.eye(4, dtype=np.float32)[rng.integers(0, 4, 8)]}
    trainer.train_minibatch(feed)
    losses.append(trainer.previous_minibatch_loss_average)
print(json.dumps([losses, [p.value.ravel()[:50].tolist() for p in z.parameters]]))
"""


def test_a_network_trains_alike():
    found = {}
    for way, environ in (("with", dict(os.environ)), ("without", WITHOUT)):
        environ.pop("COGKIT_WITHOUT_ONEDNN", None) if way == "with" else None
        done = subprocess.run([sys.executable, "-c", STEPS, way], env=environ, capture_output=True, text=True, check=True)
        found[way] = json.loads(done.stdout)
    np.testing.assert_allclose(found["without"][0], found["with"][0], rtol=1e-4)
    for a, b in zip(found["without"][1], found["with"][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "tests", ["test_ops.py", "test_goldens.py", "test_goldens_training.py", "engine/test_sequences.py", "layers"]
)
def test_what_the_engine_must_do_it_does(tests):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", str(TESTS / tests)],
        env=WITHOUT,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
