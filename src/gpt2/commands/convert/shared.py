"""Flags that the subcommands of `convert` share, and where a converted model goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.resolve import find_model
from gpt2.checkpoint.run import BEST
from gpt2.checks import setting
from gpt2.commands.flags import Values
from gpt2.commands.signals import load_tensorflow
from gpt2.commands.terminal import notice, shown
from gpt2.files import check_folder_writable, check_new_folder
from gpt2.interop.weights import MODEL_FILES, PortableModel, write_model
from gpt2.workspace import Workspace, command_line, is_plain_name


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """The model to convert to another format."""

    model: str = setting(
        help="model under models/, run under checkpoint/, or path; RUN/best, RUN/model-200",
        metavar="MODEL",
        positional=True,
    )


@dataclasses.dataclass(frozen=True)
class TargetOptions:
    """The model to write."""

    target: str = setting(
        help="folder of the new model, or its name under models/", metavar="NAME", positional=True
    )


@dataclasses.dataclass(frozen=True)
class FolderOptions:
    """The folder to write."""

    out: str = setting(help="folder to write", metavar="OUT", positional=True)


@dataclasses.dataclass(frozen=True)
class OverwriteOptions:
    """Whether an existing output may be replaced."""

    overwrite: bool = setting(False, "replace the output if it exists")


def open_source(values: Values) -> ModelFolder:
    """Return the model that is converted; see `find_model`."""
    return find_model(values.model, values.models_dir, notice)


def new_model_folder(values: Values) -> Path:
    """Return the folder of the model to write, after checking that it may be written.

    Raises:
        UserError: the name is not valid, or it exists and may not be overwritten.
    """
    name = values.target.rstrip("/\\") or values.target
    workspace = Workspace.find(values.models_dir)
    path = workspace.new_model_folder(name) if is_plain_name(name) else name
    return new_folder(path, MODEL_FILES, values)


def new_folder(name: str | Path, replaceable: Collection[str], values: Values) -> Path:
    """Return the folder to write, after checking that it may be written.

    Args:
        replaceable: see `gpt2.files.atomic_folder`.

    Raises:
        UserError: it is no name, cannot be written, or exists and may not be overwritten.
    """
    path = check_folder_writable(name)
    check_new_folder(path, replaceable if values.overwrite else ())
    return path


def write_new_model(folder: Path, model: PortableModel, values: Values) -> None:
    """Write the model folder and print where it is.

    TensorFlow is loaded after the weights are written, as it takes as much memory as a model.
    """
    write_model(folder, model, values.overwrite, load_tensorflow)
    print(f"Wrote {shown(folder)}, a model of {model.hparams.parameters:,} parameters")
    print(f"Sample from it with: {command_line('unconditional')} --model_name {shown(folder)}")


def model_name(model: ModelFolder) -> str:
    """Return what a model is called: as its folder or, for `best/`, as its run."""
    path = model.path.resolve()
    return path.parent.name if path.name == BEST else path.name
