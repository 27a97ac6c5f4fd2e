"""Attention: a grid of all heads, one head enlarged, and the attention of one token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt2.pictures.labels import label
from gpt2.pictures.style import Theme, is_drawable, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 48  # pixels on a side of one head in the grid, about
LABELS = 44  # maximum number of tick labels on an axis
BARS = 24  # maximum number of bars
VALUES = 12  # tokens up to which the weights are also written as numbers
GAMMA = 0.45  # exponent of the color scale, which makes small weights visible
SCALE = (0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5)  # ticks of the color scale
STRONG = 0.002  # fraction of the weights that have the strongest color
SURVEYED = 2_000_000  # maximum number of weights whose quantile is computed


def attention_picture(
    attention: np.ndarray,
    tokens: Sequence[bytes],
    layer: int,
    head: int,
    place: int,
    theme: Theme,
    first: int = 0,
) -> Figure:
    """Return a plot of all heads as a grid, one head enlarged, and the attention of one token.

    Args:
        attention: float [L, H, T, T]; see `gpt2.evaluation.attention`.
        tokens: the bytes of each token [T].
        layer, head: the enlarged head, from 0.
        place: the token whose attention is shown as bars, from 0.
        first: number of tokens of the text before these.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    names = [label(token, is_drawable) for token in tokens]
    layers, heads = attention.shape[:2]
    norm = PowerNorm(GAMMA, 0, _strongest_weight(attention))
    colors = {"cmap": theme.colormap(theme.weights), "norm": norm}
    with style(theme):
        grid_width = 4.2
        grid_height = min(8.0, max(2.4, grid_width * layers / heads))
        figure = Figure(figsize=(13, max(7.2, grid_height + 3.4)))
        left, large = figure.subfigures(1, 2, width_ratios=(grid_width + 0.4, 8))
        above, below = left.subfigures(2, 1, height_ratios=(grid_height + 0.6, 3.2))
        small_axes, large_axes, bar_axes = (part.subplots() for part in (above, large, below))
        _draw_grid(small_axes, attention, layer, head, theme, colors)
        _draw_head(large_axes, attention[layer, head], names, place, first, theme, colors)
        large_axes.set_title(f"Layer {layer}, head {head}: attention of each token (row)")
        _draw_bars(bar_axes, attention[layer, head, place], names, place, first, theme)
        return figure


def _strongest_weight(attention: np.ndarray) -> float:
    """Return the weight with the strongest color, which is lower the more tokens there are."""
    rows, columns = np.tril_indices(attention.shape[-1])
    every = 1 + attention[..., 0, 0].size * len(rows) // SURVEYED
    return float(np.quantile(attention[:, :, rows[::every], columns[::every]], 1 - STRONG))


def _draw_grid(
    axes: Axes, attention: np.ndarray, layer: int, head: int, theme: Theme, colors: dict
) -> None:
    """Draw all heads as one image: a row for each layer, a column for each head."""
    layers, heads, length = attention.shape[:3]
    cells = min(length, CELL)
    zoom = CELL // cells  # keeps the gaps narrow in comparison
    side = cells * zoom
    gap = side // 12
    pitch = side + gap
    image = np.full((layers * pitch - gap, heads * pitch - gap), np.nan)
    future = np.triu(np.ones((cells, cells), bool), 1)
    for row in range(layers):
        for column in range(heads):
            cell = np.where(future, np.nan, shrunk(attention[row, column], cells))
            top, start = row * pitch, column * pitch
            zoomed = cell.repeat(zoom, axis=0).repeat(zoom, axis=1)
            image[top : top + side, start : start + side] = zoomed
    axes.imshow(image, interpolation="nearest", aspect="equal", **colors)
    corner = head * pitch - (gap + 1) / 2, layer * pitch - (gap + 1) / 2
    _mark(axes, corner, pitch, pitch, theme)
    for set_ticks, count in ((axes.set_xticks, heads), (axes.set_yticks, layers)):
        every = -(-count // 26)
        set_ticks([n * pitch + side / 2 for n in range(0, count, every)], range(0, count, every))
    axes.tick_params(length=0, pad=7)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_title("All heads", pad=10)


def shrunk(weights: np.ndarray, side: int) -> np.ndarray:
    """Return a square matrix reduced to side x side cells, by the maximum.

    The mean would hide a head that attends to a single token.
    """
    starts = np.arange(side) * len(weights) // side
    return np.maximum.reduceat(np.maximum.reduceat(weights, starts, axis=0), starts, axis=1)


def _draw_head(
    axes: Axes,
    weights: np.ndarray,
    names: list[str],
    place: int,
    first: int,
    theme: Theme,
    colors: dict,
) -> None:
    length = len(names)
    future = np.triu(np.ones((length, length), bool), 1)
    image = axes.imshow(np.where(future, np.nan, weights), interpolation="nearest", **colors)
    ticks = ticks_for(length, place)
    # With many tokens, the labels include the position in the text.
    numbered = [f"{names[n]}  {first + n + 1}" if length > LABELS else names[n] for n in ticks]
    size = 8 if length <= 30 else 7
    axes.set_xticks(ticks, numbered, rotation=90, fontsize=size)
    axes.set_yticks(ticks, numbered, fontsize=size)
    axes.get_yticklabels()[ticks.index(place)].set_color(theme.series[1])
    _mark(axes, (-0.5, place - 0.5), place + 1, 1, theme, 1.6 if length < 100 else 0.6)
    if length <= VALUES:
        _write_values(axes, weights, colors["norm"], theme)
    axes.spines[:].set_visible(False)
    full = colors["norm"].vmax
    shares = [share for share in SCALE if share < 0.8 * full] + [full]
    extend = "max" if full < 0.995 else "neither"
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, ticks=shares, extend=extend)
    bar.ax.set_yticklabels(
        [f"{100 * share:.2g} %" if share < 0.995 else "100 %" for share in shares]
    )
    bar.outline.set_visible(False)


def _mark(
    axes: Axes,
    corner: tuple[float, float],
    width: float,
    height: float,
    theme: Theme,
    line: float = 1.6,
) -> None:
    from matplotlib.patches import Rectangle

    frame = {"fill": False, "edgecolor": theme.series[1], "linewidth": line, "clip_on": False}
    axes.add_patch(Rectangle(corner, width, height, **frame))


def _write_values(
    axes: Axes, weights: np.ndarray, norm: Callable[[float], float], theme: Theme
) -> None:
    for row, column in zip(*np.tril_indices(len(weights)), strict=True):
        weight = weights[row, column]
        color = theme.background if norm(weight) > 0.55 else theme.foreground
        words = f"{100 * weight:.0f} %"
        axes.text(column, row, words, color=color, ha="center", va="center", fontsize=8)


def ticks_for(length: int, place: int) -> list[int]:
    """Return the positions that get a label: at most about `LABELS`, evenly spaced, and `place`."""
    every = -(-length // LABELS)
    ticks = list(range(0, length, every))
    if place not in ticks:
        ticks = sorted([tick for tick in ticks if abs(tick - place) >= every] + [place])
    return ticks


def strongest(weights: np.ndarray, place: int) -> np.ndarray:
    """Return the positions of the `BARS` largest weights up to `place`, in ascending order."""
    seen = weights[: place + 1]
    return np.sort(np.argsort(-seen, kind="stable")[:BARS])


def _draw_bars(
    axes: Axes, weights: np.ndarray, names: list[str], place: int, first: int, theme: Theme
) -> None:
    shown = strongest(weights, place)
    rows = np.arange(len(shown))
    axes.barh(rows, weights[shown], color=theme.series[0], height=0.75)
    size = 8 if len(shown) <= 16 else 6.5
    axes.set_yticks(rows, [f"{names[n]}  {first + n + 1}" for n in shown], fontsize=size)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.grid(True, axis="x")
    kept = "" if len(shown) > place else f", the {len(shown)} strongest"
    axes.set_title(f"Attention of token {first + place + 1:,}, {names[place]}{kept}")
