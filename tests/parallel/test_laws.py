"""Laws of distributed learners: one table of algorithms, alone, on 2 and 3 real ranks, on 16 virtual ones."""

import json

import numpy as np
import pytest
from parallel.laws import ALGORITHMS, ASYNCHRONOUS, agreement, resume, train
from parallel.nets import Net
from parallel.ranks import run_ranks

import cogkit as C
from cogkit.engine.cpu.native import get_num_threads, set_num_threads
from cogkit.parallel import current_world, simulate


@pytest.fixture(autouse=True)
def one_thread():
    """As the real ranks of these tests have."""
    before = get_num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


@pytest.mark.parametrize("rule", ["sgd", "momentum_sgd", "adam", "compatible"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_alone_is_the_local_learner(name, rule):
    local = {
        "sgd": lambda p: C.sgd(p, 0.1),
        "momentum_sgd": lambda p: C.momentum_sgd(p, C.learning_parameter_schedule([0.1, 0.05], epoch_size=12), 0.9),
        "adam": lambda p: C.adam(p, 0.01, 0.9),
        "compatible": lambda p: C.momentum_sgd(p, 0.1, 0.9, minibatch_size=C.learners.IGNORE),
    }[rule]
    bits = []
    for make in (lambda learner: learner, ALGORITHMS[name]):
        net = Net()
        trainer = net.trainer(make, local)
        for i in range(6):
            trainer.train_minibatch(net.feed(i))
        assert trainer.train_minibatch({}) is False
        bits.append((net.bits(), trainer.total_number_of_samples_seen, trainer.previous_minibatch_loss_average))
    assert bits[0] == bits[1]


@pytest.mark.parametrize("n", [2, 3])
def test_real_ranks(n, tmp_path):
    """All laws on real ranks; what synchronous algorithms end with is what virtual ranks end with, bit for bit."""
    done = run_ranks(
        n,
        """
        import json
        from parallel.laws import ALGORITHMS, ASYNCHRONOUS, agreement, resume
        found = {name: (agreement(name), resume(name, ".")) for name in ALGORITHMS}
        if world.is_main:
            print(json.dumps(found))
        """,
        tmp_path,
    )
    real = json.loads(done.stdout)
    for name in set(ALGORITHMS) - ASYNCHRONOUS:
        here = simulate(lambda name=name: (agreement(name), resume(name, tmp_path)), n)
        assert json.loads(json.dumps(here[0])) == real[name], name


@pytest.mark.parametrize("name", ALGORITHMS)
def test_virtual_ranks(name, tmp_path):
    found = simulate(lambda: (agreement(name), resume(name, tmp_path)), 16)
    assert all(f == found[0] for f in found)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_half_precision(name, tmp_path):
    found = simulate(lambda: (agreement(name, np.float16), resume(name, tmp_path, np.float16)), 3)
    assert all(f == found[0] for f in found)


def test_half_precision_on_real_ranks(tmp_path):
    names = ["full", "one_bit", "block", "asgd", "dc_asgd_a"]
    done = run_ranks(
        2,
        f"""
        import json
        from parallel.laws import agreement, resume
        found = {{name: (agreement(name, np.float16), resume(name, ".", np.float16)) for name in {names}}}
        if world.is_main:
            print(json.dumps(found))
        """,
        tmp_path,
    )
    real = json.loads(done.stdout)
    for name in set(names) - ASYNCHRONOUS:
        here = simulate(lambda name=name: (agreement(name, np.float16), resume(name, tmp_path, np.float16)), 2)
        assert json.loads(json.dumps(here[0])) == real[name], name


def test_half_precision_comes_close():
    """Small changes add up: models of half precision end where those of single precision do, within their own rounding."""
    for name in ("full", "block", "bmuf", "asgd"):

        def main(dtype, name=name):
            net = Net(dtype)
            train(name, 12, net=net, trainer=net.trainer(ALGORITHMS[name]))
            return [p.value.astype("f") for p in net.parameters]

        half, single = (simulate(lambda t=t: main(t), 4)[0] for t in (np.float16, np.float32))
        assert all(np.abs(a - b).max() < 4e-3 for a, b in zip(half, single, strict=True)), name


def test_sum_of_half_precision_is_rounded_once():
    def main():
        values = np.array([1.0 if current_world().rank == 0 else 2.0**-11] * 3, np.float16)
        current_world().all_reduce(values, "half")
        return values.tolist()

    assert simulate(main, 3) == [[1.0 + 2.0**-10] * 3] * 3


def whole(name, n, steps=6):
    """What one rank ends with that is given the minibatches of n ranks joined, and the parameters of n ranks that train apart."""
    net = Net(np.float64)
    trainer = net.trainer(lambda learner: learner)
    for i in range(steps):
        feeds = [net.feed(i, ranks=n, rank=r) for r in range(n)]
        trainer.train_minibatch({v: np.concatenate([f[v] for f in feeds]) for v in feeds[0]})

    def main():
        net = Net(np.float64)
        train(name, steps, net=net, trainer=net.trainer(ALGORITHMS[name]))
        return [p.value for p in net.parameters]

    return [p.value for p in net.parameters], simulate(main, n)[0]


@pytest.mark.parametrize("n", [2, 3])
def test_full_precision_is_one_large_minibatch(n):
    one, many = whole("full", n)
    for a, b in zip(one, many, strict=True):
        assert b == pytest.approx(a, rel=1e-12, abs=1e-12)


def test_few_bits_come_close():
    one, many = whole("four_bit", 2)
    assert all(np.abs(a - b).max() < 0.02 for a, b in zip(one, many, strict=True))
    _, rough = whole("one_bit", 2)
    assert 0 < max(np.abs(a - b).max() for a, b in zip(one, rough, strict=True)) < 0.1


def test_samples_of_all_ranks():
    def main():
        net = Net()
        trainer = net.trainer(ALGORITHMS["full"])
        r = current_world().rank
        more = trainer.train_minibatch(net.feed(0, r))
        return more, trainer.previous_minibatch_sample_count, trainer.total_number_of_samples_seen, trainer.train_minibatch({})

    assert simulate(main, 4) == [(True, 6, 6, False)] * 4


def test_different_models_are_named():
    def main():
        net = Net()
        if current_world().rank == 2:
            net.b.value = np.ones(3, "f")
        net.trainer(ALGORITHMS["full"]).train_minibatch(net.feed(0))

    with pytest.raises(C.errors.RankError if hasattr(C, "errors") else RuntimeError, match="values on rank 2 than on rank 0"):
        simulate(main, 4)

    def other():
        net = Net()
        rate = 32 if current_world().rank else 1
        learner = lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=rate)  # noqa: E731
        net.trainer(learner).train_minibatch(net.feed(0))

    with pytest.raises(RuntimeError, match="another learner on rank 1, 2"):
        simulate(other, 3)


def test_what_is_refused():
    net = Net()
    learner = C.sgd(net.parameters, 0.1)
    with pytest.raises(ValueError, match="num_quantization_bits"):
        C.parallel.data_parallel_distributed_learner(learner, num_quantization_bits=9)
    with pytest.raises(ValueError, match="distributed_after"):
        C.parallel.data_parallel_distributed_learner(learner, -1)
    with pytest.raises(TypeError, match="local learner"):
        C.parallel.data_parallel_distributed_learner(C.parallel.data_parallel_distributed_learner(learner))
    with pytest.raises(TypeError, match="expected a learner"):
        C.parallel.data_parallel_distributed_learner(net.parameters)


def test_another_number_of_ranks(tmp_path):
    """A checkpoint of three ranks on two: counts and the local state go on, errors begin anew."""

    def save():
        train("one_bit", 4, checkpoint=str(tmp_path / "c"), stop_at=4)

    def load():
        net = Net()
        trainer = net.trainer(ALGORITHMS["one_bit"])
        trainer.restore_from_checkpoint(tmp_path / "c")
        assert not any(a.any() for _, a in net.learner._own())
        trainer.train_minibatch(net.feed(4))
        return trainer.total_number_of_samples_seen > 60, net.digest()

    simulate(save, 3)
    one, two = simulate(load, 2)
    assert one == two and one[0]
    assert simulate(load, 1)[0][0]


def test_warm_start_is_silent():
    def main():
        net = Net()
        trainer = net.trainer(ALGORITHMS["one_bit_warm"])
        for i in range(4):
            trainer.train_minibatch(net.feed(i, 6, rank=0))
        return current_world().meter.bytes, net.digest()

    (bytes_sent, digest), *rest = simulate(main, 3)
    assert bytes_sent == 0 and all(r == (0, digest) for r in rest)
