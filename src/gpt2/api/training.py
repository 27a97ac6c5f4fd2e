"""`gpt2.train`: train a model, or resume a run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from gpt2.api import html
from gpt2.api.interrupts import stop_on_interrupt
from gpt2.api.options import check_switch, optional_text_of, options_of, text_of, with_defaults
from gpt2.api.progress import Progress
from gpt2.api.results import Result
from gpt2.checkpoint.folder import ModelFolder
from gpt2.data.datasets import DatasetSettings
from gpt2.data.readers import ReaderSettings
from gpt2.data.tokenization import TokenizationSettings
from gpt2.errors import UserError, shown
from gpt2.generation.engine_settings import EngineSettings
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.loading import open_model
from gpt2.quiet import import_tensorflow
from gpt2.training import events, run_log
from gpt2.training.best import BestCheckpoint
from gpt2.training.run_log import Curves
from gpt2.training.session import TrainingPlan, TrainingSession
from gpt2.training.settings import LoopSettings, RunSettings, TrainerSettings

# Keyword options and their defaults; `top_k` and `top_p` are those of the samples, as in train.py.
OPTIONS = options_of(
    *(RunSettings, TrainerSettings, LoopSettings),
    *(DatasetSettings, ReaderSettings, TokenizationSettings),
    without=("model_name", "run_name", "schedule_steps"),
) | {"models_dir": None, "top_k": 40, "top_p": 0.0}


@dataclasses.dataclass(frozen=True, repr=False)
class TrainingResult(Result):
    """What a call of `gpt2.train` has trained; a notebook shows it with the loss curve.

    Attributes:
        run_name: the run; its folder is `path`.
        step: the last step of the run.
        loss: moving average of the training loss (nats); None before the first step.
        val_loss: last validation loss (nats); None without validation.
        best_step, best_loss: step and validation loss of the best checkpoint; None without one.
        stopped: whether an interrupt ended the call; calling it again resumes the run.
        reason: why the training ended, a sentence.
        checkpoint: prefix of the newest checkpoint; None if nothing has been saved.
        curves: losses of the whole run, those of earlier calls included; None if unknown.
        notices: what the user was told during the call.
    """

    title = "Training"

    run_name: str
    path: Path
    step: int
    loss: float | None
    val_loss: float | None
    best_step: int | None
    best_loss: float | None
    stopped: bool
    reason: str
    checkpoint: Path | None
    curves: Curves | None = dataclasses.field(repr=False, default=None)
    notices: tuple[str, ...] = dataclasses.field(repr=False, default=())

    def load(self, best: bool = True, **options: Any) -> LanguageModel:
        """Return the trained model, loaded for generation.

        Args:
            best: load the best checkpoint by validation loss if there is one, else the newest.
            options: `engine`, `quantize` and others of `gpt2.load`.

        Raises:
            UserError: nothing has been saved yet, or an option is wrong.
        """
        check_switch("best", best)
        if self.checkpoint is None:
            raise UserError(f"{self.run_name}: no checkpoint has been saved. Train the run first.")
        known = {field.name: field.default for field in dataclasses.fields(EngineSettings)}
        path = self.path / "best" if best and self.best_step is not None else self.path
        return open_model(ModelFolder(path), **with_defaults(options, known))

    def _repr_html_(self) -> str:
        drawn = html.curve(self.curves) if self.curves else ""
        return super()._repr_html_() + drawn

    def _facts(self) -> dict[str, str | None]:
        best = None
        if self.best_step is not None and self.best_loss is not None:
            best = f"{self.best_loss:.3f} at step {self.best_step:,}"
        return {
            "run": self.run_name,
            "steps": f"{self.step:,}",
            "loss": None if self.loss is None else f"{self.loss:.3f}",
            "validation loss": None if self.val_loss is None else f"{self.val_loss:.3f}",
            "best validation loss": best,
            "ended": f"stopped: {self.reason}" if self.stopped else self.reason,
            "checkpoint": None if self.checkpoint is None else shown(self.checkpoint),
        }


def train(
    dataset: str | os.PathLike[str],
    model_name: str | os.PathLike[str] | None = None,
    *,
    run_name: str = "run1",
    progress: bool = True,
    **options: Any,
) -> TrainingResult:
    """Train a model on text, or resume a run, and return the result.

    An interrupt (Ctrl+C, or a notebook's interrupt button) stops the training after the current
    step, saves, and returns a result with `stopped`; the same call resumes exactly. A second one
    raises KeyboardInterrupt. Without `max_steps`, `epochs` or `max_minutes` it trains until then.
    Any thread may call it, but only in the main thread an interrupt stops it.

    Args:
        dataset: text or the output of `gpt2.encode`; a file, folder, or glob pattern.
        model_name: model to start from; None for 124M, or for that of a run that is resumed.
        run_name: name of the run: its folder under checkpoint/.
        progress: whether to show a progress bar and notices.
        options: `models_dir`, `top_k` and `top_p` of the samples, and the fields of `RunSettings`,
            `TrainerSettings`, `LoopSettings`, `DatasetSettings`, `ReaderSettings` and
            `TokenizationSettings`: the flags of the train command.

    Raises:
        UserError: an argument is wrong, a file cannot be read, or training diverged.

    Example:
        >>> result = gpt2.train("stories.txt", "small", max_steps=200, val_split=0.1, val_every=50)
        >>> result.load().generate("Once upon a time", length=50)
    """
    check_switch("progress", progress)
    flags = with_defaults(options, OPTIONS)
    flags |= {
        "dataset": text_of("dataset", dataset),
        "model_name": optional_text_of("model_name", model_name),
        "run_name": text_of("run_name", run_name),
    }
    for name in ("val_dataset", "models_dir"):
        flags[name] = optional_text_of(name, flags[name])
    flags["restore_from"] = text_of("restore_from", flags["restore_from"])
    shows = Progress(progress)
    session = TrainingSession(TrainingPlan.of(flags), shows.notice, shows.bytes)
    session.check_environment()
    with session.lock():
        session.find_start()
        session.load_data()
        # Interrupted in its import, TensorFlow could not be imported again.
        with stop_on_interrupt() as stop:
            import_tensorflow(find_devices=session.cluster is None)
            session.connect()
            session.load_checkpoint()
            loop = session.begin()
            done = session.resumed.point.done
            reason = ""
            with shows.bar(total=session.last_step, initial=done, unit="step") as bar:
                for event in loop.train(stop):
                    match event:
                        case events.StepFinished(step, _, loss, average):
                            bar.set_postfix_str(f"loss={loss:.2f} avg={average:.2f}", refresh=False)
                            bar.update(step - bar.n if progress else 0)
                            done = step
                        case events.Warned(sentence):
                            shows.notice(sentence)
                        case events.Interrupted():
                            reason = f"Interrupted after step {done:,}. The same call resumes."
                        case events.Finished(_, sentence):
                            reason = sentence
            return _result(session, done, reason, stop(), tuple(shows.notices))


def _result(
    session: TrainingSession, step: int, reason: str, stopped: bool, notices: tuple[str, ...]
) -> TrainingResult:
    """Return the result of a session that has ended."""
    run, progress = session.run_folder, session.resumed.progress
    try:
        curves = run_log.read_curves(run.path / run_log.HISTORY)
    except UserError:  # no step yet, or the history could not be written, which is a notice
        curves = None
    best = BestCheckpoint(run).read(progress) if progress.best_step is not None else None
    return TrainingResult(
        run_name=run.path.name,
        path=run.path,
        step=step,
        loss=progress.average if step else None,
        val_loss=float(curves.val_loss[-1]) if curves and len(curves.val_loss) else None,
        best_step=best.step if best else None,
        best_loss=best.loss if best else None,
        stopped=stopped,
        reason=reason,
        checkpoint=ModelFolder(run.path).checkpoint if run.checkpoints() else None,
        curves=curves,
        notices=notices,
    )
