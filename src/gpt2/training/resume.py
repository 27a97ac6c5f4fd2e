"""Where a training starts: a model, a checkpoint of the run, or another checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpt2.checkpoint import bundle, state
from gpt2.checkpoint.folder import HPARAMS_FILE, ModelFolder, check_files, find_checkpoint
from gpt2.checkpoint.resolve import find_folder, find_model
from gpt2.checkpoint.run import BEST, RunFolder
from gpt2.errors import UserError
from gpt2.training import run_log
from gpt2.training.best import BestCheckpoint, BestValidation
from gpt2.training.progress import TrainingProgress
from gpt2.workspace import ALIASES

if TYPE_CHECKING:
    from gpt2.training.distribution import Distribution
    from gpt2.training.settings import TrainerSettings
    from gpt2.training.trainer import Trainer

DEFAULT_MODEL = "124M"
LATEST, FRESH = "latest", "fresh"
NEW_OPTIMIZER = "The optimizer starts from scratch."


@dataclasses.dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that a training starts from, and its model."""

    model: ModelFolder  # sizes and vocabulary
    checkpoint: Path  # prefix of the weights
    done: int = 0  # steps of this run before it
    progress: TrainingProgress | None = None  # of this run, if it was saved
    state: Path | None = None  # prefix of the optimizer state, if it was saved
    best: BestValidation | None = None  # used if the progress was not saved
    notes: tuple[str, ...] = ()  # notices for the user, sentences
    earlier: ResumePoint | None = None  # used instead if the weights are damaged

    def resume(
        self, settings: TrainerSettings, seed: int, distribution: Distribution | None = None
    ) -> ResumedTraining:
        """Load the weights and the optimizer state; use `earlier` if the weights are damaged.

        Args:
            seed: of everything random in the run from now on.
            distribution: see `Trainer`.

        Raises:
            UserError: see `bundle.Tensors`; all checkpoints are damaged, or memory ran out.
        """
        from gpt2.training.memory import enough_memory
        from gpt2.training.trainer import Trainer

        hparams, path = self.model.hparams, self.model.path / HPARAMS_FILE
        try:
            weights = dict(bundle.Tensors(self.checkpoint, hparams, path))
        except UserError as error:
            if self.earlier is None:
                raise
            try:
                resumed = self.earlier.resume(settings, seed, distribution)
            except UserError:
                raise error from None  # the newest checkpoint is the one to repair
            note = _instead(error, resumed.point.checkpoint)
            return resumed._replace(point=resumed.point.with_notes(note))
        with enough_memory():
            trainer = Trainer(weights, hparams, settings, seed, distribution)
            point = self._restore(trainer)
        progress = self.progress or TrainingProgress(seed)
        if self.best:
            self.best.adopt_into(progress)
        return ResumedTraining(point, trainer, dataclasses.replace(progress, seed=seed))

    def _restore(self, trainer: Trainer) -> ResumePoint:
        if self.state is None:
            return self
        try:
            trainer.restore(_finite(self.state, state.read_tensors(self.state)))
        except (UserError, ValueError) as error:
            return self.with_notes(f"{str(error).rstrip('.')}. {NEW_OPTIMIZER}")
        return self

    def with_notes(self, *notes: str) -> ResumePoint:
        """Return the same point, and the same `earlier` ones, with more notes."""
        earlier = self.earlier and self.earlier.with_notes(*notes)
        return dataclasses.replace(self, notes=(*self.notes, *notes), earlier=earlier)


class ResumedTraining(NamedTuple):
    """A training that is ready for its next step."""

    point: ResumePoint  # the point in use, which may be an earlier one than asked for
    trainer: Trainer
    progress: TrainingProgress


def find_resume_point(
    run: RunFolder, model_name: str | None, models_dir: str | None, restore_from: str
) -> ResumePoint:
    """Return where a training starts.

    Args:
        run: the run to train.
        model_name: the model; None for the run's own, or for GPT-2 124M in a new run.
        models_dir: see `find_model`.
        restore_from: "latest" for the newest complete checkpoint of the run, or the model if the
            run has none; "fresh" for the model; or a checkpoint, as a path (folder, prefix or file
            of the checkpoint) or by name (`run1`, `run1/best`, `run1/model-200`). The step count
            continues from a checkpoint of this run, and starts at 0 from any other.

    Raises:
        UserError: a model or a checkpoint is missing, or the run is of another model.
    """
    notes: list[str] = []
    find = functools.partial(find_model, models_dir=models_dir, notice=notes.append)
    sizes = functools.partial(find_folder, models_dir=models_dir, notice=notes.append)
    if restore_from not in (LATEST, FRESH):
        checkpoint = _find_checkpoint(restore_from, find)
        folder = checkpoint.parent
        model = _model_of(folder, model_name, sizes, notes)
        point = ResumePoint(model, checkpoint)
        for own in (run, run.best):
            if folder.resolve() == own.path.resolve():
                point = _resume_from(run, model, checkpoint, own.step_of(checkpoint))
    elif restore_from == LATEST and (checkpoints := run.checkpoints()):
        model = _model_of(run.path, model_name, sizes, notes)
        point = _newest_complete(run, model, checkpoints)
    else:
        model = find(model_name or DEFAULT_MODEL)
        point = ResumePoint(model, model.checkpoint)
    return point.with_notes(*notes)


def _find_checkpoint(restore_from: str, find: Callable[..., ModelFolder]) -> Path:
    """Return the prefix of a checkpoint, given as a path or else by name."""
    if os.path.exists(restore_from) or os.path.exists(restore_from + bundle.INDEX):
        return find_checkpoint(Path(restore_from))
    try:
        return find(restore_from).checkpoint
    except UserError as error:
        raise UserError(f"restore_from: {error}") from error


def _model_of(
    folder: Path, model_name: str | None, find: Callable[..., ModelFolder], notes: list[str]
) -> ModelFolder:
    """Return the model of a checkpoint's folder; folders of 2019 have none and need the name."""
    if not (folder / HPARAMS_FILE).is_file():
        return find(model_name or DEFAULT_MODEL)
    model = ModelFolder(folder)
    if model_name is None:
        return model
    try:
        named = find(model_name, notice=lambda sentence: None)  # only its sizes are used
    except UserError:
        trained = run_log.base_model(folder)
        if trained not in (None, model_name, ALIASES.get(model_name)):
            raise UserError(
                f"There is no model {model_name!r}, and {folder} was trained from {trained!r}. "
                "Omit --model_name to resume that run, or give a new --run_name."
            ) from None
        notes.append(f"There is no model {model_name!r}. Resuming with the model in {folder}.")
        return model
    if named.hparams != model.hparams:
        raise UserError(
            f"{folder}: the checkpoint has other sizes in {HPARAMS_FILE} than the model "
            f"{named.path}. Omit --model_name to resume it, or give a new --run_name."
        )
    return model


def _newest_complete(
    run: RunFolder, model: ModelFolder, checkpoints: Sequence[Path]
) -> ResumePoint:
    """Return the newest checkpoint that has all its files, with the older ones as `earlier`.

    Args:
        checkpoints: prefixes, the newest first.
    """
    point: ResumePoint | None = None
    error: UserError | None = None
    for checkpoint in reversed(checkpoints):
        try:
            check_files(checkpoint)
            newer = _resume_from(run, model, checkpoint, run.step_of(checkpoint))
            point = dataclasses.replace(newer, earlier=point)
        except UserError as newest:
            error = newest
            point = point and point.with_notes(_instead(error, point.checkpoint))
    if point is None:
        assert error is not None, "a run without checkpoints has no resume point"
        raise error
    return point


def _resume_from(run: RunFolder, model: ModelFolder, checkpoint: Path, done: int) -> ResumePoint:
    """Return the point of one of the run's own checkpoints, with the state saved beside it."""
    point = ResumePoint(model, checkpoint, done)
    prefix = run.state_of(checkpoint)
    try:
        facts = state.read_facts(prefix, checkpoint)
        if facts is None:
            return _without_state(
                run, point, f"{checkpoint}: no optimizer state was saved beside it."
            )
        progress = TrainingProgress.from_facts(facts)
    except UserError as error:
        return _without_state(run, point, str(error))
    return dataclasses.replace(point, progress=progress, state=prefix)


def _without_state(run: RunFolder, point: ResumePoint, reason: str) -> ResumePoint:
    """Return a point whose state is missing, with what `best/` tells of the run's progress."""
    point = point.with_notes(f"{reason} {NEW_OPTIMIZER}")
    best = BestCheckpoint(run)
    if not best.exists:
        return point
    known = best.read()
    if known is None:
        return point.with_notes(
            f"{run.best.path}: its validation loss is unknown. The search for the best checkpoint "
            f"restarts; this one is kept as {BEST}-1 (or 2, 3, ...) when a new best is saved."
        )
    return dataclasses.replace(point, best=known).with_notes(
        f"The lowest validation loss so far, {known.loss:.2f} at step {known.step}, is that of "
        f"{run.best.path}. Unknown: the average training loss, and the number of validations "
        "since then, which counts from 0."
    )


def _finite(prefix: Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise UserError(f"{prefix}: {name} contains NaN or infinite values.")
    return tensors


def _instead(error: UserError, checkpoint: Path) -> str:
    return f"{str(error).rstrip('.')}. Resuming from {checkpoint} instead."
