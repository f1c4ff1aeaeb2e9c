"""What CNTK 2.7's training sessions call, in which order: sessions.json.

    path/to/cntk27/python make_session_goldens.py sessions.json

Rows of 25 samples, in order. A trace has `u<samples since the summary>` for a minibatch, `S<samples>` for a summary, `t<samples>` for a
minibatch of a test, `T<samples>` for a test, `V<index>@<samples trained on>` for the callback of a cross-validation.
"""

import json
import os
import sys
import tempfile

import cntk as C
from cntk.train import DataUnit

SAMPLE, MINIBATCH, SWEEP = "sample", "minibatch", "sweep"
SESSIONS = {
    "plain": {"max_samples": 30},
    "the source ends": {"source": {"max_samples": 30}},
    "summaries": {"max_samples": 30, "progress": [10, SAMPLE]},
    "summaries and callback": {"max_samples": 41, "progress": [10, SAMPLE], "cv": [20, SAMPLE]},
    "test at the end": {"max_samples": 30, "cv": None, "cv_source": 15},
    "units of minibatches": {"max_samples": 30, "cv": [3, MINIBATCH], "cv_source": 15, "progress": [3, MINIBATCH]},
    "nothing is left": {"max_samples": 24, "cv": [3, MINIBATCH]},
    "fewer minibatches than the frequency": {"max_samples": 22, "cv": [10, MINIBATCH]},
    "units of sweeps": {"max_samples": 80, "cv": [1, SWEEP]},
    "fewer samples than a sweep": {"max_samples": 20, "cv": [1, SWEEP], "progress": [1, SWEEP]},
    "a sweep of two": {"max_samples": 30, "cv": [2, SWEEP]},
    "sweeps of the source": {"source": {"max_sweeps": 3}, "cv": [1, SWEEP], "progress": [1, SWEEP]},
    "minibatches that fit the sweep": {"source": {"max_sweeps": 3}, "mb": 5, "cv": [1, SWEEP], "progress": [1, SWEEP]},
    "stopped": {"max_samples": 80, "cv": [20, SAMPLE], "stop": 1, "progress": [30, SAMPLE]},
    "stopped after a sweep": {"max_samples": 80, "cv": [1, SWEEP], "stop": 0, "progress": [30, SAMPLE]},
    "a frequency below the minibatch": {"max_samples": 50, "mb": 16, "cv": [5, SAMPLE]},
    "never": {"max_samples": 20, "cv": [0, SAMPLE], "progress": [0, SAMPLE]},
    "test": {"max_samples": 20, "test_source": 25},
    "sizes": {"max_samples": 40, "mb": [[2, 4, 8], 8]},
    "counted sizes": {"max_samples": 60, "mb": [[[1, 2], [2, 5]], 10]},
    "sizes of one sample": {"max_samples": 20, "mb": [[3, 5], 1]},
}


class Writer(C.cntk_py.ProgressWriter):
    def __init__(self, log):
        super().__init__(1, 0, 1, 0, sys.maxsize, 0)
        self.log = log

    def on_write_training_update(self, samples, updates, loss, metric):
        self.log.append(f"u{samples[1]}")

    def on_write_training_summary(self, samples, updates, summaries, loss, metric, elapsed):
        self.log.append(f"S{samples}")

    def on_write_test_update(self, samples, updates, metric):
        self.log.append(f"t{samples[1]}")

    def on_write_test_summary(self, samples, updates, summaries, metric, elapsed):
        self.log.append(f"T{samples}")

    def write(self, key, value):
        pass


def run(
    path, writers, mb=4, max_samples=None, source=None, cv=(0, SAMPLE), cv_source=None, stop=None, progress=None, test_source=None
):
    def read(**limits):
        streams = C.io.StreamDefs(a=C.io.StreamDef("x", 2), b=C.io.StreamDef("y", 1))
        if not limits:
            limits["max_sweeps"] = C.io.INFINITELY_REPEAT
        return C.io.MinibatchSource(C.io.CTFDeserializer(path, streams), randomize=False, **limits)

    log = []
    x, y = C.input_variable(2), C.input_variable(1)
    z = C.layers.Dense(1)(x)
    writers.append(Writer(log))  # CNTK does not hold it
    trainer = C.Trainer(z, (C.squared_error(z, y), C.squared_error(z, y)), [C.sgd(z.parameters, 1e-5)], [writers[-1]])

    def callback(index, error, samples, minibatches):
        log.append(f"V{index}@{trainer.total_number_of_samples_seen}")
        return stop is None or index < stop

    frequency = None if cv is None else (cv[0], DataUnit[cv[1]])
    given = None if cv_source is None else read(max_samples=cv_source)
    configs = {"cv_config": C.CrossValidationConfig(given, frequency, 10, callback)}
    if test_source is not None:
        configs["test_config"] = C.TestConfig(read(max_samples=test_source), 7)
    train = read(**(source or {}))
    size = (
        mb if isinstance(mb, int) else C.minibatch_size_schedule([tuple(s) if isinstance(s, list) else s for s in mb[0]], mb[1])
    )
    often = None if progress is None else (progress[0], DataUnit[progress[1]])
    C.training_session(trainer, train, size, {x: train.streams.a, y: train.streams.b}, often, max_samples, **configs).train()
    return " ".join(log)


def main(out):
    path = os.path.join(tempfile.mkdtemp(), "rows.ctf")
    with open(path, "w") as f:
        f.write("".join(f"|x {i % 5} {i % 7} |y {i % 3}\n" for i in range(25)))
    writers = []
    made = {name: {"session": session, "trace": run(path, writers, **session)} for name, session in SESSIONS.items()}
    with open(out, "w") as f:
        f.write("{\n" + ",\n".join(json.dumps(k) + ": " + json.dumps(v) for k, v in made.items()) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
