"""Where a training begins: a model's weights, or a checkpoint of its own or of another run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import HPARAMS_FILE, ModelFolder, find_checkpoint
from gpt2.checkpoint.run import RunFolder
from gpt2.errors import UserError
from gpt2.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

DEFAULT_MODEL = "124M"


@dataclasses.dataclass(frozen=True)
class Start:
    """The weights to begin with, and the model they belong to."""

    model: ModelFolder  # its sizes and its vocabulary
    checkpoint: Path  # prefix of the weights
    done: int  # steps of this run behind it

    def weights(self) -> dict[str, np.ndarray]:
        """The checkpoint's tensors by name; see `bundle.read_tensors`."""
        return dict(
            bundle.read_tensors(self.checkpoint, self.model.hparams, self.model.path / HPARAMS_FILE)
        )


def find_start(
    workspace: Workspace, run: RunFolder, model_name: str | None, restore_from: str
) -> Start:
    """What a training begins with.

    Args:
        model_name: the model, or None for the run's own, or for GPT-2 124M in a new run.
        restore_from: "latest" goes on from the run's newest checkpoint, or begins with the model
            if there is none; "fresh" begins with the model; anything else is the path of a
            checkpoint. Steps are counted on from a checkpoint of this run, and from 1 otherwise.

    Raises:
        UserError: a model or a checkpoint is not there, or the run is of another model.
    """
    if restore_from == "fresh":
        model = _named_model(workspace, model_name)
        return Start(model, model.checkpoint, 0)
    if restore_from != "latest":
        checkpoint = find_checkpoint(Path(restore_from))
        own = checkpoint.parent.resolve() == run.path.resolve()
        model = _model_of(checkpoint.parent, workspace, model_name)
        return Start(model, checkpoint, run.step_of(checkpoint) if own else 0)
    latest = run.latest() if run.path.is_dir() else None
    if latest is None:
        model = _named_model(workspace, model_name)
        return Start(model, model.checkpoint, 0)
    checkpoint, done = latest
    return Start(_model_of(run.path, workspace, model_name), checkpoint, done)


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
