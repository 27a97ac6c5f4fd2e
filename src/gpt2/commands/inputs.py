"""Flags that several commands share, and the model and the files that they name."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from gpt2 import processes
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.resolve import find_model
from gpt2.checks import setting
from gpt2.commands.flags import Option, Values, options_of
from gpt2.commands.terminal import notice
from gpt2.data.readers import ReaderSettings

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which model a command uses."""

    model_name: str = setting(
        "124M",
        "model under models/, run under checkpoint/, or path; RUN/best, RUN/model-200",
        metavar="MODEL",
    )
    models_dir: str | None = setting(None, "folder of the models (default: models)", metavar="PATH")


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
    """How many processes share the work."""

    workers: int | None = setting(
        None,
        f"number of processes (default: one per core, at most {processes.MOST_BY_DEFAULT})",
        low=1,
    )


def model_options(default: str | None = "124M") -> list[Option]:
    """Return the flags `--model_name` and `--models_dir`."""
    return options_of(ModelOptions, model_name=default)


def reader_options(*names: str) -> list[Option]:
    """Return the flags that say how text files are read."""
    return options_of(ReaderSettings, *names)


def open_model(values: Values) -> ModelFolder:
    """Return the model that `--model_name` and `--models_dir` stand for; see `find_model`."""
    return find_model(values.model_name, values.models_dir, notice)
