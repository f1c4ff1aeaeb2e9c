"""The algorithms and what each law does with them; runs alone, on real ranks and on virtual ones."""

import numpy as np
from parallel.nets import Net, finish

import cogkit as C
from cogkit.parallel import current_world

# name -> what makes the distributed learner of a local one
ALGORITHMS = {
    "full": lambda l: C.parallel.data_parallel_distributed_learner(l),
    "full_buffered": lambda l: C.parallel.data_parallel_distributed_learner(l, use_async_buffered_parameter_update=True),
    "one_bit": lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=1),
    "one_bit_zero": lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=1, zero_threshold=True),
    "one_bit_buffered": lambda l: C.parallel.data_parallel_distributed_learner(l, 0, 1, True),
    "four_bit": lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=4),
    "one_bit_warm": lambda l: C.parallel.data_parallel_distributed_learner(l, distributed_after=24, num_quantization_bits=1),
}
WARM = {"one_bit_warm"}  # start on all data alone


def train(name, steps=8, uneven=False, checkpoint=None, stop_at=None, start=0, end=True, net=None, trainer=None):
    """Trains and returns (digest of the model, samples seen, losses reported).

    uneven: ranks run out of data at different times. checkpoint: saved after minibatch `stop_at`; start > 0: go on from there.
    """
    world = current_world()
    net = net or Net()
    trainer = trainer or net.trainer(ALGORITHMS[name])
    if start:
        trainer.restore_from_checkpoint(checkpoint)
    losses = []
    for i in range(start, steps):
        warm = name in WARM and trainer.total_number_of_samples_seen < 24
        n = None if not uneven or i < steps - world.rank else 0
        trainer.train_minibatch(net.feed(i, 6 if warm else n, rank=0 if warm else None))
        losses.append(trainer.previous_minibatch_loss_average)
        if checkpoint and i + 1 == stop_at:
            trainer.save_checkpoint(checkpoint)
    if end:
        finish(net, trainer)
    return net.digest(), trainer.total_number_of_samples_seen, losses


def agreement(name):
    """All ranks end with the same bytes, counts and reports, also when their data do not end together."""
    found = []
    for uneven in (False, True):
        digest, samples, losses = train(name, uneven=uneven)
        told = current_world().all_gather_bytes(repr((digest, samples, losses)).encode(), "results")
        assert len(set(told)) == 1, (name, uneven, told)
        assert np.isfinite(losses).all()
        found.append((digest, samples))
    return found


def resume(name, folder):
    """Train 2n equals train n, stop, train n."""
    path = f"{folder}/{name}"
    whole = train(name, 8, checkpoint=path, stop_at=4)
    again = train(name, 8, checkpoint=path, start=4)
    assert whole[:2] == again[:2], (name, whole, again)
    assert whole[2][4:] == again[2]
    return whole[:2]
