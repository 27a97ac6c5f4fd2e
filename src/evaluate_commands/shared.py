"""What the subcommands share: the model by its name, the text, the results as a table and as JSON."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from command_line import load_tensorflow, named_model
from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.workspace import Workspace

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer


def model_folder(model_name: str, models_dir: str = "models") -> ModelFolder:
    """A model under models/, a run under checkpoint/, or a folder by its path; without TensorFlow.

    After a slash, a name may say which checkpoint is meant: `run1/model-200`.

    Raises:
        UserError: there is none, or it has no checkpoint.
    """
    folder, slash, checkpoint = model_name.rpartition("/")
    place = Workspace.find(models_dir, folder)
    if (
        slash
        and not Path(model_name).is_dir()
        and (place.model_folder_or_none(folder) or Path(folder).is_dir())
    ):
        model = ModelFolder(place.model_folder(folder), checkpoint)
    else:
        model = named_model(model_name, Workspace.find(models_dir, model_name))
    _ = model.checkpoint  # which is looked at before any text is read
    return model


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
    """Find out, before the work is done, whether its result can be written.

    Raises:
        UserError: there is no folder for it, or it is a folder itself.
    """
    if path and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
        raise UserError(
            f"{path} cannot be written: there is no folder for it, or it is one itself."
        )


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
