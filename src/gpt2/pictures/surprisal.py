"""A text with tokens shaded by surprisal."""

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
NAME_SIZE = 0.62  # font size of bytes and code points, relative to that of the text
# Probability from which on tokens have the strongest color.
RAREST = 1e-4
PROBABILITIES = (1, 0.1, 0.01, 0.001, RAREST)
FULL = -math.log(RAREST)  # nats

_CELL = 0.098  # inches
_LINE = 0.235  # inches
_ADVANCE = 0.602  # width of a letter of the monospaced font, relative to the font size


class Segment(NamedTuple):
    """A part of a token within one line; column and cells are measured in cells."""

    token: int
    line: int
    column: int
    cells: int
    text: str
    is_name: bool


def surprisal_picture(
    tokens: Sequence[bytes], nats: np.ndarray, count: int, theme: Theme
) -> Figure:
    """Return a picture of a text with tokens shaded by surprisal.

    Args:
        tokens: the bytes of each token [T].
        nats: surprisal of each token, float [T]; NaN for a token that was not predicted.
        count: number of tokens of the whole text.
    """
    from matplotlib.figure import Figure

    segments = layout(tokens, COLUMNS, is_drawable)
    lines = segments[-1].line + 1 if segments else 1
    width, height = COLUMNS * _CELL + 0.6, lines * _LINE + 1.15
    with style(theme):
        figure = Figure(figsize=(width, height), layout="none")
        box = (0.3 / width, 0.25 / height, COLUMNS * _CELL / width, lines * _LINE / height)
        axes = figure.add_axes(box)
        axes.set_axis_off()
        axes.set_xlim(0, COLUMNS)
        axes.set_ylim(lines, 0)
        _draw(axes, segments, nats, theme)
        part = f", the first of {count:,}" if count > len(tokens) else ""
        title = f"{perplexity_in_words(nats)}{part}. Stronger color: higher surprisal"
        figure.text(0.3 / width, 1 - 0.3 / height, title, va="center", fontsize=10)
        _draw_scale(figure, (0.3 / width, 1 - 0.62 / height, 3.2 / width, 0.14 / height), theme)
        return figure


def perplexity_in_words(nats: np.ndarray) -> str:
    """Return a sentence about the perplexity of tokens, given their surprisal in nats [T]."""
    scored = nats[np.isfinite(nats)]
    if not len(scored):
        return "No token was predicted"
    with np.errstate(over="ignore"):
        return f"Perplexity {np.exp(scored.mean()):,.1f} over {len(scored):,} tokens"


def layout(
    tokens: Sequence[bytes], columns: int, is_drawable: Callable[[str], bool]
) -> list[Segment]:
    """Return the segments of a text that is broken into lines of `columns` cells.

    A token that does not fit into the rest of a line moves to the next line; one that is longer
    than a line is split. Newlines are shown as ↵ and end the line.
    """
    segments: list[Segment] = []
    line = column = 0
    for number, token in enumerate(tokens):
        glyphs = list(_glyphs(token, is_drawable))
        needed = sum(cells for _, cells, _ in glyphs)
        if column + needed > columns and needed <= columns:
            line, column = line + 1, 0
        for text, cells, is_name in glyphs:
            if column + cells > columns:
                line, column = line + 1, 0
            last = segments[-1] if segments else None
            # Wide characters are separate segments, so that each is centered in its cells.
            if (
                last is not None
                and (last.token, last.line, last.column + last.cells) == (number, line, column)
                and not (is_name or last.is_name)
                and (cells == 0 or cells == last.cells / max(1, len(last.text)) == 1)
            ):
                segments[-1] = last._replace(cells=last.cells + cells, text=last.text + text)
            else:
                segments.append(Segment(number, line, column, cells, text, is_name))
            column += cells
            if text == "↵":
                line, column = line + 1, 0
    return segments


def _glyphs(token: bytes, is_drawable: Callable[[str], bool]) -> list[tuple[str, int, bool]]:
    """Return (text, cells, is_name) for each character of a token, or name of a character."""
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


def _draw(axes: Axes, segments: Sequence[Segment], nats: np.ndarray, theme: Theme) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    colors = theme.colormap(theme.surprisal)
    patches = [
        Rectangle((segment.column, segment.line + 0.06), segment.cells, 0.88)
        for segment in segments
    ]
    shades = colors(np.nan_to_num(nats[[segment.token for segment in segments]] / FULL))
    axes.add_collection(
        PatchCollection(patches, facecolors=shades, edgecolors=theme.background, linewidths=0.8)
    )
    size = 72 * _CELL / _ADVANCE
    for segment in segments:
        if not segment.text.strip():
            continue
        middle = segment.line + 0.5
        if segment.is_name:
            inside = Rectangle(
                (segment.column + 0.15, segment.line + 0.2), segment.cells - 0.3, 0.6, fill=False
            )
            inside.set(edgecolor=theme.muted, linewidth=0.6)
            axes.add_patch(inside)
        alone = segment.is_name or segment.cells != len(segment.text)
        axes.text(
            segment.column + (segment.cells / 2 if alone else 0),
            middle,
            segment.text,
            ha="center" if alone else "left",
            va="center_baseline" if not segment.is_name else "center",
            fontsize=size * (NAME_SIZE if segment.is_name else 1),
            family=[MONOSPACE, *_fallbacks()],
        )


def _fallbacks() -> list[str]:
    import matplotlib

    return matplotlib.rcParams["font.family"]


def _draw_scale(figure: Figure, box: tuple[float, ...], theme: Theme) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(0, FULL), theme.colormap(theme.surprisal))
    ticks = [-math.log(probability) for probability in PROBABILITIES]
    bar = figure.colorbar(scale, cax=figure.add_axes(box), orientation="horizontal", ticks=ticks)
    words = [f"{100 * probability:g} %" for probability in PROBABILITIES]
    bar.ax.set_xticklabels([*words[:-1], f"{words[-1]} or less"])
    bar.ax.tick_params(length=2, labelsize=7)
    bar.outline.set(edgecolor=theme.muted, linewidth=0.6)
