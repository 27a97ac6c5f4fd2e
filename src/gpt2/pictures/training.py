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

POINTS = 2000  # of a curve; more are neither seen nor wanted in a file
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)))  # when the colours begin again


def training_picture(runs: Mapping[str, Curves], theme: Theme) -> Figure:
    """The training loss, its average and the validation loss of runs, also as perplexity.

    Args:
        runs: the losses of each run, by its name.
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
        steps, losses, average = (
            _thinned(values) for values in (curves.steps, curves.loss, curves.average)
        )
        loss.plot(steps, losses, color=color, linewidth=0.8, alpha=0.3)
        loss.plot(steps, average, label=f"{name}: training, running average", **line)
        perplexity.plot(steps, perplexities(average), **line)
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
    """The exponential of losses in nats; NaN where that is beyond all bounds."""
    with np.errstate(over="ignore"):
        found = np.exp(losses)
    return np.where(np.isfinite(found), found, np.nan)


def _thinned(values: np.ndarray) -> np.ndarray:
    """Every so-and-so-many-th point, and the last one."""
    every = -(-len(values) // POINTS)
    return values[::-1][::every][::-1]
