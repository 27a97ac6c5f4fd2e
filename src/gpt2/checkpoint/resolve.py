"""One way from a name to a model: `117M`, `run1`, `run1/best`, `run1/model-200`, or a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.tokenizer import Tokenizer
from gpt2.workspace import ALIASES, Workspace, command_line

LISTED = 8  # names in a message


Notice = Callable[[str], object]


def find_model(
    name: str | os.PathLike[str],
    models_dir: str | None = None,
    notice: Notice = lambda sentence: None,
) -> ModelFolder:
    """Return the model that a name stands for, after checking that its checkpoint is there.

    A name is that of a model under `models/`, by either of its names if it is a released one, or of
    a run under `checkpoint/`, or the path of a folder. After a slash it may go on with a checkpoint
    of that folder: `run1/best`, `run1/model-200`.

    Args:
        models_dir: see `Workspace.find`.
        notice: called with a sentence if a run of the same name is passed over.

    Raises:
        UserError: there is none, and the sentence lists what is available; or a file of its
            checkpoint is missing.
    """
    model = _find(os.fspath(name), models_dir, notice)
    _ = model.checkpoint  # raises if its files are missing
    return model


def find_vocabulary(
    name: str | os.PathLike[str],
    models_dir: str | None = None,
    notice: Notice = lambda sentence: None,
) -> Tokenizer:
    """Return the tokenizer of a model, which needs no checkpoint; see `find_model`."""
    return _find(os.fspath(name), models_dir, notice).tokenizer()


def _find(name: str, models_dir: str | None, notice: Notice) -> ModelFolder:
    if os.path.isdir(name) and not _is_plain(name):
        return ModelFolder(Path(name))
    parent, slash, checkpoint = name.rstrip("/\\").replace("\\", "/").rpartition("/")
    workspace = Workspace.find(models_dir, parent if slash else name)
    if folder := workspace.model_folder_or_none(name):
        run = workspace.checkpoint / name
        if folder != run and run.is_dir():
            notice(f"Using the model {folder}; for the run of the same name use its path, {run}.")
        return ModelFolder(folder)
    if os.path.isdir(name):
        return ModelFolder(Path(name))
    if slash and checkpoint:
        folder = workspace.model_folder_or_none(parent)
        if folder is None and os.path.isdir(parent):
            folder = Path(parent)
        if folder is not None:
            if (folder / checkpoint).is_dir():
                return ModelFolder(folder / checkpoint)
            return ModelFolder(folder, checkpoint)
    raise _no_model(name, workspace)


def find_run(name: str, models_dir: str | None = None) -> Path:
    """Return the folder of a run, by its name under `checkpoint/` or its path.

    Raises:
        UserError: there is none; the sentence lists the runs that there are.
    """
    workspace = Workspace.find(models_dir)
    for folder in (workspace.checkpoint / name, Path(name)):
        if name and folder.is_dir():
            return folder
    runs = sorted(path.name for path in workspace.checkpoint.glob("*") if path.is_dir())
    raise UserError(f"There is no run {name!r} in {workspace.checkpoint}; {_available(runs)}.")


def _is_plain(name: str) -> bool:
    return not any(separator in name for separator in "/\\") and name not in (".", "..")


def _available(names: Sequence[str]) -> str:
    if not names:
        return "none is there yet"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"available: {', '.join(names[:LISTED])}{more}"


def _no_model(name: str, workspace: Workspace) -> UserError:
    where = f"There is no model {name!r} in {workspace.models} or {workspace.checkpoint}"
    if name in ALIASES:
        return UserError(f"{where}. Download it with: {command_line('download')} {name}")
    return UserError(
        f"{where}; {_available(workspace.names())}. Create one with: "
        f"{command_line('new-model')} NAME --dataset TEXT"
    )
