"""The training loop that the papers share: a training session that draws the run's curve and saves when the run asks for it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import cogkit as C
from cogkit.papers.running import Out

__all__ = ["PaperSession"]


class PaperSession(C.TrainingSession):
    """Trains until the source ends. After every `epoch` samples the curve gets a point: the training error, in per cent, of the epoch's
    minibatches as they were trained on, and what `test()` gives.

    first: epochs that the run has trained before. keep: writes to a checkpoint's folder what is not of this training; state: goes to its
    JSON. `resume(folder)` goes on at a checkpoint.
    """

    def __init__(
        self,
        out: Out,
        trainer: C.Trainer,
        source,
        size: int,
        streams: Mapping,
        epoch: int,
        test: Callable[[], dict[str, float]],
        first: int = 0,
        keep: Callable[[Path], None] | None = None,
        **state,
    ):
        super().__init__(trainer, source, size, streams)
        self.out, self.epoch, self.measure, self.first, self.keep, self.state = out, epoch, test, first, keep, state
        self.wrong, self.seen, self.done = 0.0, 0, trainer.total_number_of_samples_seen

    def resume(self, folder: Path) -> None:
        """Goes on where a checkpoint was saved."""
        found = self.restore_from_checkpoint(folder / "trainer")
        self.wrong, self.seen, self.done = found["wrong"], found["seen"], self.trainer.total_number_of_samples_seen

    def on_minibatch_end(self) -> bool:
        trainer, out = self.trainer, self.out
        before, self.done = self.done, trainer.total_number_of_samples_seen
        n = self.done - before
        if not n:  # ranks that train apart count when they meet, and at the end there is one that has no samples
            return True
        self.wrong, self.seen = self.wrong + n * trainer.previous_minibatch_evaluation_average, self.seen + n
        error = 100 * self.wrong / self.seen
        out.advance(n, loss=trainer.previous_minibatch_loss_average, error=error)
        if self.done // self.epoch > before // self.epoch:
            out.point(epoch=self.first + self.done // self.epoch, train_error=error, **self.measure())
            self.wrong, self.seen = 0.0, 0
        if out.due():
            out.save(self._write, **self.state)
        return True

    def _write(self, folder: Path) -> None:
        self.save_checkpoint(folder / "trainer", {"wrong": self.wrong, "seen": self.seen})
        if self.keep is not None:
            self.keep(folder)
