"""Loss and perplexity of runs over their steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gpt2.pictures.labels import legible
from gpt2.pictures.style import Theme, is_drawable, logarithmic, style
from gpt2.training.run_log import Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 2000  # maximum number of points of a curve; more would only make the file larger
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)))  # line styles, for more runs than colors
REACH = 0.02  # steps on each side that the smoothed loss is the mean of, as a fraction of all


def training_picture(runs: Mapping[str, Curves], theme: Theme) -> Figure:
    """Return a plot of training loss and validation loss, also as perplexity, of some runs.

    Args:
        runs: the curves of each run, by its name.
    """
    from matplotlib.figure import Figure

    with style(theme):
        figure = Figure(figsize=(10, 4.2 + 0.2 * len(runs)))
        loss, perplexity = figure.subplots(1, 2, sharex=True)
        for number, (name, curves) in enumerate(runs.items()):
            color = theme.series[number % len(theme.series)]
            dashes = DASHES[number // len(theme.series) % len(DASHES)]
            _draw_run(loss, perplexity, legible(name, is_drawable), curves, color, dashes)
        loss.set_title("Loss, nats per token")
        perplexity.set_title("Perplexity per token")
        logarithmic(perplexity)
        for axes in (loss, perplexity):
            axes.set_xlabel("step")
            axes.grid(True)
        figure.legend(
            *loss.get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(runs))
        )
        return figure


def _draw_run(
    loss: Axes, perplexity: Axes, name: str, curves: Curves, color: str, dashes: object
) -> None:
    line = {"color": color, "linestyle": dashes, "linewidth": 1.6}
    if len(curves.steps):
        steps, losses, smoothed = (
            _thin(values) for values in (curves.steps, curves.loss, smooth(curves.loss))
        )
        loss.plot(steps, losses, color=color, linewidth=0.8, alpha=0.3)
        loss.plot(steps, smoothed, label=f"{name}: training, smoothed", **line)
        perplexity.plot(steps, perplexities(smoothed), **line)
    if len(curves.val_steps):
        marks = {"color": color, "marker": "o", "markersize": 3.5, "linewidth": 1, "alpha": 0.9}
        label = f"{name}: validation"
        if np.isfinite(curves.val_loss).any():
            best = int(np.nanargmin(curves.val_loss))
            step = int(curves.val_steps[best])
            label += f", lowest {curves.val_loss[best]:.3f} at step {step:,}"
        loss.plot(curves.val_steps, curves.val_loss, label=label, **marks)
        perplexity.plot(curves.val_steps, perplexities(curves.val_loss), **marks)


def perplexities(losses: np.ndarray) -> np.ndarray:
    """Return exp(losses), losses in nats; NaN where it overflows."""
    with np.errstate(over="ignore"):
        found = np.exp(losses)
    return np.where(np.isfinite(found), found, np.nan)


def smooth(losses: np.ndarray) -> np.ndarray:
    """Return the centered moving average of losses, float64 [steps]; NaN is left out.

    A centered average does not lag behind a falling loss, as the running average of the log does.
    At the start, where the loss falls fast, the window shrinks to stay centered; at the end it is
    truncated.
    """
    places = np.arange(len(losses))
    reach = max(2, int(REACH * len(losses)))
    begin = places - np.minimum(places, reach)
    end = np.minimum(places + np.minimum(places, reach) + 1, len(losses))
    known = np.isfinite(losses)
    sums = np.append(0, np.cumsum(np.where(known, losses, 0)))
    counts = np.append(0, np.cumsum(known))
    with np.errstate(invalid="ignore"):  # 0 / 0 where no loss is known
        return (sums[end] - sums[begin]) / (counts[end] - counts[begin])


def _thin(values: np.ndarray) -> np.ndarray:
    """Return every n-th value and the last one, at most `POINTS`."""
    every = -(-len(values) // POINTS)
    return values[::-1][::every][::-1]
