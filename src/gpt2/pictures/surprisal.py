"""A text coloured by how little the model expected each token."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpt2.pictures.labels import pieces
from gpt2.pictures.style import MONOSPACE, Theme, is_drawable, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 92  # cells of a line; a letter takes one, a Chinese character two
MOST = 1500  # tokens in a picture
NAME_SIZE = 0.62  # of the names of what cannot be drawn, against that of the text
# The least expected token has the strongest colour from this probability on, and is named there.
RAREST = 1e-4
PROBABILITIES = (1, 0.1, 0.01, 0.001, RAREST)
FULL = -math.log(RAREST)  # nats

_CELL = 0.098  # inches
_LINE = 0.235  # inches
_ADVANCE = 0.602  # of a letter of the monospaced font, against its size


class Run(NamedTuple):
    """A part of a token within one line, in cells."""

    token: int
    line: int
    column: int
    cells: int
    text: str
    is_name: bool


def surprisal_picture(
    tokens: Sequence[bytes], nats: np.ndarray, count: int, theme: Theme
) -> Figure:
    """The text of some tokens, each on a ground the stronger the less it was expected.

    Args:
        tokens: the bytes of each token [T].
        nats: minus the log-probability of each; NaN where there is none; float [T].
        count: how many tokens the whole text has.
    """
    from matplotlib.figure import Figure

    runs = layout(tokens, COLUMNS, is_drawable)
    lines = runs[-1].line + 1 if runs else 1
    width, height = COLUMNS * _CELL + 0.6, lines * _LINE + 1.15
    with style(theme):
        figure = Figure(figsize=(width, height), layout="none")
        box = (0.3 / width, 0.25 / height, COLUMNS * _CELL / width, lines * _LINE / height)
        axes = figure.add_axes(box)
        axes.set_axis_off()
        axes.set_xlim(0, COLUMNS)
        axes.set_ylim(lines, 0)
        _draw(axes, runs, nats, theme)
        part = f", the first of {count:,}" if count > len(tokens) else ""
        title = f"{perplexity_in_words(nats)}{part}. Strong colour: less expected"
        figure.text(0.3 / width, 1 - 0.3 / height, title, va="center", fontsize=10)
        _draw_scale(figure, (0.3 / width, 1 - 0.62 / height, 3.2 / width, 0.14 / height), theme)
        return figure


def perplexity_in_words(nats: np.ndarray) -> str:
    """The perplexity of the tokens that have a probability."""
    scored = nats[np.isfinite(nats)]
    if not len(scored):
        return "No token was predicted"
    with np.errstate(over="ignore"):
        return f"Perplexity {np.exp(scored.mean()):,.1f} over {len(scored):,} tokens"


def layout(tokens: Sequence[bytes], columns: int, is_drawable: Callable[[str], bool]) -> list[Run]:
    """Where the tokens of a text stand in lines of so many cells.

    A token that does not fit into what is left of a line begins the next one; one that is longer
    than a line goes on in the next. A line end is shown as such, and ends the line.
    """
    runs: list[Run] = []
    line = column = 0
    for number, token in enumerate(tokens):
        glyphs = list(_glyphs(token, is_drawable))
        needed = sum(cells for _, cells, _ in glyphs)
        if column + needed > columns and needed <= columns:
            line, column = line + 1, 0
        for text, cells, is_name in glyphs:
            if column + cells > columns:
                line, column = line + 1, 0
            last = runs[-1] if runs else None
            # Wide characters stand by themselves, so that each is in the middle of its cells.
            joins = (
                last is not None
                and (last.token, last.line, last.column + last.cells) == (number, line, column)
                and not (is_name or last.is_name)
                and (cells == 0 or cells == last.cells / max(1, len(last.text)) == 1)
            )
            if joins:
                runs[-1] = last._replace(cells=last.cells + cells, text=last.text + text)
            else:
                runs.append(Run(number, line, column, cells, text, is_name))
            column += cells
            if text == "↵":
                line, column = line + 1, 0
    return runs


def _glyphs(token: bytes, is_drawable: Callable[[str], bool]) -> list[tuple[str, int, bool]]:
    """The characters of a token with their cells; names of such as whole ones."""
    found = []
    for text, is_name in pieces(token, is_drawable):
        if is_name:
            names = text.split() if "U+" in text else [text]
            found += [(name, math.ceil(NAME_SIZE * len(name) + 0.5), True) for name in names]
            continue
        for character in text.replace("\n", "↵").replace("\t", "→"):
            wide = unicodedata.east_asian_width(character) in "WF"
            cells = 0 if unicodedata.combining(character) else 2 if wide else 1
            found.append((character, cells, False))
    return found


def _draw(axes: Axes, runs: Sequence[Run], nats: np.ndarray, theme: Theme) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    colors = theme.colormap(theme.surprise)
    patches = [Rectangle((run.column, run.line + 0.06), run.cells, 0.88) for run in runs]
    shades = colors(np.nan_to_num(nats[[run.token for run in runs]] / FULL))
    axes.add_collection(
        PatchCollection(patches, facecolors=shades, edgecolors=theme.ground, linewidths=0.8)
    )
    size = 72 * _CELL / _ADVANCE
    for run in runs:
        if not run.text.strip():
            continue
        middle = run.line + 0.5
        if run.is_name:
            inside = Rectangle(
                (run.column + 0.15, run.line + 0.2), run.cells - 0.3, 0.6, fill=False
            )
            inside.set(edgecolor=theme.faint, linewidth=0.6)
            axes.add_patch(inside)
        alone = run.is_name or run.cells != len(run.text)
        axes.text(
            run.column + (run.cells / 2 if alone else 0),
            middle,
            run.text,
            ha="center" if alone else "left",
            va="center_baseline" if not run.is_name else "center",
            fontsize=size * (NAME_SIZE if run.is_name else 1),
            family=[MONOSPACE, *_fallbacks()],
        )


def _fallbacks() -> list[str]:
    import matplotlib

    return matplotlib.rcParams["font.family"]


def _draw_scale(figure: Figure, box: tuple[float, ...], theme: Theme) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(0, FULL), theme.colormap(theme.surprise))
    ticks = [-math.log(probability) for probability in PROBABILITIES]
    bar = figure.colorbar(scale, cax=figure.add_axes(box), orientation="horizontal", ticks=ticks)
    words = [f"{100 * probability:g} %" for probability in PROBABILITIES]
    bar.ax.set_xticklabels([*words[:-1], f"{words[-1]} or less"])
    bar.ax.tick_params(length=2, labelsize=7)
    bar.outline.set(edgecolor=theme.faint, linewidth=0.6)
