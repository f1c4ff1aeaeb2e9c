"""What ends a training on real ranks, for each algorithm: in bounded time, with the culprit named, the checkpoint intact, resume exact."""

import json
import time

import pytest
from parallel.laws import ALGORITHMS, ASYNCHRONOUS
from parallel.nets import Net
from parallel.ranks import run_ranks

from cogkit.parallel import current_world, simulate

# what rank 1 does after its fourth minibatch -> words that somebody must say
FAULTS = {
    "raises": ("raise KeyError('mine')", ["rank 1 of 2", "KeyError: 'mine'"]),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", ["rank 1 was killed by SIGKILL"]),
    "stalls": ("time.sleep(60)", ["rank 0 in exchange", "expected all ranks within 8 s, got nothing from rank 1"]),
    "ends": ("sys.exit(0)", ["expected rank 1 to come, got its end"]),
}
SCRIPT = """
import json, os, signal, sys, time
from parallel.laws import ALGORITHMS, finish
from parallel.nets import Net
name, go_on = {name!r}, {go_on!r}
net = Net()
trainer = net.trainer(ALGORITHMS[name])
if go_on:
    trainer.restore_from_checkpoint("checkpoint")
for i in range(2 if go_on else 0, 6):
    trainer.train_minibatch(net.feed(i, 5))
    if i == 1 and not go_on:
        trainer.save_checkpoint("checkpoint")
    if world.rank == 1 and i == 3 and not go_on:
        {fault}
finish(net, trainer)
told = world.all_gather_bytes(net.digest().encode(), "digests")
assert len(set(told)) == 1
if world.is_main:
    print(json.dumps([net.digest(), trainer.total_number_of_samples_seen]))
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a training ends with that nothing happens to."""
    found = {}

    def run(name):
        if name not in found:
            done = run_ranks(2, SCRIPT.format(name=name, go_on=False, fault="pass"), tmp_path_factory.mktemp(name))
            found[name] = json.loads(done.stdout)
        return found[name]

    return run


@pytest.mark.parametrize("name", ["full", "one_bit_buffered", "block", "averaging", "dc_asgd_a"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault, name, tmp_path, undisturbed):
    body, words = FAULTS[fault]
    start = time.time()
    script = SCRIPT.format(name=name, go_on=False, fault=body)
    done = run_ranks(2, script, tmp_path, "cogkit.parallel", check=False, COGKIT_TIMEOUT="8")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and time.time() - start < 50
    assert all(word in said for word in words), said
    again = run_ranks(2, SCRIPT.format(name=name, go_on=True, fault="pass"), tmp_path)
    found, wanted = json.loads(again.stdout), undisturbed(name)
    assert found[1] == wanted[1] == 60
    if name not in ASYNCHRONOUS:
        assert found[0] == wanted[0]


def test_full_disk(tmp_path, undisturbed):
    """One rank cannot write: all end, the checkpoint before stays, and training goes on from it."""
    script = SCRIPT.replace(
        "    if world.rank == 1 and i == 3 and not go_on:\n        {fault}\n",
        "    if i == 3 and not go_on:\n"
        "        import cogkit.train.checkpoint as c\n"
        "        real = c.write_tensors\n"
        "        def full(*a):\n"
        "            if world.rank == 1: raise OSError(28, 'No space left on device')\n"
        "            real(*a)\n"
        "        c.write_tensors = full\n"
        "        trainer.save_checkpoint('checkpoint')\n",
    )
    done = run_ranks(2, script.format(name="one_bit", go_on=False), tmp_path, check=False)
    assert done.returncode != 0 and "No space left on device" in done.stderr
    again = run_ranks(2, script.format(name="one_bit", go_on=True), tmp_path)
    assert json.loads(again.stdout) == undisturbed("one_bit")


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_different_models(name):
    def main():
        net = Net()
        if current_world().rank == 1:
            net.b.value = net.b.value + 1
        trainer = net.trainer(ALGORITHMS[name])
        for i in range(10):
            trainer.train_minibatch(net.feed(i, 6, rank=0))

    with pytest.raises(RuntimeError, match="another values on rank 1 than on rank 0"):
        simulate(main, 3)
