"""Flags that several commands share, and the model and the files that they name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from gpt2 import processes
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.resolve import find_model
from gpt2.checks import setting
from gpt2.commands.flags import Option, Values, options_of
from gpt2.commands.terminal import notice
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError

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
class TokenizationOptions:
    """How text becomes chunks of tokens."""

    combine: int = setting(
        50000, "join documents into chunks of at least N characters", metavar="N", low=1
    )
    legacy_endoftext: bool = setting(
        False, "encode <|endoftext|> as ordinary text, as in 2019, instead of as one token"
    )


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


def not_empty(
    items: Iterable[Item], sentence: str, counts: Callable[[Item], object] = lambda item: True
) -> Iterator[Item]:
    """Yield the items.

    Args:
        counts: whether an item has any content.

    Raises:
        UserError: none counts; says the sentence, before anything is written.
    """
    empty = True
    for item in items:
        empty = empty and not counts(item)
        yield item
    if empty:
        raise UserError(sentence)
