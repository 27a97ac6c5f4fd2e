"""The best checkpoint of a run, `best/`, and the validation loss that it has.

`best/validation.json` says what the loss was measured on, so that only a lower loss on the same
validation set replaces the checkpoint, whatever the run resumes from:

    {"model-20": {"loss": 2.91, "validation_set": 3735928559, "training_loss": 2.4}}

While a new best is saved, the file also describes the previous one: the entry of the checkpoint
that is in the folder counts.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.run import RunFolder
from gpt2.errors import UserError, cannot_write
from gpt2.training.progress import TrainingProgress

if TYPE_CHECKING:
    from gpt2.training.trainer import Trainer

VALIDATION_FILE = "validation.json"


class BestValidation(NamedTuple):
    """What is known about the checkpoint in `best/`."""

    step: int
    loss: float  # nats
    validation_set: int  # its fingerprint
    training_loss: float  # recent training loss at that step; infinite if unknown

    def adopt_into(self, progress: TrainingProgress) -> None:
        """Let a run whose own progress is lost continue the search from here."""
        progress.best_step, progress.best_loss = self.step, self.loss
        progress.best_average, progress.validated_on = self.training_loss, self.validation_set


class BestCheckpoint:
    """The folder `best/` of a run."""

    def __init__(self, run: RunFolder):
        """Represent the folder, which need not exist."""
        self._run = run
        self.folder = run.best

    @property
    def exists(self) -> bool:
        """Whether there is a best checkpoint."""
        return self._name() is not None

    def read(self, progress: TrainingProgress | None = None) -> BestValidation | None:
        """Return what is known about the checkpoint, or None.

        Args:
            progress: of the run; older versions wrote the loss there only.
        """
        name = self._name()
        if name is None:
            return None
        step = self.folder.step_of(Path(name))
        try:
            entry = files.read_json_object(self.folder.path / VALIDATION_FILE)[name]
            loss, training_loss = entry["loss"], entry["training_loss"]
            training_loss = math.inf if training_loss is None else float(training_loss)
            known = BestValidation(step, float(loss), int(entry["validation_set"]), training_loss)
            return known if math.isfinite(known.loss) else None
        except (UserError, KeyError, TypeError, ValueError, OverflowError):
            pass
        if progress and progress.best_step == step and progress.validated_on is not None:
            training_loss = progress.best_average
            return BestValidation(step, progress.best_loss, progress.validated_on, training_loss)
        return None

    def save(self, new: BestValidation, trainer: Trainer, known: BestValidation | None) -> None:
        """Replace the checkpoint by the trainer's weights.

        Args:
            known: about the checkpoint to replace, see `read`. One whose loss is unknown, or of
                another validation set, is kept as `best-1`, `best-2`, ...

        Raises:
            UserError: it cannot be written; the checkpoint before is kept.
        """
        if self.exists and (known is None or known.validation_set != new.validation_set):
            self._set_aside()
            known = None
        self.folder.adopt(ModelFolder(self._run.path))
        described = filter(None, (known, new))  # the new one last, in case both are of one step
        content = {
            f"model-{best.step}": {
                "loss": best.loss,
                "validation_set": best.validation_set,
                "training_loss": best.training_loss if best.training_loss < math.inf else None,
            }
            for best in described
        }
        path = self.folder.path / VALIDATION_FILE
        files.write_text(path, json.dumps(content, indent=2) + "\n")
        self.folder.save(new.step, trainer.weights, trainer.hparams)

    def _name(self) -> str | None:
        try:
            checkpoints = self.folder.checkpoints()
        except UserError:
            return None
        return checkpoints[0].name if checkpoints else None

    def _set_aside(self) -> None:
        aside = files.unused(self.folder.path.with_name(f"{self.folder.path.name}-{{}}"))
        try:
            self.folder.path.rename(aside)
        except OSError as error:
            raise cannot_write(aside, error) from error
