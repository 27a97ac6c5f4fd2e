"""`plot diversity`: diversity of samples by sampling settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gpt2.checks import setting
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.plot.shared import check_picture, picture_options, save
from gpt2.pictures import style
from gpt2.pictures.diversity import diversity_picture, read_grid


@dataclasses.dataclass(frozen=True)
class DiversityOptions:
    """Which results are plotted."""

    grid: str = setting(help="results of evaluate grid --json FILE", metavar="FILE")


def run(values: Values) -> None:
    """Plot the metrics of a grid of settings."""
    path, theme = check_picture(values)
    rows = read_grid(Path(values.grid))
    style.load_matplotlib()
    save(diversity_picture(rows, theme), path, theme)


COMMAND = Command(
    summary="Plot the diversity of samples by sampling settings, from evaluate grid --json.",
    groups={
        "results": options_of(DiversityOptions),
        "picture": picture_options("diversity.png"),
    },
    run=run,
    first="grid",
)
