"""Every op case, stored and read again, computes the same bits; and a trained network with running statistics."""

import json

import numpy as np
import pytest
from cases import Built
from cases.graphs import GRAPHS
from cases.ops import CASES

import cogkit as C
from cogkit.store import graph_from_json, graph_to_json


@pytest.mark.parametrize("case", CASES + GRAPHS, ids=lambda c: c.name)
def test_a_stored_op_is_the_same(case):
    if case.later and not (hasattr(C, case.op) or hasattr(C.layers, case.op)):
        pytest.skip(f"{case.op} is still to come")
    with C.device.use_engine("reference"):  # the graph is in question here, not the kernels
        same_bits(case)


def same_bits(case):
    try:
        built = Built(C, case, np.float32, case.rows)
        C.set_seed(1)
        wanted = built.forward()
    except Exception as error:  # other tests say what is wrong with the op itself
        pytest.skip(f"does not run: {error}")
    graph, tensors = graph_to_json(built.function)
    loaded = graph_from_json(json.loads(json.dumps(graph)), tensors, case.name)
    feed = dict(zip(loaded.arguments, [built.feed[v] for v in built.function.arguments], strict=True))
    C.set_seed(1)
    found = loaded.eval(feed)
    found = list(found.values()) if isinstance(found, dict) else [found]
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_trained_network_is_the_same(tmp_path):
    r = np.random.RandomState(0)
    x, y = C.input_variable((3, 8, 8), name="x"), C.input_variable((10,), name="y")
    with C.default_options(pad=True):
        model = C.layers.Sequential(
            [
                C.layers.Convolution2D((3, 3), 16, bias=False, name="first"),
                C.layers.BatchNormalization(map_rank=1),
                C.relu,
                C.layers.MaxPooling((2, 2), strides=2),
                C.layers.Dropout(0.2),
                C.layers.Dense(10),
            ]
        )
    z = model(x)
    trainer = C.Trainer(
        z, (C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)), C.momentum_sgd(z.parameters, 0.1, 0.9)
    )
    images, labels = r.randn(8, 3, 8, 8).astype("f"), np.eye(10, dtype="f")[r.randint(0, 10, 8)]
    for _ in range(3):
        trainer.train_minibatch({x: images, y: labels})
    z.save(str(tmp_path / "m"))
    loaded = C.load_model(str(tmp_path / "m"))
    assert loaded.eval({loaded.arguments[0]: images}).tobytes() == z.eval({x: images}).tobytes()
    assert loaded.find_by_name("first", -1) is not None
    again = C.Function.load(str(tmp_path / "m"))
    again.parameters[0].value = 0 * again.parameters[0].value
    again.restore(str(tmp_path / "m"))
    assert again.eval({again.arguments[0]: images}).tobytes() == z.eval({x: images}).tobytes()
