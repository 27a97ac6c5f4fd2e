"""The HTML that a notebook shows for a result: a table and a curve."""

from __future__ import annotations

import html
from collections.abc import Mapping

import numpy as np

from gpt2.training.run_log import Curves

WIDTH, HEIGHT = 420, 160  # of the curve, in pixels
MARGIN = 40  # for the labels, in pixels
MOST_POINTS = 200  # of a line
TRAINING, VALIDATION = "#4c78a8", "#e45756"  # colors


def table(title: str, facts: Mapping[str, str]) -> str:
    """Return a table of names and values under a title."""
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table><caption><b>{html.escape(title)}</b></caption>{rows}</table>"


def curve(curves: Curves) -> str:
    """Return the training loss (moving average) and the validation loss by step, as SVG."""
    lines = [
        (TRAINING, *_known(curves.steps, curves.average)),
        (VALIDATION, *_known(curves.val_steps, curves.val_loss)),
    ]
    steps = np.concatenate([line[1] for line in lines])
    losses = np.concatenate([line[2] for line in lines])
    if not len(steps):
        return ""
    left, right, low, high = steps.min(), steps.max(), losses.min(), losses.max()
    width, height = WIDTH - 2 * MARGIN, HEIGHT - MARGIN
    drawn = ""
    for color, x, y in lines:
        across = MARGIN + (x - left) / max(right - left, 1) * width
        down = 10 + (high - y) / max(high - low, 1e-9) * height
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        drawn += f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{points}"/>'
        if color == VALIDATION or len(x) == 1:
            drawn += "".join(
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{color}"/>'
                for a, b in zip(across, down, strict=True)
            )
    labels = [
        (2, 18, f"{high:.2f}", "currentColor"),
        (2, 10 + height, f"{low:.2f}", "currentColor"),
        (MARGIN, HEIGHT - 8, f"step {left:,.0f}", "currentColor"),
        (WIDTH - MARGIN - 30, HEIGHT - 8, f"{right:,.0f}", "currentColor"),
        (WIDTH - 180, 14, "training loss", TRAINING),
        (WIDTH - 95, 14, "validation loss", VALIDATION if len(lines[1][1]) else "none"),
    ]
    words = "".join(
        f'<text x="{x}" y="{y}" font-size="11" fill="{color}">{text}</text>'
        for x, y, text, color in labels
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="Loss by step">{drawn}{words}</svg>'
    )


def _known(steps: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points whose loss is known, thinned to at most `MOST_POINTS`."""
    known = np.flatnonzero(np.isfinite(losses))
    if len(known) > MOST_POINTS:
        known = known[np.linspace(0, len(known) - 1, MOST_POINTS).astype(int)]
    return steps[known], losses[known]
