"""Trainer and Evaluator: one minibatch in, parameters changed, loss and metric out.

A training minibatch is two plans: one computes the sums of loss and metric and all gradients, one a learner updates its
parameters from the arrays that the first left. Everything that depends only on which variables are fed is found once.
"""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cogkit.engine.device import on_device
from cogkit.engine.executable import Executable
from cogkit.engine.feeds import bind_feeds
from cogkit.engine.seeding import Run, random_state
from cogkit.engine.watch import watched_table
from cogkit.functions import Function
from cogkit.learners.learner import GraphLearner, Learner
from cogkit.ops import combine
from cogkit.ops.rows import has_steps
from cogkit.residence import bring, elsewhere
from cogkit.train.checkpoint import read_checkpoint, write_checkpoint
from cogkit.train.ranks import ALONE, MinibatchInfo, communicator_of
from cogkit.variables import Parameter, Variable
from cogkit.walks import nodes_of

__all__ = ["Evaluator", "Trainer"]

MEMORIES = 4  # sets of gradient arrays that are kept sorted: full and last minibatches, with and without wanted outputs


def _function(value: Any, what: str) -> Function:
    if isinstance(value, Function):
        return value
    if isinstance(value, Variable):
        return combine([value])
    raise TypeError(f"Trainer: expected a function or variable as {what}, got {type(value).__name__}")


def _criterion(criterion: Any) -> tuple[Function, Function | None]:
    """(loss, metric or None) of a function with one or two outputs, or of a tuple of one or two."""
    if isinstance(criterion, Variable):
        criterion = (criterion,)
    parts = list(criterion.outputs if isinstance(criterion, Function) else criterion)
    if len(parts) == 2 and parts[1] is None:
        parts.pop()
    if len(parts) not in (1, 2):
        raise ValueError(f"Trainer: expected a criterion of one or two outputs (loss, metric), got {len(parts)}")
    made = [_function(part, "criterion") for part in parts]
    for f, what in zip(made, ("loss", "metric"), strict=False):
        if len(f.outputs) != 1:
            raise ValueError(f"Trainer: expected a {what} with one output, got {len(f.outputs)}; pass (loss, metric) as a tuple")
        left = f.placeholders
        if left:
            raise ValueError(
                f"Trainer: expected a {what} of inputs, got one of placeholders {left[0]!r}; apply the criterion to inputs first"
            )
    return made[0], made[1] if len(made) == 2 else None


def _counted(f: Function) -> tuple[Any, ...]:
    """The row space whose rows are the samples of a criterion: its own, or where reduced that of the nearest value with one."""
    axes = f.output.dynamic_axes
    if axes:
        return axes
    for node in reversed(nodes_of(f.root)):
        for v in node.operands:
            if v.dynamic_axes:
                return v.dynamic_axes
    return ()


class _Step:
    """One executable with what is known of the feeds it was given before."""

    def __init__(self, place: str, executable: Executable, axes: tuple[Any, ...], known: Sequence[Variable], training: bool):
        self.place, self.executable, self.axes, self.known, self.training = place, executable, axes, known, training
        self.rank = 0  # ranks draw other random numbers for their samples
        self.keys: tuple[Any, ...] | None = None
        self.used: list[tuple[Any, Variable]] = []
        self.rows = next((v for v in executable.arguments if v._axes == axes), None)

    def _learn(self, keys: tuple[Any, ...]) -> None:
        """Finds which fed key is which argument; ValueError for unknown, repeated and missing ones."""
        pairs: dict[Variable, Any] = {}
        names = ", ".join(v.name or v.uid for v in self.known)
        for key in keys:
            v = key
            if isinstance(key, str):
                found = [a for a in self.known if a.name == key]
                if len(found) != 1:
                    raise ValueError(f"{self.place}: expected the names of inputs ({names}), got {key!r}")
                v = found[0]
            elif isinstance(key, Function):
                v = key.output
            if not any(v is a for a in self.known):
                raise ValueError(f"{self.place}: expected data for the inputs {names}, got some for {v!r} too; leave it out")
            if v in pairs:
                raise ValueError(f"{self.place}: expected each input once, got {v!r} twice")
            pairs[v] = key
        for v in self.executable.arguments:
            if v not in pairs:
                raise ValueError(f"{self.place}: expected data for {v!r}, got none; feed it: {{variable: array}}")
        self.used = [(pairs[v], v) for v in self.executable.arguments]
        self.keys = keys

    def run(self, arguments: Any, step: int, arrivals: Any = None, first: int = 0) -> tuple[list[np.ndarray], int, bool | None]:
        """(arrays, samples, whether the sweep ends - None where the data do not say). arrivals: told of arrays from `first` on."""
        begins = None
        if isinstance(arguments, tuple) and len(arguments) == 2:
            arguments, begins = arguments
            if not any(has_steps(v._axes) for v in self.executable.arguments):
                raise ValueError(
                    f"{self.place}: expected a dict that feeds the inputs, got flags too; no input has a sequence axis"
                )
        if not isinstance(arguments, Mapping):
            free = [v for v in self.known if any(v is a for a in self.executable.arguments)]
            if len(free) != 1:
                raise ValueError(f"{self.place}: expected a dict that feeds {len(free)} inputs, got {type(arguments).__name__}")
            arguments = {free[0]: arguments}
        keys = tuple(arguments)
        if keys != self.keys:
            self._learn(keys)
        feeds, sweep = {}, None
        for key, v in self.used:
            value = arguments[key]
            if hasattr(value, "end_of_sweep"):  # data of a minibatch source
                sweep = bool(value.end_of_sweep) or bool(sweep)
                if getattr(value, "lengths", None) is None:
                    value = value.asarray()
            feeds[v] = (value, begins) if begins is not None and has_steps(v._axes) else value
        arrays, types, sizes = bind_feeds(feeds)
        plan = self.executable.plan(types, sizes)
        samples = int(sizes.get(self.axes, 1))
        if self.training and samples < 1:
            raise ValueError(f"{self.place}: expected at least one sample, got none")
        if arrivals is not None:
            arrivals.expect(first, samples)
        found = plan.run(arrays, sizes, Run(random_state.seed, step, self.rank << 32, arrivals))
        if self.axes and self.axes not in sizes:  # samples of a row space that the graph makes
            samples = int(plan.sizes.get(self.axes, 1))
        return found, samples, sweep


def _floats(sums: Sequence[np.ndarray]) -> tuple[float, float | None]:
    """(loss, metric or None) of their arrays."""
    return float(bring(sums[0])), float(bring(sums[1])) if len(sums) > 1 else None


def _is_empty(arguments: Any) -> bool:
    """Whether a minibatch has no samples: no data at all, or a share of a source's minibatch without any."""
    values = arguments.values() if isinstance(arguments, Mapping) else ()
    return isinstance(arguments, Mapping) and all(getattr(v, "num_samples", 1) == 0 for v in values)


def _writers(writers: Any) -> list[Any]:
    if writers is None:
        return []
    return list(writers) if isinstance(writers, (list, tuple)) else [writers]


class Evaluator:
    """Averages a metric over minibatches, in test mode: dropout keeps everything, statistics are the running ones.

    eval_function: a function or variable with one output; progress_writers: one or a list, told of every minibatch.
    """

    def __init__(self, eval_function: Any, progress_writers: Any = None):
        self._metric = None if eval_function is None else _function(eval_function, "metric")
        self.progress_writers = _writers(progress_writers)
        self._test: _Step | None = None
        self._tested = 0
        self._ranks = communicator_of()

    @property
    def evaluation_function(self) -> Function | None:
        """The metric."""
        return self._metric

    def _arguments(self) -> list[Variable]:
        return list(self._metric.arguments)

    def test_minibatch(self, arguments: Any, device: Any = None, distributed: bool = False) -> float:
        """The average of the metric over the samples of one minibatch; `distributed`: of the minibatches of all ranks.

        device: as of `train_minibatch`. Raises ValueError for feeds that do not fit.
        """
        with on_device(device):
            total, samples = self.test_sums(arguments, distributed)
        return total / samples if samples else 0.0

    def test_sums(self, arguments: Any, distributed: bool = False) -> tuple[float, int]:
        """As `test_minibatch`, but (sum of the metric, samples)."""
        if self._metric is None:
            raise ValueError("test_minibatch: expected a metric, got none; pass criterion=(loss, metric)")
        total, samples = 0.0, 0
        if not (distributed and _is_empty(arguments)):  # else other ranks may have data
            total, samples = self._evaluate(arguments)
        if distributed:
            ranks = communicator_of() if self._ranks is ALONE else self._ranks  # those of the process may be known since
            total, count = ranks.sum(np.array([total, samples], np.float64)).tolist()
            samples = int(count)
        for writer in self.progress_writers:
            writer.update_test(samples, total)
        return total, samples

    def _evaluate(self, arguments: Any) -> tuple[float, int]:
        if self._test is None:
            executable = Executable(sums=[self._metric.output], reuse=True)
            self._test = _Step("test_minibatch", executable, _counted(self._metric), self._arguments(), False)
        found, samples, _ = self._test.run(arguments, self._tested)
        self._tested += 1
        return float(bring(found[0])), samples

    def summarize_test_progress(self) -> None:
        """Has the progress writers report the test's sums and start new ones."""
        for writer in self.progress_writers:
            writer.write_test_summary()

    def print_node_timing(self) -> None:
        """Prints the times of instructions, where `debugging.set_node_timing` measures them; else the evaluation's plan."""
        if self._metric is not None:
            print(watched_table() or self._metric.explain())


class Trainer(Evaluator):
    """Trains the parameters that its learners cover.

    model: the function trained (None: only the criterion). criterion: (loss, metric), a loss alone, or a function of both.
    parameter_learners: one or a list; no parameter may have two. All or none are distributed, see `cogkit.train.ranks`; then
    loss, metric and counts are those of all ranks. progress_writers: one or a list.
    Raises ValueError for a parameter with two learners, a learner of foreign parameters or a criterion of placeholders; warns of
    parameters without a learner, which stay as they are.
    """

    def __init__(self, model: Any, criterion: Any, parameter_learners: Any, progress_writers: Any = None):
        loss, metric = _criterion(criterion)
        super().__init__(metric, progress_writers)
        self._model = None if model is None else _function(model, "model")
        self._loss = loss
        learners = list(parameter_learners) if isinstance(parameter_learners, (list, tuple)) else [parameter_learners]
        self._learners = self._check(learners)
        self._ranks = communicator_of(self._learners)
        self._distributed = bool(getattr(self._learners[0], "is_distributed", False))
        lead = getattr(self._learners[0], "lead", None)
        self._arrivals = None if lead is None else lead(self._learners)
        told = [k for k, learner in enumerate(self._learners) if getattr(learner, "is_metric_aggregator", False)]
        self._aggregator = told[0] if told else 0
        for learner in self._learners:
            if self.progress_writers:
                learner.add_progress_writers(self.progress_writers)
        self._reads_gradients = self._distributed or not all(isinstance(learner, GraphLearner) for learner in self._learners)
        self._wrt = [p for learner in self._learners for p in learner.parameters]
        self._steps: dict[tuple[int, ...], _Step] = {}
        self._main: _Step | None = None
        self._seen: list[np.ndarray] = []  # gradients of the last minibatch: the same arrays come again
        self._gradients: list[dict[Parameter, np.ndarray]] = []
        self._memories: dict[tuple[int, ...], list[dict[Parameter, np.ndarray]]] = {}  # addresses -> gradients by learner
        self._minibatches = 0
        self._loss_sum = self._metric_sum = 0.0
        self._samples = 0

    def _parts(self) -> list[Function]:
        return [f for f in (self._model, self._loss, self._metric) if f is not None]

    def _arguments(self) -> list[Variable]:
        return list({id(v): v for f in self._parts() for v in f.arguments if v.is_input}.values())

    def _check(self, learners: list[Any]) -> list[Learner]:
        if not learners:
            raise ValueError("Trainer: expected at least one learner, got none; for testing alone use Evaluator")
        have = list({id(p): p for f in self._parts() for p in f.parameters}.values())
        owned: set[int] = set()
        for learner in learners:
            if not isinstance(learner, Learner):
                raise TypeError(
                    f"Trainer: expected learners, got {type(learner).__name__}; make one with C.sgd(model.parameters, lr)"
                )
            for p in learner.parameters:
                if not any(p is q for q in have):
                    raise ValueError(
                        f"Trainer: expected learners of the model's parameters, got one of {p!r}, which the model has not"
                    )
                if id(p) in owned:
                    raise ValueError(f"Trainer: expected one learner for each parameter, got two for {p!r}")
                owned.add(id(p))
        distributed = [bool(getattr(learner, "is_distributed", False)) for learner in learners]
        if len(set(distributed)) > 1:
            raise ValueError(
                "Trainer: expected distributed learners or local ones, got both; "
                f"make learner {distributed.index(False) + 1} a distributed one too"
            )
        left = [p for p in have if id(p) not in owned]
        if left:
            names = ", ".join(p.name or p.uid for p in left[:5]) + (", ..." if len(left) > 5 else "")
            warnings.warn(f"Trainer: no learner for {len(left)} parameters ({names}); they will not be learned", stacklevel=3)
        return learners

    # what it holds -------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Function | None:
        """The function that is trained."""
        return self._model

    @property
    def loss_function(self) -> Function:
        """The loss."""
        return self._loss

    @property
    def parameter_learners(self) -> list[Learner]:
        """The learners."""
        return self._learners

    @property
    def previous_minibatch_loss_average(self) -> float:
        """Loss per sample of the last minibatch: of all ranks; where they train apart of this one, and when they meet of all since then."""
        return self._loss_sum / self._samples if self._samples else 0.0

    @property
    def previous_minibatch_evaluation_average(self) -> float:
        """Metric per sample of the last minibatch, as the loss; ValueError when there is no metric."""
        if self._metric is None:
            raise ValueError("previous_minibatch_evaluation_average: expected a metric, got none; pass criterion=(loss, metric)")
        return self._metric_sum / self._samples if self._samples else 0.0

    @property
    def previous_minibatch_sample_count(self) -> int:
        """Samples in the last minibatch, of those whose loss is told."""
        return self._samples

    @property
    def total_number_of_samples_seen(self) -> int:
        """Samples in all minibatches so far, of all ranks."""
        return self._learners[0].total_number_of_samples_seen()

    def total_number_of_units_seen(self, unit: Any = "sample") -> int:
        """Samples, minibatches or sweeps so far; unit: 'sample', 'minibatch', 'sweep', or CNTK's DataUnit."""
        word = getattr(unit, "name", unit)
        counts = {"sample": "samples", "minibatch": "minibatches", "sweep": "sweeps"}
        if word not in counts:
            raise ValueError(f"total_number_of_units_seen: expected 'sample', 'minibatch' or 'sweep', got {unit!r}")
        return getattr(self._learners[0], f"total_number_of_{counts[word]}_seen")()

    # training ------------------------------------------------------------------------------------------------------

    def _make(self, outputs: tuple[Variable, ...]) -> _Step:
        sums = [self._loss.output] + ([] if self._metric is None else [self._metric.output])
        lists = [p for learner in self._learners for p in learner.parameters if learner.takes_rows(p)]
        executable = Executable(outputs, sums, self._loss.output, self._wrt, training=True, reuse=True, lists=lists)
        step = _Step("train_minibatch", executable, _counted(self._loss), self._arguments(), True)
        step.rank = self._ranks.rank()
        return step

    def train_minibatch(self, arguments: Any, outputs: Any = None, device: Any = None, is_sweep_end: bool | None = None) -> Any:
        """One step: gradients of the loss over a minibatch, then every learner's update.

        arguments: {input: array or stream of a minibatch source}, names allowed; empty: nothing is done, False (with distributed
        learners: an update from what the other ranks have, False when none has data). outputs:
        functions or variables whose values are wanted. A pair (arguments, [flag a sequence]) says which sequences are new: the others go
        on where those of the minibatch before ended. is_sweep_end: for arrays, whether a sweep over the data ends here.
        device: where it runs, which the first minibatch decides (None: the default device).
        Returns whether any learner goes on, with `outputs` a pair (that, {variable: array}). Raises ValueError for feeds that do
        not fit: missing, unknown, of another shape or number of samples.
        """
        with on_device(device):
            return self._minibatch(arguments, outputs, is_sweep_end)

    def _minibatch(self, arguments: Any, outputs: Any, is_sweep_end: bool | None) -> Any:
        if _is_empty(arguments) and (self._distributed or not arguments):
            ends = any(bool(getattr(v, "end_of_sweep", False)) for v in arguments.values()) or bool(is_sweep_end)
            sums = [np.zeros(())] * (1 if self._metric is None else 2)
            more = self._distributed and self._update(self._zeros(), 0, sums, ends)
            return (more, {}) if outputs else more
        wanted: tuple[Variable, ...] = ()
        if outputs:
            listed = [outputs] if isinstance(outputs, (Variable, Function)) else outputs
            wanted = tuple(v.output if isinstance(v, Function) else v for v in listed)
            key = tuple(map(id, wanted))
            step = self._steps.get(key)
            if step is None:
                step = self._steps[key] = self._make(wanted)
        else:
            step = self._main
            if step is None:
                step = self._main = self._make(())
        at = len(wanted) + (1 if self._metric is None else 2)
        found, n, sweep = step.run(arguments, self._minibatches, self._arrivals, at)
        if is_sweep_end is not None:
            if sweep is not None:
                raise ValueError(
                    "train_minibatch: expected no is_sweep_end with data of a minibatch source, which say it themselves"
                )
            sweep = is_sweep_end
        arrays = found[at:]
        if len(arrays) != len(self._seen) or not all(map(operator.is_, arrays, self._seen)):
            self._take(arrays)
        if elsewhere and self._reads_gradients:
            for array in arrays:
                bring(array)
        more = self._update(self._gradients, n, found[len(wanted) : at], bool(sweep))
        if outputs:
            return more, dict(zip(wanted, found, strict=False))
        return more

    def _update(self, gradients: list[dict[Parameter, np.ndarray]], n: int, sums: list[np.ndarray], ends: bool) -> bool:
        """Every learner's update, then the minibatch is counted and told to the writers; whether any learner goes on.

        sums: of loss and metric; on a device they are waited for when the updates are on their way.
        """
        more = False
        if self._distributed:
            loss, metric = _floats(sums)
            count = len(self._learners)
            infos = [MinibatchInfo(n, loss, metric, ends, i, count) for i in range(count)]
            if self._arrivals is not None:
                self._arrivals.end(gradients, n)
            for learner, mine, info in zip(self._learners, gradients, infos, strict=True):
                more = learner.train_distributed(mine, info) or more
            told = infos[self._aggregator]
            if n and told.apart and not told.samples:
                self._samples, self._loss_sum, self._metric_sum = n, loss, metric or 0.0  # until ranks report together
            n, loss, metric = int(told.samples), float(told.loss), None if told.metric is None else float(told.metric)
        else:
            for learner, mine in zip(self._learners, gradients, strict=True):
                more = learner.train(mine, n, ends) or more
            loss, metric = _floats(sums)
        self._minibatches += 1
        if n:
            self._samples, self._loss_sum, self._metric_sum = n, loss, metric or 0.0
            for writer in self.progress_writers:
                writer.update_training(n, loss, metric)
        return more

    def _zeros(self) -> list[dict[Parameter, np.ndarray]]:
        """The gradients of no samples."""
        return [{p: np.zeros(p.shape, p.dtype) for p in learner.parameters} for learner in self._learners]

    def _take(self, arrays: list[np.ndarray]) -> None:
        """Sorts gradients by learner, once for each memory that they come in; learners read the first such memory in place.

        The arrays are kept, so that no others can have the same addresses.
        """
        self._seen = arrays
        addresses = tuple([a.__array_interface__["data"][0] for a in arrays])
        known = self._memories.get(addresses)
        if known is None:
            rest = iter(arrays)
            known = [{p: next(rest) for p in learner.parameters} for learner in self._learners]
            if not self._memories and len(set(addresses)) == len(
                addresses
            ):  # equal gradients may share memory: not to be written
                for learner, mine in zip(self._learners, known, strict=True):
                    learner.use_buffers(mine)
            if len(self._memories) < MEMORIES:
                self._memories[addresses] = known
        self._gradients = known

    def summarize_training_progress(self) -> None:
        """Has the progress writers report the sums since the last summary and start new ones."""
        report = getattr(self._learners[0], "exchange_report", str)()
        for writer in self.progress_writers:
            writer.write_training_summary(self._metric is not None)
            if report and hasattr(writer, "log"):
                writer.log(report)

    def print_node_timing(self) -> None:
        """Prints the times of instructions, where `debugging.set_node_timing` measures them; else the plan of the loss."""
        print(watched_table() or self._loss.explain())

    # checkpoints ---------------------------------------------------------------------------------------------------

    def save_checkpoint(self, filename: str | os.PathLike, external_state: Mapping[str, Any] | None = None) -> None:
        """Writes the model as `filename` and all else (learners, random state, counts) as `filename`.ckp, aside and renamed into place.

        external_state: plain data of the caller's, such as the position of a minibatch source. Of several ranks each calls it: the first
        writes both files, the others keep their learners' state beside them. Raises ModelFileError for what cannot be stored, OSError
        from the disk; an older checkpoint of that name then stays.
        """
        carried = [] if self._main is None else self._main.executable.carried
        write_checkpoint(filename, self._parts(), self._learners, self._own(), external_state or {}, carried, self._ranks)

    def restore_from_checkpoint(self, filename: str | os.PathLike) -> dict[str, Any]:
        """Puts model, learners, random state and counts back to a checkpoint; returns its external state.

        The same model and learners must have been built: schedules are the checkpoint's, everything else is compared.
        Raises FileNotFoundError for no checkpoint, ModelFileError that names the first difference; nothing is changed then.
        """
        own, external, carried = read_checkpoint(filename, self._parts(), self._learners, self._own(), self._ranks)
        if self._main is None:
            self._main = self._make(())
        self._main.executable.carried[:] = carried
        self._take_own(own)
        return external

    def _take_own(self, own: Mapping[str, Any]) -> None:
        self._minibatches, self._tested, self._samples = own["minibatches"], own["tested"], own["samples"]
        self._loss_sum, self._metric_sum = own["loss"], own["metric"]
        random_state.begin(own["seed"], own["step"])

    def snapshot(self) -> Callable[[], None]:
        """Keeps in memory all that the next minibatch depends on, as a checkpoint does; the returned function puts it back, any number
        of times. Of several ranks each calls both.
        """
        for learner in self._learners:
            learner.settle()
        learners = [learner.create_checkpoint() for learner in self._learners]
        leaves = [v for f in self._parts() for v in (*f.parameters, *f.constants) if not v.is_sparse]
        values = [v.value for v in leaves]
        carried = [] if self._main is None else [(last.copy(), steps.copy()) for last, steps in self._main.executable.carried]
        own = self._own()

        def back() -> None:
            for learner, state in zip(self._learners, learners, strict=True):
                learner.settle()
                learner.restore_from_checkpoint(state)
            for v, value in zip(leaves, values, strict=True):
                v.value = value
            if self._main is not None:
                self._main.executable.carried[:] = [(last.copy(), steps.copy()) for last, steps in carried]
            self._take_own(own)

        return back

    def _own(self) -> dict[str, Any]:
        return {
            "minibatches": self._minibatches,
            "tested": self._tested,
            "samples": self._samples,
            "loss": self._loss_sum,
            "metric": self._metric_sum,
            "seed": random_state.seed,
            "step": random_state.step,
        }
