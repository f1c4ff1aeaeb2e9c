"""One training each of a residual net, a recurrent net and of two virtual ranks with one bit a value: in two orders of threads, and sanitized."""

import os
import subprocess
import sys

import numpy as np
import pytest

import cogkit as C

F4 = np.float32
L = C.layers


def images(n, seed):
    rng = np.random.RandomState(seed)
    return rng.randn(n, 3, 8, 8).astype(F4), np.eye(4, dtype=F4)[rng.randint(0, 4, n)]


def block(x, filters, stride):
    def normed(h, size, stride):
        h = L.Convolution2D((size, size), filters, strides=stride, pad=True, bias=False, activation=None)(h)
        return L.BatchNormalization(map_rank=1)(h)

    short = x if stride == 1 else normed(x, 1, stride)
    return C.relu(normed(C.relu(normed(x, 3, stride)), 3, 1) + short)


def resnet():
    """A residual net of the form of He et al. 2015 with two stages."""
    x, y = C.input_variable((3, 8, 8)), C.input_variable(4)
    h = block(block(L.Convolution2D((3, 3), 4, pad=True, bias=False)(x), 4, 1), 8, 2)
    return x, y, L.Dense(4, activation=None)(L.GlobalAveragePooling()(h)), [images(4, 0), images(4, 1)]


def lstm():
    """Two recurrent layers in both directions over sequences of different lengths, one target a step."""
    x, y = C.sequence.input_variable(3), C.sequence.input_variable(4)
    both = (L.Recurrence(L.LSTM(4)), L.Recurrence(L.LSTM(4), go_backwards=True))
    model = L.Sequential([both, C.splice, L.Recurrence(L.GRU(4)), L.Dense(4)])(x)
    rng = np.random.RandomState(0)
    feeds = []
    for lengths in ([3, 1, 4], [2, 5, 1]):
        feeds.append(
            ([rng.randn(n, 3).astype(F4) for n in lengths], [np.eye(4, dtype=F4)[rng.randint(0, 4, n)] for n in lengths])
        )
    return x, y, model, feeds


def one_bit():
    x, y = C.input_variable(6), C.input_variable(4)
    rng = np.random.RandomState(0)
    feeds = [(rng.randn(6, 6).astype(F4), np.eye(4, dtype=F4)[rng.randint(0, 4, 6)]) for _ in range(2)]
    return x, y, L.Sequential([L.Dense(8, activation=C.tanh), L.Dense(4)])(x), feeds


def train(make, wrap=lambda learner: learner, steps=4):
    """(loss, bytes of the parameters) after some minibatches; of ranks each takes its share."""
    x, y, model, feeds = make()
    criterion = C.cross_entropy_with_softmax(model, y), C.classification_error(model, y)
    trainer = C.Trainer(model, criterion, [wrap(C.momentum_sgd(model.parameters, 0.1, 0.9))])
    losses = []
    ranks, rank = C.Communicator.num_workers(), C.Communicator.rank()
    for i in range(steps):
        trainer.train_minibatch({v: data[rank::ranks] for v, data in zip((x, y), feeds[i % 2], strict=True)})
        losses.append(trainer.previous_minibatch_loss_average)
    return losses, [p.value for p in model.parameters]


def on_ranks():
    """The same of two virtual ranks that send one bit a value."""
    found = C.parallel.simulate(
        lambda: train(one_bit, lambda learner: C.data_parallel_distributed_learner(learner, num_quantization_bits=1)), 2, seed=3
    )
    for p, q in zip(found[0][1], found[1][1], strict=True):
        assert p.tobytes() == q.tobytes()
    return found[0]


RUNS = {"resnet": lambda: train(resnet), "lstm": lambda: train(lstm), "one_bit": on_ranks}


def on(engine, name):
    with C.device.use_engine(engine):
        C.set_seed(3)
        return RUNS[name]()


@pytest.mark.parametrize("name", sorted(RUNS))
def test_trainings_in_two_orders_of_threads(name, monkeypatch):
    want = on("cpu", name)
    found = []
    for order in ("fwd", "rev"):
        monkeypatch.setenv("CUDACPU_ORDER", order)
        found.append(on("cuda", name))
    # a rounding that turns a sign is another bit that is sent
    np.testing.assert_allclose(found[0][0], want[0], rtol=5e-2 if name == "one_bit" else 2e-3, atol=1e-4)
    assert found[0][0] == found[1][0]
    for p, q in zip(found[0][1], found[1][1], strict=True):
        assert p.tobytes() == q.tobytes()
    assert found[0][0][2] < found[0][0][0]  # of the same minibatch


def test_trainings_are_clean_under_the_address_sanitizer(cuda_environment, fake):
    """A process of its own, whose kernels check every access; those that take minutes to compile so are compiled once."""
    library = subprocess.run(
        [os.environ.get("CXX", "g++").split()[0], "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not os.path.isabs(library):
        pytest.skip("needs the address sanitizer of the compiler (libasan)")
    standard = subprocess.run(["g++", "-print-file-name=libstdc++.so"], capture_output=True, text=True, check=True).stdout.strip()
    env = {
        **os.environ,
        **cuda_environment,
        "CUDACPU_SANITIZE": "1",
        "LD_PRELOAD": f"{library} {standard}",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "COGKIT_CACHE": cuda_environment["COGKIT_CACHE"] + "_sanitized",
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "1",
    }
    text = "import runpy, sys; z = runpy.run_path(sys.argv[1]); [z['on']('cuda', n) for n in sorted(z['RUNS'])]; print('clean')"
    done = subprocess.run([sys.executable, "-c", text, __file__], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith("clean\n"), done.stderr[-4000:]
    assert "ERROR: AddressSanitizer" not in done.stderr and "runtime error" not in done.stderr
