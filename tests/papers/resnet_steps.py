"""A few training steps of papers/resnet/model.py on noise: the same text runs on CNTK 2.7 and on cogkit.

CNTK's numbers, kept in resnet_cntk27.json, are made with its own Python (3.6):
    python tests/papers/resnet_steps.py cntk > tests/papers/resnet_cntk27.json
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

SHORTCUTS = ("none", "identity", "projection")


def steps(package, shortcut):
    """[loss, error] of eight steps, then the error of a test: ResNet-8 at stem stride 2, minibatches of 32, momentum, L2."""
    C = importlib.import_module(package)
    text = (Path(__file__).resolve().parents[2] / "papers" / "resnet" / "model.py").read_text()
    scope = {}
    exec(text.replace("import cogkit", "import " + package), scope)
    x, y = C.input_variable((3, 32, 32)), C.input_variable(10)
    z = scope["network"](x, 8, shortcut, 10, 1, stem_stride=2)
    rng = np.random.RandomState(3)
    for p in z.parameters:
        v = rng.normal(size=p.shape)
        v *= (2 / np.prod(p.shape[1:])) ** 0.5 if len(p.shape) == 4 else 0.1
        p.value = (v + (len(p.shape) == 1)).astype(np.float32)
    loss, error = C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)
    rates = C.learning_parameter_schedule([(2, 0.1), (3, 1.0), (1, 0.1)], minibatch_size=32, epoch_size=32)
    momentum = C.momentum_schedule(0.9, minibatch_size=32)
    learner = C.momentum_sgd(z.parameters, rates, momentum, unit_gain=True, l2_regularization_weight=1e-4)
    trainer = C.Trainer(z, (loss, error), [learner])
    seen = []
    for _ in range(8):
        batch = {x: rng.rand(32, 3, 32, 32).astype("f"), y: np.eye(10, dtype="f")[rng.randint(0, 10, 32)]}
        trainer.train_minibatch(batch)
        seen.append([trainer.previous_minibatch_loss_average, trainer.previous_minibatch_evaluation_average])
    return [seen, trainer.test_minibatch(batch)]


if __name__ == "__main__":
    print(json.dumps({s: steps(sys.argv[1], s) for s in SHORTCUTS}, indent=1))
