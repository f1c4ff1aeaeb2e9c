"""Training sessions of several ranks: shares of a source, tests of all ranks, checkpoints, an end on all of them; real and virtual."""

import json

import numpy as np
import pytest
from parallel.laws import ALGORITHMS, ASYNCHRONOUS
from parallel.nets import Net
from parallel.ranks import run_ranks

import cogkit as C
from cogkit.data import MinibatchSourceFromData
from cogkit.engine.cpu.native import get_num_threads, set_num_threads
from cogkit.parallel import current_world, simulate
from cogkit.parallel.delays import Network, constant


@pytest.fixture(autouse=True)
def one_thread():
    before = get_num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def source(net, samples, seed, **limit):
    r = np.random.RandomState(seed)
    x = r.randn(samples, 7).astype("f")
    y = np.eye(3, dtype="f")[(x[:, :3] + 0.3 * r.randn(samples, 3)).argmax(1)]
    made = MinibatchSourceFromData({"x": x, "y": y}, **limit)
    return made, {net.x: made.streams["x"], net.y: made.streams["y"]}


class Killed(Exception):
    pass


class Session(C.train.TrainingSession):
    """Ends in the middle, once its second checkpoint is written."""

    killed = False

    def on_checkpoint_end(self, index):
        if self.killed and index == 1:
            raise Killed


def session(name, folder, killed=False, limit=600, samples=250):
    """(digest, samples seen, results of cross-validation) of a session that saves and tests every so often, or goes on."""
    net, found = Net(), []
    trainer = net.trainer(ALGORITHMS[name])
    train, streams = source(net, samples, 1)
    held_out, other = source(net, 50, 2, max_samples=50)

    def tested(index, error, count, minibatches):
        found.append((index, round(float(error), 6), count))

    made = Session(
        trainer,
        train,
        C.minibatch_size_schedule(16),
        streams,
        limit,
        checkpoint_config=C.CheckpointConfig(f"{folder}/{name}", frequency=200),
        cv_config=C.CrossValidationConfig(held_out, 200, 10, tested, model_inputs_to_streams=other),
    )
    made.killed = killed
    made.train()
    return net.digest(), trainer.total_number_of_samples_seen, found


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_virtual_ranks(name, tmp_path):
    whole = simulate(lambda: session(name, tmp_path), 3)
    assert all(w == whole[0] for w in whole)
    _, seen, found = whole[0]
    assert 570 <= seen <= 630 and all(count == 50 for *_, count in found)
    assert found[-1][1] < found[0][1] + 0.2
    if len(found) < 3:
        return  # ranks met too seldom
    (tmp_path / "again").mkdir()
    with pytest.raises(Killed):
        simulate(lambda: session(name, tmp_path / "again", True), 3)
    again = simulate(lambda: session(name, tmp_path / "again"), 3)
    assert all(a[:2] == whole[0][:2] and a[2] == found[2:] for a in again)


def test_a_source_that_ends(tmp_path):
    """Ranks have shares of unequal sizes; all samples are seen once."""
    for name in ("full", "one_bit", "block", "asgd"):

        def main(name=name):
            net = Net()
            trainer = net.trainer(ALGORITHMS[name])
            x = np.random.RandomState(0).randn(103, 7).astype("f")
            made = MinibatchSourceFromData({"x": x, "y": np.eye(3, dtype="f")[(x[:, :3]).argmax(1)]}, max_samples=103)
            C.training_session(trainer, made, 10, {net.x: made.streams["x"], net.y: made.streams["y"]}).train()
            return net.digest(), trainer.total_number_of_samples_seen

        found = simulate(main, 3)
        assert all(f == found[0] for f in found) and found[0][1] == 103, name


def test_an_evaluator_of_all_ranks():
    """A rank may have more samples than another, or none."""

    def main():
        net, rank = Net(), current_world().rank
        evaluator = C.Evaluator(net.error)
        alone = evaluator.test_sums(net.feed(0, 2 * rank)) if rank else (0.0, 0)
        return alone, evaluator.test_minibatch(net.feed(0, 2 * rank), distributed=True)

    found = simulate(main, 3)
    error, samples = (sum(f[0][k] for f in found) for k in (0, 1))
    assert samples == 6 and all(f[1] == error / samples for f in found)


def test_progress_says_where_time_goes(tmp_path):
    def main():
        net, rank = Net(), current_world().rank
        printer = C.logging.ProgressPrinter(log_to_file=str(tmp_path / "progress"), rank=rank)
        learner = ALGORITHMS["full"](C.sgd(net.parameters, 0.1))
        trainer = C.Trainer(net.z, (net.loss, net.error), [learner], [printer])
        for epoch in (3, 1):
            for i in range(epoch):
                trainer.train_minibatch(net.feed(i))
            trainer.summarize_training_progress()

    simulate(main, 2, constant(1.0), Network(0.05, 1e3))
    first, other = ((tmp_path / f"progressrank{r}").read_text().splitlines() for r in (0, 1))
    told = [line for line in first if line.startswith("exchanges: ")]
    assert len(told) == 2 and told[0].startswith("exchanges: 3 steps, ms a step: compute 1000.00, wait ")
    assert told[1].startswith("exchanges: 1 steps, ms a step: compute 1000.00") and "larger minibatches" in told[1]
    assert not any(line.startswith("exchanges: ") for line in other)


def test_loss_between_meetings():
    """Whoever asks sees this rank's own minibatch; at a meeting, what all ranks have had since the last one."""

    def main():
        net, found = Net(), []
        trainer = net.trainer(ALGORITHMS["block"])
        for i in range(8):
            before = trainer.total_number_of_samples_seen
            trainer.train_minibatch(net.feed(i, 5))
            met = trainer.total_number_of_samples_seen - before
            assert trainer.previous_minibatch_sample_count == (met or 5)
            found.append((met, trainer.previous_minibatch_loss_average))
        return found

    one, two = simulate(main, 2)
    assert [met for met, _ in one] == [0, 0, 0, 0, 0, 60, 0, 0]
    assert all((a == b) == bool(met) for (met, a), (_, b) in zip(one, two, strict=True))


@pytest.mark.parametrize("n", [2, 3])
def test_real_ranks(n, tmp_path):
    names = ["full", "one_bit", "block", "bmuf", "asgd"]
    done = run_ranks(
        n,
        f"""
        import json, os
        from parallel.test_sessions import session
        found = {{name: session(name, ".") for name in {names}}}
        told = world.all_gather_bytes(json.dumps(found).encode(), "results")
        assert len(set(told)) == 1, told
        if world.is_main:
            print(json.dumps(found))
        """,
        tmp_path,
    )
    real = json.loads(done.stdout)
    (tmp_path / "virtual").mkdir()
    for name in set(names) - ASYNCHRONOUS:
        here = simulate(lambda name=name: session(name, tmp_path / "virtual"), n)[0]
        assert json.loads(json.dumps(here)) == real[name]
