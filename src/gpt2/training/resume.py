"""Where a training begins: a model's weights, or a checkpoint of its own or of another run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpt2.checkpoint import bundle, state
from gpt2.checkpoint.folder import HPARAMS_FILE, ModelFolder, check_files, find_checkpoint
from gpt2.checkpoint.run import RunFolder
from gpt2.errors import UserError
from gpt2.training.progress import TrainingProgress
from gpt2.workspace import Workspace

if TYPE_CHECKING:
    from gpt2.training.settings import TrainerSettings
    from gpt2.training.trainer import Trainer

DEFAULT_MODEL = "124M"
ANEW = "The optimizer starts anew."


@dataclasses.dataclass(frozen=True)
class ResumePoint:
    """The checkpoint to begin with, and the model it belongs to."""

    model: ModelFolder  # its sizes and its vocabulary
    checkpoint: Path  # prefix of the weights
    done: int = 0  # steps of this run behind it
    progress: TrainingProgress | None = None  # of this run by then, if that was saved
    state: Path | None = None  # prefix of the optimizer's state, if that was saved
    notes: tuple[str, ...] = ()  # what the user should know about how it was found
    earlier: ResumePoint | None = None  # to begin with instead if the weights turn out damaged

    def resume(self, settings: TrainerSettings, seed: int) -> ResumedTraining:
        """Make the trainer; with an earlier checkpoint's weights if the newest is damaged.

        Args:
            seed: of everything random in the run from now on.

        Raises:
            UserError: see `bundle.read_tensors`; all checkpoints there are are damaged, or the
                memory does not suffice.
        """
        from gpt2.training.memory import enough_memory
        from gpt2.training.trainer import Trainer

        hparams, path = self.model.hparams, self.model.path / HPARAMS_FILE
        try:
            weights = dict(bundle.read_tensors(self.checkpoint, hparams, path))
        except UserError as error:
            if self.earlier is None:
                raise
            try:
                resumed = self.earlier.resume(settings, seed)
            except UserError:
                raise error from None  # of the newest, which is the one to mend
            note = _instead(error, resumed.point.checkpoint)
            return resumed._replace(point=resumed.point.with_notes(note))
        with enough_memory():
            trainer = Trainer(weights, hparams, settings, seed)
            start = self._restore(trainer)
        progress = self.progress or TrainingProgress(seed)
        return ResumedTraining(start, trainer, dataclasses.replace(progress, seed=seed))

    def _restore(self, trainer: Trainer) -> ResumePoint:
        if self.state is None:
            return self
        try:
            trainer.restore(state.read_tensors(self.state))
        except (UserError, ValueError) as error:
            return self.with_notes(f"{str(error).rstrip('.')}. {ANEW}")
        return self

    def with_notes(self, *notes: str) -> ResumePoint:
        """The same with more to know."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))


class ResumedTraining(NamedTuple):
    """What a training goes on with."""

    point: ResumePoint  # the one that was possible in the end
    trainer: Trainer
    progress: TrainingProgress


def find_resume_point(
    workspace: Workspace, run: RunFolder, model_name: str | None, restore_from: str
) -> ResumePoint:
    """What a training begins with.

    Args:
        model_name: the model, or None for the run's own, or for GPT-2 124M in a new run.
        restore_from: "latest" goes on from the run's newest whole checkpoint, or begins with the
            model if there is none; "fresh" begins with the model; anything else is the path of a
            checkpoint. Steps are counted on from a checkpoint of this run, and from 1 otherwise.

    Raises:
        UserError: a model or a checkpoint is not there, or the run is of another model.
    """
    if restore_from == "fresh":
        model = _named_model(workspace, model_name)
        return ResumePoint(model, model.checkpoint)
    if restore_from != "latest":
        checkpoint = find_checkpoint(Path(restore_from))
        model = _model_of(checkpoint.parent, workspace, model_name)
        for folder in (run, run.best):
            if checkpoint.parent.resolve() == folder.path.resolve():
                return _going_on(run, model, checkpoint, folder.step_of(checkpoint))
        return ResumePoint(model, checkpoint)
    checkpoints = run.checkpoints()
    if not checkpoints:
        model = _named_model(workspace, model_name)
        return ResumePoint(model, model.checkpoint)
    start = _newest_whole(run, _model_of(run.path, workspace, model_name), checkpoints)
    if model_name is not None and workspace.model_folder_or_none(model_name) is None:
        note = f"There is no model {model_name!r}; the run goes on with its own."
        start = start.with_notes(note)
    return start


def _newest_whole(run: RunFolder, model: ModelFolder, checkpoints: Sequence[Path]) -> ResumePoint:
    """The first of these checkpoints that has its files, with those behind it as `earlier`."""
    start, error = None, None
    for checkpoint in reversed(checkpoints):
        try:
            check_files(checkpoint)
            newer = _going_on(run, model, checkpoint, run.step_of(checkpoint))
            start = dataclasses.replace(newer, earlier=start)
        except UserError as newest:
            error = newest
            start = start and start.with_notes(_instead(error, start.checkpoint))
    if start is None:
        raise error
    return start


def _going_on(run: RunFolder, model: ModelFolder, checkpoint: Path, done: int) -> ResumePoint:
    """A start from one of the run's own checkpoints, with the state that belongs to it."""
    start = ResumePoint(model, checkpoint, done)
    prefix = run.state_of(checkpoint)
    try:
        facts = state.read_facts(prefix, checkpoint)
        if facts is None:
            return start.with_notes(f"{checkpoint} has no state beside it. {ANEW}")
        progress = TrainingProgress.from_facts(facts)
    except UserError as error:
        return start.with_notes(f"{error} {ANEW}")
    return dataclasses.replace(start, progress=progress, state=prefix)


def _instead(error: UserError, checkpoint: Path) -> str:
    return f"{str(error).rstrip('.')}. Training goes on from {checkpoint} instead."


def _named_model(workspace: Workspace, model_name: str | None) -> ModelFolder:
    return ModelFolder(workspace.model_folder(model_name or DEFAULT_MODEL))


def _model_of(folder: Path, workspace: Workspace, model_name: str | None) -> ModelFolder:
    """The model that a checkpoint's folder describes, or the named one for a folder of 2019."""
    if not (folder / HPARAMS_FILE).is_file():
        return _named_model(workspace, model_name)
    model = ModelFolder(folder)
    if model_name is not None:
        named = workspace.model_folder_or_none(model_name)
        if named and ModelFolder(named).hparams != model.hparams:
            raise UserError(
                f"{folder} holds a model of other sizes than {named}; leave out --model_name to go "
                "on with it, or choose another --run_name to begin a new one."
            )
    return model
