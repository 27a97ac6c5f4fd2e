"""Diversity of samples by sampling settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import files
from gpt2.checks import is_finite
from gpt2.errors import UserError
from gpt2.pictures.labels import legible
from gpt2.pictures.style import Theme, is_drawable, logarithmic, style
from gpt2.workspace import command_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Titles of the metrics, by their names in the file; metrics that a file lacks are left out.
TITLES = {
    "distinct_1": "distinct words",
    "distinct_2": "distinct pairs of words",
    "distinct_3": "distinct triples of words",
    "self_bleu": "self-BLEU",
    "repetition_4": "repeated 4-grams",
    "longest_repeated_span": "longest repeated span, words",
    "copied_8": "copied 8-grams",
    "length": "length, words",
    "perplexity": "perplexity",
}
COLUMNS = 4  # panels per line, or as many as there are settings
MOST_SETTINGS = 12  # more panels would be too small to read
TICKS = 12  # maximum number of values that are written below a panel


@dataclasses.dataclass(frozen=True)
class Row:
    """One combination of settings, and the metrics of its samples that are defined."""

    settings: Mapping[str, float]
    metrics: Mapping[str, float]


def read_grid(path: Path) -> list[Row]:
    """Return the rows of a file written by `evaluate grid --json`.

    Raises:
        UserError: it is another file, has no rows, or varies too many settings.
    """
    create = f"Create it with: {command_line('evaluate')} grid --json FILE"
    rows = files.read_json_object(path).get("rows")
    try:
        found = [Row(_numbers(row["settings"]), _numbers(row["metrics"])) for row in rows or ()]
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: not the results of a grid. {create}") from error
    if not any(row.settings and row.metrics for row in found):
        raise UserError(f"{path} has no rows with settings and metrics. {create}")
    if (count := len(varied(found))) > MOST_SETTINGS:
        raise UserError(
            f"{path} varies {count:,} settings; at most {MOST_SETTINGS} can be plotted. {create}"
        )
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are finite numbers."""
    return {name: value for name, value in values.items() if is_finite(value)}


def varied(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Return the values of each setting that has several, or else those of the first setting."""
    values: dict[str, set[float]] = {}
    for row in rows:
        for name, value in row.settings.items():
            values.setdefault(name, set()).add(value)
    several = {name: sorted(some) for name, some in values.items() if len(some) > 1}
    return several or {name: sorted(some) for name, some in list(values.items())[:1]}


def means(rows: Sequence[Row], metric: str, setting: str) -> dict[float, float]:
    """Return the mean of a metric over the rows with each value of a setting."""
    groups: dict[float, list[float]] = {}
    for row in rows:
        if setting in row.settings and metric in row.metrics:
            groups.setdefault(row.settings[setting], []).append(row.metrics[metric])
    return {value: sum(some) / len(some) for value, some in groups.items()}


def diversity_picture(rows: Sequence[Row], theme: Theme) -> Figure:
    """Return a figure with a panel for each metric and each setting that has several values.

    Each dot is a combination of settings; the line connects the means.
    """
    from matplotlib.figure import Figure

    settings = varied(rows)
    metrics = [name for name in TITLES if any(name in row.metrics for row in rows)]
    # With few settings, several metrics fit side by side.
    beside = max(1, COLUMNS // len(settings))
    lines, columns = -(-len(metrics) // beside), beside * len(settings)
    with style(theme):
        figure = Figure(figsize=(2.3 * columns + 0.8, 1.6 * lines + 0.6))
        panels = figure.subplots(lines, columns, squeeze=False)
        for number, metric in enumerate(metrics):
            line, first = number // beside, number % beside * len(settings)
            for column, (setting, values) in enumerate(settings.items(), start=first):
                axes = panels[line, column]
                _draw_panel(axes, rows, metric, setting, values, theme)
                axes.set_xlim(-0.5, len(values) - 0.5)
                ticks = range(0, len(values), -(-len(values) // TICKS))
                if number + beside < len(metrics):
                    axes.set_xticks(ticks, [])
                else:
                    axes.set_xticks(ticks, [f"{values[tick]:g}" for tick in ticks])
                    axes.set_xlabel(legible(setting, is_drawable))
                if column == first:
                    axes.set_title(TITLES[metric])
                else:
                    axes.sharey(panels[line, first])
                    axes.tick_params(axis="y", labelleft=False)
        for axes in panels.flat:
            axes.set_visible(axes.has_data())
        return figure


def _draw_panel(
    axes: Axes,
    rows: Sequence[Row],
    metric: str,
    setting: str,
    values: Sequence[float],
    theme: Theme,
) -> None:
    place = {value: place for place, value in enumerate(values)}
    dots = [
        (place[row.settings[setting]], row.metrics[metric])
        for row in rows
        if setting in row.settings and metric in row.metrics
    ]
    if not dots:
        return
    axes.plot(*zip(*dots, strict=True), "o", color=theme.muted, markersize=3, alpha=0.6)
    mean = means(rows, metric, setting)
    heights = [mean.get(value, math.nan) for value in values]
    axes.plot(range(len(values)), heights, "o-", color=theme.series[0], markersize=5)
    if metric == "perplexity" and max(y for _, y in dots) > 20 * min(y for _, y in dots) > 0:
        logarithmic(axes)
    if not any(y for _, y in dots):  # the axis would include negative values
        axes.set_ylim(-0.05, 1)
    axes.grid(True, axis="y")
