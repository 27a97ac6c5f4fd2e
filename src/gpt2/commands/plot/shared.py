"""Flags and steps that the subcommands of `plot` share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import Setting, check_value, setting
from gpt2.commands.flags import Option, Values, options_of
from gpt2.commands.terminal import shown
from gpt2.errors import UserError
from gpt2.evaluation.texts import TextEncoder
from gpt2.pictures import style
from gpt2.pictures.style import THEMES, Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class PictureOptions:
    """Where a picture goes, and its colors."""

    out: str = setting(help="output file, .png or .svg", metavar="FILE")
    theme: str = setting("light", "color theme", choices=tuple(THEMES))


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """The text that a model processes."""

    text: str = setting("", "text to plot", metavar="TEXT")
    file: str = setting("", "file with the text, instead of --text", metavar="FILE")


def picture_options(out: str) -> list[Option]:
    """Return the flags `--out` and `--theme`."""
    return options_of(PictureOptions, out=out)


def check_picture(values: Values) -> tuple[Path, Theme]:
    """Return path and theme of the picture after checking that it can be written.

    Raises:
        UserError: the file name has another ending, or the file cannot be written.
    """
    path = style.check_ending(files.check_writable(values.out))
    return path, THEMES[values.theme]


def check_index(flag: str, value: int, low: int, high: int) -> None:
    """Check a flag against a range that depends on the model or the text.

    Raises:
        UserError: it is out of range.
    """
    check_value(flag, value, int, Setting("", low=low, high=high))


def save(figure: Figure, path: Path, theme: Theme) -> None:
    """Write a picture and print its path."""
    style.save(figure, path, theme)
    print("Wrote", shown(path))


def read_tokens(values: Values, model: ModelFolder) -> list[int]:
    """Return the token ids of `--text` or `--file`.

    Raises:
        UserError: the file is empty, or the model cannot encode the text.
    """
    encoder = TextEncoder(model.tokenizer(), model.hparams)
    text = files.read_text(Path(values.file)) if values.file else values.text
    tokens = encoder.encode(text).tolist()
    if not tokens:
        raise UserError(f"{values.file} contains no text.")
    return tokens
