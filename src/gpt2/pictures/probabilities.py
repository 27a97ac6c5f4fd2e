"""The most probable next tokens, before and after temperature and truncation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt2.evaluation.next_tokens import TokenDistribution
from gpt2.generation.sampling import SamplingSettings
from gpt2.pictures.labels import label
from gpt2.pictures.style import Theme, is_drawable, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
CONTEXT = 5  # previous tokens in the title of a panel


def probabilities_picture(
    steps: Sequence[TokenDistribution],
    token_bytes: Callable[[int], bytes],
    settings: SamplingSettings,
    theme: Theme,
    rows: int = 10,
) -> Figure:
    """Return a figure with a panel for each step: the most probable tokens as bars.

    Args:
        token_bytes: returns the bytes of a token.
        settings: the settings of the second bar of each token, for the legend.
        rows: number of tokens in a panel.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = min(COLUMNS, len(steps))
    lines = -(-len(steps) // columns)
    with style(theme):
        height = 1.1 + 0.21 * rows
        figure = Figure(figsize=(max(5.5, 3.9 * columns), lines * height + 0.6))
        longest = max(max(step.before.max(), step.after.max()) for step in steps)
        panels = list(figure.subplots(lines, columns, squeeze=False, sharex=True).flat)
        for axes in panels[len(steps) :]:
            axes.remove()
        for number, (axes, step) in enumerate(zip(panels, steps, strict=False)):
            _draw_step(axes, step, token_bytes, theme, rows)
            axes.set_xlim(0, min(1.0, 1.05 * longest))
            axes.tick_params(labelbottom=number + columns >= len(steps))  # the panel is the lowest
        marks = [Patch(color=theme.muted), Patch(color=theme.series[0])]
        words = ["probability", f"after {_settings_in_words(settings)}"]
        figure.legend(marks, words, loc="outside lower center", ncols=2)
        return figure


def _settings_in_words(settings: SamplingSettings) -> str:
    words = [f"temperature {settings.temperature:g}"]
    words += [f"top_k {settings.top_k}"] if settings.top_k else []
    words += [f"top_p {settings.top_p:g}"] if 0 < settings.top_p < 1 else []
    return ", ".join(words)


def _draw_step(
    axes: Axes,
    step: TokenDistribution,
    token_bytes: Callable[[int], bytes],
    theme: Theme,
    rows: int,
) -> None:
    def name(token: int) -> str:
        return label(token_bytes(token), is_drawable)

    shown = step.likeliest(rows).tolist()
    heights = [float(row) for row in range(len(shown))]
    names = [f"▸ {name(token)}" if token == step.token else name(token) for token in shown]
    if step.token is not None and step.token not in shown:
        shown.append(step.token)
        heights.append(len(heights) + 0.3)
        names.append(f"▸ {name(step.token)}  #{step.rank(step.token):,}")
    places = np.array(heights)
    axes.barh(places - 0.2, step.before[shown], height=0.38, color=theme.muted)
    axes.barh(places + 0.2, step.after[shown], height=0.38, color=theme.series[0])
    axes.set_yticks(places, names)
    axes.set_ylim(rows + 0.9, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.grid(True, axis="x")
    if step.token is not None:
        # Not bold, as few fonts with Chinese characters have a bold style.
        axes.get_yticklabels()[shown.index(step.token)].set_color(theme.series[1])
    before = "".join(label(token_bytes(token), is_drawable) for token in step.context[-CONTEXT:])
    before = before if len(before) <= 24 else "…" + before[-23:]
    following = "?" if step.token is None else name(step.token)
    axes.set_title(f"{before or '(beginning)'} ▸ {following}")
