"""Gradients that travel while others are still computed: the same bits as after, of models and learners of many kinds."""

import json

import numpy as np
import pytest
from parallel.nets import Net, finish
from parallel.ranks import run_ranks
from scipy.sparse import csr_matrix

import cogkit as C
from cogkit.engine.cpu.native import get_num_threads, set_num_threads
from cogkit.errors import RankError
from cogkit.parallel import current_world, data_parallel_distributed_learner, simulate
from cogkit.parallel.delays import Network, constant
from cogkit.parallel.overlap import Overlap
from parallel import laws  # noqa: F401  (small buckets)


@pytest.fixture(autouse=True)
def one_thread():
    """As the real ranks of these tests have."""
    before = get_num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def data(i, shape, n):
    """Values of this rank's minibatch i."""
    return np.random.RandomState(100 * i + current_world().rank).standard_normal((n, *shape)).astype("f")


class Convolutions:
    """Batch normalisation has effects; the weights of the two halves are one parameter."""

    def __init__(self):
        self.x, self.y = C.input_variable((3, 8, 8)), C.input_variable(2)
        C.set_seed(3)
        conv = C.layers.Convolution2D((3, 3), 4, pad=True)
        body = C.layers.BatchNormalization(map_rank=1)(conv(self.x))
        again = C.layers.Convolution2D((3, 3), 4, pad=True)
        self.z = C.layers.Dense(2)(again(C.relu(again(C.relu(body)))))

    def feed(self, i, n=3):
        return {self.x: data(i, (3, 8, 8), n), self.y: np.eye(2, dtype="f")[np.arange(n) % 2]}


class Sequences:
    """A recurrence over sequences of other lengths on each rank, from rows of an embedding."""

    def __init__(self):
        self.x, self.y = C.sequence.input_variable(50, is_sparse=True), C.input_variable(2)
        C.set_seed(3)
        steps = C.layers.Recurrence(C.layers.LSTM(5))(C.layers.Embedding(4)(self.x))
        self.z = C.layers.Dense(2)(C.sequence.last(steps))

    def feed(self, i, n=3):
        words = np.random.RandomState(100 * i + current_world().rank)
        rows = [csr_matrix(np.eye(50, dtype="f")[words.randint(50, size=words.randint(1, 6))]) for _ in range(n)]
        return {self.x: rows, self.y: np.eye(2, dtype="f")[np.arange(n) % 2]}


MODELS = {"convolutions": Convolutions, "sequences": Sequences}


def trained(model, overlap, learners=1, idle=(), dtype=np.float32):
    """(bytes of all parameters, reports) after four minibatches. idle: ranks without data."""
    net = MODELS[model]()
    loss = C.cross_entropy_with_softmax(net.z, net.y)
    parameters = list(net.z.parameters)
    assert all(p.value.size for p in parameters)  # drawn in this order, also where there are no data to begin with
    made = [
        data_parallel_distributed_learner(C.momentum_sgd(parameters[k::learners], 0.1, 0.9), overlap=overlap)
        for k in range(learners)
    ]
    trainer = C.Trainer(net.z, (loss, C.classification_error(net.z, net.y)), made)
    told = []
    for i in range(4):
        trainer.train_minibatch({} if current_world().rank in idle else net.feed(i, 3 + i % 2))
        told.append((trainer.previous_minibatch_loss_average, trainer.previous_minibatch_sample_count))
    finish(net, trainer)
    return b"".join(p.value.tobytes() for p in parameters).hex(), told


@pytest.mark.parametrize("learners", [1, 3])
@pytest.mark.parametrize("idle", [(), (0,), (1,)])
@pytest.mark.parametrize("model", MODELS)
def test_same_bits(model, idle, learners):
    early, late = (simulate(lambda on=on: trained(model, on, learners, idle), 3) for on in (True, False))
    assert early == late and all(f == early[0] for f in early)


def test_same_bits_on_real_ranks(tmp_path):
    done = run_ranks(
        2,
        """
        import json
        from parallel.test_overlap import MODELS, trained
        found = {f"{m} {n} {idle}": trained(m, True, n, idle) for m in MODELS for n in (1, 2) for idle in ((), (0,))}
        if world.is_main:
            print(json.dumps(found))
        """,
        tmp_path,
    )
    for name, found in json.loads(done.stdout).items():
        model, n, idle = name.split(maxsplit=2)
        late = simulate(lambda m=model, n=n, idle=idle: trained(m, False, int(n), (0,) if "0" in idle else ()), 2)[0]
        assert found == json.loads(json.dumps(late)), name


@pytest.mark.parametrize("model", MODELS)
def test_what_comes_is_not_written_later(model, monkeypatch):
    """Each gradient that an engine announces is what the run ends with, and all come."""
    seen, wrong = {}, []
    come, end = Overlap.come, Overlap.end

    def watch(self, outputs, part):
        seen.update((i - self.first, array.copy()) for i, array in outputs)
        assert 0 < part <= 1
        come(self, outputs, part)

    def compare(self, gradients, samples):
        arrays = [a for mine in gradients for a in mine.values()]
        assert set(range(len(arrays))) <= set(seen)
        wrong.extend(i for i, a in enumerate(arrays) if a.tobytes() != seen[i].tobytes())
        seen.clear()
        end(self, gradients, samples)

    monkeypatch.setattr(Overlap, "come", watch)
    monkeypatch.setattr(Overlap, "end", lambda self, g, n: compare(self, g, n) if n else end(self, g, n))
    simulate(lambda: trained(model, True, idle=(1,)), 2)
    assert not wrong


def test_clocks():
    """What travels during the backward pass takes no time of its own."""

    def main(on):
        net = Net(hidden=4000)
        trainer = net.trainer(lambda l: data_parallel_distributed_learner(l, overlap=on))
        for i in range(3):
            trainer.train_minibatch(net.feed(i))
        return current_world().clock(), net.digest()

    network = Network(1e-3, 1e6)
    early, late = (simulate(lambda on=on: main(on), 4, constant(1.0), network)[0] for on in (True, False))
    assert early[1] == late[1]
    assert 3.0 < early[0] < late[0] - 0.1
    assert simulate(lambda: main(True), 4, constant(1.0), network)[0] == early


def test_error_in_the_middle():
    """An error between two buckets: the next minibatch says so, rather than mixing gradients."""

    def main():
        net = Net()
        trainer = net.trainer(data_parallel_distributed_learner)
        trainer.train_minibatch(net.feed(0))
        overlap = trainer._arrivals
        start = overlap._start

        def broken():
            start()
            raise ZeroDivisionError

        overlap._start = broken
        with pytest.raises(ZeroDivisionError):
            trainer.train_minibatch(net.feed(1))
        overlap._start = start
        trainer.train_minibatch(net.feed(1))

    with pytest.raises(RankError, match="got an error in it while its gradients were under way"):
        simulate(main, 2)
