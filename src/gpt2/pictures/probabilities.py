"""What a model expects next, before and after the rules of sampling."""

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
CONTEXT = 5  # tokens before, at most, that a panel names


def probabilities_picture(
    steps: Sequence[TokenDistribution],
    token_bytes: Callable[[int], bytes],
    settings: SamplingSettings,
    theme: Theme,
    likeliest: int = 10,
) -> Figure:
    """A panel for each step: the likeliest tokens with their probabilities.

    Args:
        token_bytes: the bytes of a token.
        settings: what the tokens are drawn with.
        likeliest: how many tokens a panel shows.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = min(COLUMNS, len(steps))
    rows = -(-len(steps) // columns)
    with style(theme):
        height = 1.1 + 0.21 * likeliest
        figure = Figure(figsize=(max(5.5, 3.9 * columns), rows * height + 0.6))
        longest = max(max(step.before.max(), step.after.max()) for step in steps)
        panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
        for axes in panels[len(steps) :]:
            axes.remove()
        for number, (axes, step) in enumerate(zip(panels, steps, strict=False)):
            _draw_step(axes, step, token_bytes, theme, likeliest)
            axes.set_xlim(0, min(1.0, 1.05 * longest))
            axes.tick_params(labelbottom=number + columns >= len(steps))  # nothing is below it
        marks = [Patch(color=theme.faint), Patch(color=theme.series[0])]
        rules = f"temperature {settings.temperature:g}, top_k {settings.top_k}"
        rules += f", top_p {settings.top_p:g}"
        words = ["the model's own", f"drawn with {rules}"]
        figure.legend(marks, words, loc="outside lower center", ncols=2)
        return figure


def _draw_step(
    axes: Axes,
    step: TokenDistribution,
    token_bytes: Callable[[int], bytes],
    theme: Theme,
    likeliest: int,
) -> None:
    def name(token: int) -> str:
        return label(token_bytes(token), is_drawable)

    shown = step.likeliest(likeliest).tolist()
    rows = list(range(len(shown)))
    names = [f"▸ {name(token)}" if token == step.token else name(token) for token in shown]
    if step.token is not None and step.token not in shown:
        shown.append(step.token)
        rows.append(len(rows) + 0.3)
        names.append(f"▸ {name(step.token)}  #{step.rank(step.token):,}")
    places = np.array(rows)
    axes.barh(places - 0.2, step.before[shown], height=0.38, color=theme.faint)
    axes.barh(places + 0.2, step.after[shown], height=0.38, color=theme.series[0])
    axes.set_yticks(places, names)
    axes.set_ylim(likeliest + 0.9, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.grid(True, axis="x")
    if step.token is not None:
        # Not in bold: few fonts with Chinese have it, and matplotlib would complain.
        axes.get_yticklabels()[shown.index(step.token)].set_color(theme.series[1])
    before = "".join(label(token_bytes(token), is_drawable) for token in step.context[-CONTEXT:])
    before = before if len(before) <= 24 else "…" + before[-23:]
    came = "?" if step.token is None else name(step.token)
    axes.set_title(f"{before or '(beginning)'} ▸ {came}")
