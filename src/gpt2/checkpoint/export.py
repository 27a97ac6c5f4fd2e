"""Copy a checkpoint of a run into a model folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import HPARAMS_FILE, ModelFolder, write_checkpoint_state
from gpt2.checkpoint.new_model import CHECKPOINT
from gpt2.data import templates
from gpt2.errors import UserError, cannot_write
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE


def check_target(path: Path, overwrite: bool) -> None:
    """Check that a model can be exported to a folder, before the work starts.

    Raises:
        UserError: the folder exists, and may not be overwritten or is not a model's.
    """
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise UserError(f"{path} already exists. Choose another name, or add --overwrite.")
    if not (path / HPARAMS_FILE).is_file():
        raise UserError(f"{path} is not a model, so it is not overwritten. Choose another name.")


def export_model(model: ModelFolder, path: Path, overwrite: bool = False) -> None:
    """Write a model folder with the seven files of a released model, atomically.

    Args:
        model: its current checkpoint is copied, with sizes, vocabulary and template.
        path: the new folder.
        overwrite: whether an existing model there is replaced; see `files.atomic_folder`.

    Raises:
        UserError: see `check_target`; or the folder cannot be written.
    """
    check_target(path, overwrite)
    checkpoint = model.checkpoint
    old = [entry.name for entry in path.iterdir()] if path.exists() else []
    try:
        with files.atomic_folder(path, old) as folder:
            for name in (HPARAMS_FILE, ENCODER_FILE, MERGES_FILE):
                shutil.copyfile(model.file(name), folder / name)
            if (template := templates.load(model.path)) is not None:
                templates.save(folder, template)
            for part in bundle.parts(checkpoint):
                if part.is_file():
                    ending = part.name.removeprefix(checkpoint.name)
                    shutil.copyfile(part, folder / f"{CHECKPOINT}{ending}")
            write_checkpoint_state(folder, [CHECKPOINT])
    except OSError as error:
        raise cannot_write(path, error) from error
