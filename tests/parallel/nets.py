"""A small model that is trained in the tests of distributed learners, on any number of ranks of any world."""

import hashlib

import numpy as np

import cogkit as C
from cogkit.parallel import current_world


class Net:
    """Two layers and a bias, cross entropy over 3 classes; every new one has the same start."""

    def __init__(self, dtype=np.float32, hidden=40):
        r = np.random.RandomState(1)
        self.x, self.y = C.input_variable(7, dtype), C.input_variable(3, dtype)
        self.w1 = C.parameter((7, hidden), init=0.5 * r.randn(7, hidden), dtype=dtype, name="W1")
        self.w2 = C.parameter((hidden, 3), init=0.5 * r.randn(hidden, 3), dtype=dtype, name="W2")
        self.b = C.parameter((3,), dtype=dtype, name="b")
        self.z = C.times(C.tanh(C.times(self.x, self.w1)), self.w2) + self.b
        self.loss, self.error = C.cross_entropy_with_softmax(self.z, self.y), C.classification_error(self.z, self.y)
        self.parameters = [self.w1, self.w2, self.b]

    def trainer(self, make, local=None):
        """A trainer with one distributed learner; local: makes the learner that it holds."""
        learner = local(self.parameters) if local else C.momentum_sgd(self.parameters, 0.1, 0.9)
        self.learner = make(learner)
        return C.Trainer(self.z, (self.loss, self.error), [self.learner])

    def feed(self, i, n=None, ranks=None, rank=None):
        """Minibatch i of this rank (n samples, 4 to 6 of them else); ranks, rank: those of another world."""
        world = current_world()
        ranks, rank = world.size if ranks is None else ranks, world.rank if rank is None else rank
        n = 4 + (i + rank) % 3 if n is None else n
        if not n:
            return {}
        r = np.random.RandomState(1000 * i + rank)
        x = r.randn(n, 7).astype(self.x.dtype)
        return {self.x: x, self.y: np.eye(3, dtype=self.x.dtype)[(x[:, :3] + 0.3 * r.randn(n, 3)).argmax(1)]}

    def bits(self):
        return b"".join(p.value.tobytes() for p in self.parameters)

    def digest(self):
        return hashlib.blake2b(self.bits(), digest_size=8).hexdigest()


def finish(net, trainer):
    """Goes on without data until all ranks have none."""
    for _ in range(50):
        if not trainer.train_minibatch({}):
            return
    raise AssertionError("ranks without data did not come to an end")
