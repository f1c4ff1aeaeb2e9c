"""What a function does when it runs: values, gradients, training, files. The engine does it: `runtime`, which it sets itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cogkit import variables
from cogkit.variables import Variable

if TYPE_CHECKING:
    from cogkit.functions import Function

__all__ = ["Evaluated"]

runtime: Any = None  # set by the engine, which the graph never imports


class Evaluated:
    """The part of a function that runs."""

    def eval(self, arguments: Any = None, outputs: Any = None, device=None, as_numpy: bool = True) -> Any:
        """The value of the outputs for fed arguments; an array for one output, else a dict variable -> array.

        arguments: {variable: data}, or the data of the only argument. Raises `ValueError` for missing or ill-shaped feeds.
        """
        with runtime.on(device):
            values = runtime.evaluate(self._graph(), arguments, outputs, False, as_numpy)
        return next(iter(values.values())) if len(values) == 1 else values

    def forward(
        self, arguments: Any, outputs: Any = None, keep_for_backward: Any = None, device=None, as_numpy: bool = True
    ) -> tuple[Any, dict]:
        """Computes outputs and keeps what `backward` needs: (state, {output: array}); state is None when nothing is kept."""
        with runtime.on(device):
            return runtime.forward(self._graph(), arguments, outputs, keep_for_backward, as_numpy)

    def backward(self, state: Any, root_gradients: Any, variables: Any, as_numpy: bool = True) -> dict:
        """Gradients of the kept outputs with respect to `variables`, as {variable: array}."""
        return runtime.backward(self._graph(), state, root_gradients, variables, as_numpy)

    def grad(
        self, at: Any, wrt: Any = None, outputs: Any = None, device=None, as_numpy: bool = True, grad_root: Any = None
    ) -> Any:
        """Gradient of the (one) output, summed over its elements, with respect to `wrt` (default: all arguments that need one, as in CNTK).

        Returns an array for one variable, else {variable: array}; with `outputs`, a pair (gradients, {output: value}).
        """
        with runtime.on(device):
            return runtime.grad(self._graph(), at, wrt, outputs, grad_root, as_numpy)

    def train(
        self,
        minibatch_source: Any,
        minibatch_size: Any = 32,
        streams: Sequence[Any] | None = None,
        model_inputs_to_streams: dict | None = None,
        parameter_learners: Any = (),
        callbacks: Any = (),
        progress_frequency: Any = None,
        max_epochs: int | None = None,
        epoch_size: int | None = None,
        max_samples: int | None = None,
    ) -> variables.Record:
        """Trains this criterion, a loss or (loss, metric), by a training session; gives Record(updates, epoch_summaries[, test_summary]).

        minibatch_source: a source with `streams` in the order of the arguments (or model_inputs_to_streams), or a tuple of arrays, CSR
        matrices or lists of sequences in that order. callbacks: progress writers and at most one each of `CheckpointConfig`,
        `CrossValidationConfig`, `TestConfig`. epoch_size: samples between summaries, of arrays their number by default; progress_frequency:
        the same, for summaries alone. It ends after max_samples, or max_epochs (1) of epoch_size, or with the source. Items are
        Record(loss, metric, samples), averages over minibatches and epochs; without a metric theirs is NaN (0 in CNTK).
        Raises ValueError, TypeError.
        """
        return runtime.train(
            self,
            minibatch_source,
            minibatch_size,
            streams,
            model_inputs_to_streams,
            parameter_learners,
            callbacks,
            progress_frequency,
            max_epochs,
            epoch_size,
            max_samples,
        )

    def test(
        self,
        minibatch_source: Any,
        minibatch_size: Any = 32,
        streams: Sequence[Any] | None = None,
        model_inputs_to_streams: dict | None = None,
        callbacks: Any = None,
    ) -> variables.Record:
        """The average of the metric of this criterion, or of its one output, over a source or arrays: Record(metric, samples).

        Arguments are those of `train`; callbacks: progress writers. Raises ValueError, TypeError.
        """
        return runtime.test(self, minibatch_source, minibatch_size, streams, model_inputs_to_streams, callbacks)

    def explain(self, feed: Any = None) -> str:
        """What will run: each pass, instructions, formats, fused groups, buffers, peak memory."""
        return runtime.explain(self._graph(), feed)

    def save(self, filename: str, format: Any = None, use_external_files_to_store_parameters: bool = False) -> None:
        """Writes the model as one file; see `cogkit.store`."""
        runtime.save(self, filename, format)

    @staticmethod
    def load(model: Any, device=None, format: Any = None) -> Function:
        """Reads a model that `save` wrote."""
        return runtime.load(model, format)

    @staticmethod
    def register_udf_deserialize_callback(op_name: str, callback: Callable[[list[Variable], str, Any], Any]) -> None:
        """Says how user functions that files call `op_name` are made: callback(inputs, name, state). Raises `ValueError` for a second one."""
        from cogkit.ops.user import register_callback

        register_callback(op_name, callback)

    def serialize(self) -> Any:
        """What a model file holds of the last node beside its operands: op, name, attributes; of a user function its state too."""
        return self.root.stored()

    def restore(self, filename: str) -> None:
        """Takes the parameter values from a file that `save` wrote for the same graph."""
        runtime.restore(self, filename)
