"""Progress writers: when they speak, what they say, and that a pipe gets plain lines."""

import io
import json

import pytest

from cogkit import logging as P


class Spy(P.ProgressWriter):
    def __init__(self, *args):
        super().__init__(*args)
        self.calls = []

    def on_write_training_update(self, samples, updates, aggregate_loss, aggregate_metric):
        self.calls.append((samples, updates, aggregate_loss, aggregate_metric))


@pytest.mark.parametrize(
    ("freq", "first", "expected"),
    [(0, 0, [1, 3, 7, 15]), (5, 0, [5, 10, 15]), (5, 2, [1, 2, 5, 10, 15]), (None, 0, []), (None, 1, [1])],
)
def test_when_lines_are_due(freq, first, expected):
    spy = Spy(freq, first)
    for _ in range(16):
        spy.update_training(10, 20.0, 5.0)
    assert [updates[1] for _, updates, _, _ in spy.calls] == expected
    assert spy.total_training_updates == 16


def test_pairs_are_before_and_now():
    spy = Spy(2)
    for i in range(4):
        spy.update_training(10, float(i), None)
    assert spy.calls == [((0, 20), (0, 2), (0.0, 1.0), None), ((20, 40), (2, 4), (1.0, 6.0), None)]


def test_printer_lines(capsys):
    printer = P.ProgressPrinter(2, tag="run", num_epochs=3, test_freq=1)
    for _ in range(2):
        printer.update_training(10, 5.0, 1.0)
    printer.update_test(4, 1.0)
    printer.write("learning rate", 0.1)
    printer.write_training_summary()
    printer.write_test_summary()
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "[run] minibatch 1-2: loss 0.500000, metric 10.00% over 20 samples"
    assert out[1] == "[run] test minibatch 1: metric 25.00% over 4 samples"
    assert out[2] == "[run] learning rate: 0.1"
    assert out[3].startswith("[run] epoch 1 of 3: loss 0.500000, metric 10.00% over 20 samples in ")
    assert out[4].startswith("[run] test 1: metric 25.00% over 4 samples in 1 minibatches")


def test_geometric_table(capsys):
    printer = P.ProgressPrinter(0, metric_is_pct=False)
    for i in range(3):
        printer.update_training(2, 2.0 * i, 1.0)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["samples", "loss", "since", "last", "metric", "since", "last"]
    assert first.split() == ["2", "0", "0", "0.500000", "0.500000"]
    assert second.split() == ["6", "1", "1.5", "0.500000", "0.500000"]


def test_file_of_a_rank(tmp_path, capsys):
    printer = P.ProgressPrinter(1, log_to_file=tmp_path / "log", rank=2)
    printer.update_training(1, 1.0, None)
    assert (tmp_path / "logrank2").read_text() == "minibatch 1: loss 1.000000 over 1 samples\n"


def test_older_way():
    printer = P.ProgressPrinter()
    printer.update(2.0, 10, 0.5)
    printer.update(1.0, 30, 0.1)
    assert printer.avg_loss_since_last() == 1.25
    assert printer.reset_last() == (1.25, pytest.approx(0.2), 40)
    assert printer.epoch_summary(with_metric=True) == (1.25, pytest.approx(0.2), 40)
    assert printer.avg_loss_since_start() == 0.0


def test_summary_callback():
    seen = []
    writer = P.TrainingSummaryProgressCallback(20, lambda *args: seen.append(args))
    for _ in range(5):
        writer.update_training(10, 5.0, None)
    assert seen == [(0, 0.5, None, 20), (1, 0.5, None, 20)]


class Source:
    wait_seconds = 0.0


def test_live_progress_in_a_pipe_is_plain_lines():
    out = io.StringIO()
    source = Source()
    with P.LiveProgress(total=100, source=source, interval=0.0, file=out) as live:
        live.skip(50)
        live.update_training(10, 20.0, 1.0)
        source.wait_seconds = 1e6
        live.update_training(10, 20.0, 1.0)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("training: 60% 60 samples, ")
    assert ", loss 2.0000, metric 10.00%, wait 0%, left 0:00" in lines[0]
    assert ", wait 100%, " in lines[1]
    assert lines[2].startswith("training: 20 samples in 0:00, ")


def test_live_progress_goes_on_at_a_checkpoint():
    first, out = P.LiveProgress(total=100, file=io.StringIO()), io.StringIO()
    first.update_training(40, 1.0, None)
    with P.LiveProgress(total=100, interval=0.0, file=out) as live:
        live.restore_from_checkpoint(first.get_checkpoint_state())
        live.update_training(10, 20.0, 1.0)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("training: 50% 50 samples, ") and lines[1].startswith("training: 10 samples in ")


@pytest.mark.parametrize("value", [1.5, float("inf"), float("nan")])
def test_sums_go_on_at_a_checkpoint(value):
    first, second = Spy(2), Spy(2)
    for _ in range(3):
        first.update_training(10, value, 1.0)
        first.update_test(4, 2.0)
    second.restore_from_checkpoint(json.loads(json.dumps(first.get_checkpoint_state(), allow_nan=False)))
    for spy in (first, second):
        spy.update_training(10, 2.0, 1.0)
        spy.write_training_summary()
    assert repr(second.calls) == repr(first.calls[1:]) and second.total_training_updates == 4


def test_live_progress_in_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    with P.LiveProgress(total=40, file=out) as live:
        live._interval = 0.0
        live._next = 0.0
        for _ in range(4):
            live.update_training(10, 20.0, 1.0)
    assert "40/40" in out.getvalue() and "metric 10.00%" in out.getvalue()


def test_refusals():
    with pytest.raises(ValueError, match="expected freq of 0 or more"):
        P.ProgressPrinter(-1)
    with pytest.raises(ValueError):
        P.set_trace_level(9)
