"""The one way from a name to a model: `117M`, `run1`, `run1/best`, `run1/model-200`, or a path."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gpt2.checkpoint import folder as folders
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.run import BEST
from gpt2.errors import UserError, quoted
from gpt2.tokenizer import ENCODER_FILE
from gpt2.workspace import ALIASES, Workspace, command_line, is_plain_name

LISTED = 8  # names in a message

Name = str | os.PathLike[str]
Notice = Callable[[str], object]


def find_model(
    name: Name, models_dir: Name | None = None, notice: Notice = lambda sentence: None
) -> ModelFolder:
    """Return the model that a name stands for, after checking that its checkpoint exists.

    A name is, in this order, that of a model under `models/` (a released one by either of its
    names), that of a run under `checkpoint/`, or the path of a folder. It may end in a checkpoint
    of that folder: `run1/best`, `run1/model-200`. A name with a slash is tried as a path first.

    Args:
        name: the name, with slashes or backslashes.
        models_dir: see `Workspace.find`.
        notice: called with a sentence if the name is that of a model and of a run.

    Raises:
        UserError: no model or checkpoint has this name, with a list of the available ones; or a
            file of the checkpoint is missing.
    """
    model = find_folder(name, models_dir, notice)
    _ = model.checkpoint  # raises UserError if a file is missing
    return model


def find_folder(
    name: Name, models_dir: Name | None = None, notice: Notice = lambda sentence: None
) -> ModelFolder:
    """Return the model that a name stands for, whose checkpoint may be missing; see `find_model`.

    For sizes and vocabulary.
    """
    if models_dir is not None:
        models_dir = _as_text("models_dir", models_dir)
    return _find(_as_text("model_name", name), models_dir, notice)


def released_model(workspace: Workspace) -> ModelFolder | None:
    """Return a released model, whose vocabulary is GPT-2's, if one has been downloaded."""
    folders = map(workspace.model_folder_or_none, ALIASES)
    found = (ModelFolder(path) for path in folders if path and (path / ENCODER_FILE).is_file())
    return next(found, None)


def find_run(name: Name, models_dir: Name | None = None) -> Path:
    """Return the folder of a run, by its name under `checkpoint/` or its path.

    Raises:
        UserError: no run has this name, with a list of the available ones.
    """
    path = os.fspath(name)
    name = _with_slashes(path)
    workspace = Workspace.find(models_dir, name)
    run = workspace.checkpoint / name
    if is_plain_name(name) and os.path.isdir(run):
        return run
    if found := _existing_path(path):
        return found
    runs = [found.name for found in workspace.checkpoint.glob("*") if found.is_dir()]
    raise UserError(
        f"There is no run {path!r} in {workspace.checkpoint}{_suggestion(name, runs)}; "
        f"{_available(runs)}."
    )


def _as_text(argument: str, name: Name) -> str:
    if not isinstance(name, str | os.PathLike) or "\0" in str(name):
        raise UserError(f"{argument} must be a name or a path, not {quoted(name)}.")
    return os.fspath(name)


def _find(path: str, models_dir: Name | None, notice: Notice) -> ModelFolder:
    """Return the model of a name, whose checkpoint may be missing."""
    name = _with_slashes(path)
    parent, _, checkpoint = name.rpartition("/")
    workspace = Workspace.find(models_dir, parent or name)
    if not is_plain_name(path) and (folder := _existing_path(path)):
        return ModelFolder(folder)
    if folder := workspace.model_folder_or_none(name):
        run = workspace.checkpoint / name
        if folder != run and run.is_dir():
            notice(f"Using the model {folder}; for the run of the same name use its path, {run}.")
        return ModelFolder(folder)
    if folder := _existing_path(path):
        return ModelFolder(folder)
    folder = workspace.model_folder_or_none(parent) or _existing_path(parent)
    if folder and checkpoint and (model := _checkpoint_of(folder, checkpoint)):
        return model
    raise _no_model(path, workspace)


def _checkpoint_of(folder: Path, name: str) -> ModelFolder | None:
    """Return `best` or a checkpoint such as `model-200` of a folder, None if it has none at all."""
    if os.path.isdir(folder / name):
        return ModelFolder(folder / name)
    available = folders.whole_checkpoints(folder)
    if folders.has_index(folder / name):
        return ModelFolder(folder, name)
    if not available:
        return None
    available.sort(key=lambda checkpoint: (len(checkpoint), checkpoint))
    if os.path.isdir(folder / BEST):
        available.append(BEST)
    raise UserError(
        f"{folder}: there is no checkpoint {name!r}{_suggestion(name, available)}; "
        f"{_available(available[-LISTED:])}."
    )


def _with_slashes(path: str) -> str:
    """Return a name with slashes as separators and none at the end."""
    name = path.replace("\\", "/")
    return name.rstrip("/") or name[:1]


def _existing_path(path: str) -> Path | None:
    """Return a path if it is a folder's, also when it is written with Windows separators."""
    for written in (path, _with_slashes(path)):
        if os.path.isdir(written):
            return Path(written)
    return None


def _available(names: Sequence[str]) -> str:
    """Return the first names as a part of a message."""
    if not names:
        return "none is there yet"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"available: {', '.join(names[:LISTED])}{more}"


def _suggestion(name: str, names: Sequence[str]) -> str:
    """Return the name that is spelled most like `name` as a question, or an empty string."""
    similar = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {similar[0]}?)" if similar else ""


def _no_model(name: str, workspace: Workspace) -> UserError:
    where = f"There is no model {name!r} in {workspace.models} or {workspace.checkpoint}"
    names = workspace.names()
    if name in ALIASES:
        other = f"; {_available(names)} (see --model_name)" if names else ""
        return UserError(
            f"{where}{other}. Download it with: {command_line('download')} {name}. Or create "
            f"a small model with: {command_line('new-model')} NAME --dataset TEXT"
        )
    return UserError(
        f"{where}{_suggestion(name, [*names, *ALIASES])}; {_available(names)}. Create one with: "
        f"{command_line('new-model')} NAME --dataset TEXT"
    )
