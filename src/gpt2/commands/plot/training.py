"""`plot training`: loss and perplexity over the steps of runs."""

from __future__ import annotations

import dataclasses

from gpt2.checkpoint.resolve import find_run
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.plot.shared import check_picture, picture_options, save
from gpt2.errors import UserError
from gpt2.pictures import style
from gpt2.training.run_log import HISTORY, read_curves


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Which runs are plotted."""

    run: str = setting(
        "run1", "runs under checkpoint/, or paths, separated by commas", metavar="RUN,..."
    )


def run(values: Values) -> None:
    """Plot the curves of the runs."""
    path, theme = check_picture(values)
    names = list(dict.fromkeys(filter(None, map(str.strip, values.run.split(",")))))
    if not names:
        raise UserError("--run: no name given. Separate names with commas: --run run1,run2")
    runs = {name: read_curves(find_run(name, values.models_dir) / HISTORY) for name in names}
    style.load_matplotlib()
    from gpt2.pictures.training import training_picture

    save(training_picture(runs, theme), path, theme)


COMMAND = Command(
    summary="Plot loss, validation loss and perplexity over the steps of runs.",
    groups={
        "runs": [
            *options_of(TrainingOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
        ],
        "picture": picture_options("training.png"),
    },
    run=run,
    first="run",
)
