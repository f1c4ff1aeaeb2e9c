"""The algorithms and what each law does with them; runs alone, on real ranks and on virtual ones."""

import numpy as np
from parallel.nets import Net, finish

import cogkit as C
from cogkit.parallel import current_world, overlap
from cogkit.parallel.simulate import SimulatedWorld

overlap.LEAST, overlap.MOST = 64, 1000  # of these small models, each parameter is a bucket

# name -> what makes the distributed learner of a local one
ALGORITHMS = {
    "full": lambda l: C.parallel.data_parallel_distributed_learner(l),
    "full_late": lambda l: C.parallel.data_parallel_distributed_learner(l, overlap=False),
    "full_warm": lambda l: C.parallel.data_parallel_distributed_learner(l, distributed_after=24),
    "full_buffered": lambda l: C.parallel.data_parallel_distributed_learner(l, use_async_buffered_parameter_update=True),
    "one_bit": lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=1),
    "one_bit_mean": lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=1, zero_threshold=False),
    "one_bit_buffered": lambda l: C.parallel.data_parallel_distributed_learner(l, 0, 1, True),
    "four_bit": lambda l: C.parallel.data_parallel_distributed_learner(l, num_quantization_bits=4),
    "one_bit_warm": lambda l: C.parallel.data_parallel_distributed_learner(l, distributed_after=24, num_quantization_bits=1),
    "block": lambda l: C.parallel.block_momentum_distributed_learner(l, 60),
    "block_classic": lambda l: C.parallel.block_momentum_distributed_learner(l, 60, 200, False, False),
    "block_long": lambda l: C.parallel.block_momentum_distributed_learner(l, 10_000),
    "block_warm": lambda l: C.parallel.block_momentum_distributed_learner_as_time_constant(l, 60, 100, distributed_after=24),
    "bmuf": lambda l: C.parallel.bmuf_distributed_learner(l, 60),
    "averaging": lambda l: C.parallel.model_averaging_distributed_learner(l, 60),
    "asgd": lambda l: C.parallel.asgd_distributed_learner(l, meet_every=3),
    "dc_asgd_c": lambda l: C.parallel.dc_asgd_distributed_learner(l, meet_every=3),
    "dc_asgd_a": lambda l: C.parallel.dc_asgd_distributed_learner(l, adaptive=True, meet_every=5),
    "asgd_warm": lambda l: C.parallel.asgd_distributed_learner(l, distributed_after=24),
}
ASYNCHRONOUS = {"asgd", "dc_asgd_c", "dc_asgd_a", "asgd_warm"}  # real ranks end with what virtual ones do only in the same order
WARM = {"full_warm", "one_bit_warm", "block_warm", "asgd_warm"}  # start on all data alone
BLOCKS = ASYNCHRONOUS | {
    "block",
    "block_classic",
    "block_long",
    "block_warm",
    "bmuf",
    "averaging",
}  # ranks report when a block ends on each


def train(
    name, steps=8, uneven=False, checkpoint=None, stop_at=None, start=0, end=True, net=None, trainer=None, dtype=np.float32
):
    """Trains and returns (digest of the model, samples seen, losses reported).

    uneven: ranks run out of data at different times. checkpoint: saved after minibatch `stop_at`; start > 0: go on from there.
    """
    world = current_world()
    net = net or Net(dtype)
    trainer = trainer or net.trainer(ALGORITHMS[name])
    if start:
        trainer.restore_from_checkpoint(checkpoint)
    losses, more = [], True
    for i in range(start, steps):
        warm = name in WARM and trainer.total_number_of_samples_seen < 24
        n = None if not uneven or i < steps - world.rank else 0
        more = trainer.train_minibatch(net.feed(i, 6 if warm else n, rank=0 if warm else None))
        losses.append(trainer.previous_minibatch_loss_average)
        if checkpoint and i + 1 == stop_at:
            trainer.save_checkpoint(checkpoint)
        if not more:
            break
    if end and more:
        finish(net, trainer)
    return net.digest(), trainer.total_number_of_samples_seen, losses


def agreement(name, dtype=np.float32):
    """All ranks end with the same bytes, counts and reports, also when their data do not end together."""
    found = []
    for uneven in (False, True):
        digest, samples, losses = train(name, uneven=uneven, dtype=dtype)
        told = [digest, samples, None if name in BLOCKS else losses]
        told = current_world().all_gather_bytes(repr(told).encode(), "results")
        assert len(set(told)) == 1, (name, uneven, told)
        assert np.isfinite(losses).all()
        found.append((digest, samples))
    return found


def resume(name, folder, dtype=np.float32):
    """Train 2n equals train n, stop, train n."""
    path = f"{folder}/{name}"
    whole = train(name, 8, checkpoint=path, stop_at=4, dtype=dtype)
    again = train(name, 8, checkpoint=path, start=4, dtype=dtype)
    if name in ASYNCHRONOUS and not isinstance(current_world(), SimulatedWorld):  # in another order
        assert whole[1] == again[1]
        return whole[1]
    assert whole[:2] == again[:2], (name, whole, again)
    assert whole[2][4:] == again[2]
    return whole[:2]
