"""What the subcommands share: the picture's file and colours, runs by their names, the text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from command_line import check_place, shown
from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.evaluation.texts import TextEncoder
from gpt2.pictures import style
from gpt2.pictures.style import Theme
from gpt2.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_picture(out: str, theme: str) -> tuple[Path, Theme]:
    """The path and the colours of a picture, before any work for it is done.

    Raises:
        UserError: it cannot be drawn, or not be written there.
    """
    path = check_place(style.check_ending(Path(out)))
    colors = style.theme_named(theme)
    style.load_matplotlib()
    return path, colors


def check_index(name: str, value: object, least: int, most: int) -> None:
    """Hold a number of something against what there is.

    Raises:
        UserError: there is no such one.
    """
    if type(value) is not int or not least <= value <= most:
        raise UserError(f"{name} should be a whole number from {least} to {most}, not {value!r}.")


def save(figure: Figure, path: Path, colors: Theme) -> None:
    """Write a picture and say where."""
    style.save(figure, path, colors)
    print("Wrote", shown(path))


def names(listed: str) -> list[str]:
    """The names in a list with commas, each once."""
    found = list(dict.fromkeys(filter(None, (name.strip() for name in listed.split(",")))))
    if not found:
        raise UserError("--run should name a run, or several: run1,run2")
    return found


def run_folder(workspace: Workspace, name: str) -> Path:
    """The folder of a run, by its name or its path.

    Raises:
        UserError: there is none.
    """
    for folder in (workspace.checkpoint / name, Path(name)):
        if folder.is_dir():
            return folder
    there = sorted(path.name for path in workspace.checkpoint.glob("*") if path.is_dir())
    known = (
        f"there are {', '.join(there[:5])}{', ...' * (len(there) > 5)}" if there else "train one"
    )
    raise UserError(f"There is no run {name!r} in {workspace.checkpoint}; {known}.")


def read_tokens(text: str, file: str, model: ModelFolder) -> list[int]:
    """The tokens of a text on the command line or in a file.

    Raises:
        UserError: there is none, there are both, or the model does not know the tokens.
    """
    if bool(text) == bool(file):
        raise UserError("Give a text with --text 'WORDS' or with --file FILE, one of the two.")
    vocabulary = TextEncoder(model.tokenizer(), model.hparams)
    tokens = vocabulary.encode(files.read_text(Path(file)) if file else text).tolist()
    if not tokens:
        raise UserError(f"{file} holds no text.")
    return tokens
