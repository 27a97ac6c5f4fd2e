"""What the subcommands share: how texts are read, the model that reads them, tables and JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fire.decorators import SetParseFns
from tqdm import tqdm

from command_line import check_place, load_tensorflow
from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.data.readers import ReaderSettings

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer


# Those of the fields of `ReaderSettings` that are flags here; encode.py and train.py have them, too.
READING_FLAGS = {
    "encoding": "text encoding of the files",
    "errors": "what to do about bytes that are not in this encoding: strict refuses them, replace puts a mark in their place",
    "format": "of the files: text, csv, tsv, jsonl or json (auto: by their names)",
    "column": 'of tables: the one that holds the text, by its name or its number from 1 (default: "text", or the only one)',
    "field": "of JSON records: the one that holds the text",
}


def with_reading_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function with an argument `reading`: the flags that it is made of."""
    defaults = {field.name: field.default for field in dataclasses.fields(ReaderSettings)}
    parameters = dict(inspect.signature(function).parameters)
    del parameters["reading"]
    for name in READING_FLAGS:
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters[name] = inspect.Parameter(name, keyword, default=defaults[name])

    @functools.wraps(function)
    def command(*arguments: Any, **flags: Any) -> None:
        given = {name: flags.pop(name) for name in READING_FLAGS if name in flags}
        function(*arguments, **flags, reading=ReaderSettings(**given))

    command.__signature__ = inspect.Signature(list(parameters.values()))
    lines = (f"        {name}: {words}\n" for name, words in READING_FLAGS.items())
    command.__doc__ = f"{function.__doc__.rstrip()}\n{''.join(lines)}    "
    return SetParseFns(column=str)(command)  # a number is taken as it is written


def open_scorer(model: ModelFolder, **options: Any) -> Scorer:
    """Load TensorFlow and a model's weights; see `Scorer` for the options.

    Raises:
        UserError: the checkpoint is broken, or not of these sizes.
    """
    load_tensorflow()
    from gpt2.evaluation.scoring import Scorer

    return Scorer(model.weights(), model.hparams, **options)


@contextlib.contextmanager
def token_bar(
    tokens: int | None = None, name: str | None = None
) -> Iterator[Callable[[int], object]]:
    """Show a bar over tokens; yields what to tell how many have been predicted."""
    with tqdm(total=tokens, desc=name, unit="token", unit_scale=True) as bar:
        yield bar.update


def check_json(path: str) -> None:
    """Find out, before the work is done, whether its result can be written; see `check_place`."""
    if path:
        check_place(Path(path))


def write_json(path: str, result: object) -> None:
    """Write a result, if a file is asked for."""
    if path:
        text = json.dumps(finite(result), indent=1, ensure_ascii=False, allow_nan=False)
        files.write_text(Path(path), f"{text}\n")


def show_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: the first column from the left, numbers from the right."""
    cells = [list(map(str, row)) for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *rest = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip())


def show_values(values: Mapping[str, object]) -> None:
    """Print names and values, one below the other."""
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name.replace('_', ' '):{width}}  {shown_number(value)}")


def shown_number(value: object) -> str:
    """A value as a table has it: whole numbers in groups of three digits, others in short."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return (
        f"{value:,.4f}"
        if abs(value) < 10
        else f"{value:,.2f}"
        if abs(value) < 1e9
        else f"{value:.3e}"
    )


def finite(value: Any) -> Any:
    """A value as JSON can hold it: what is infinite becomes null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
