"""Optuna's own plots of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import files

if TYPE_CHECKING:
    import optuna

FEWEST = 3  # trials of different losses without which importance means nothing

# What the plots show, by name.
TITLES = {"history": "Validation loss by trial", "importance": "Importance of each setting"}


def plot_path(stem: Path, name: str) -> Path:
    """Return the path of a plot of `TITLES`; `stem` is that of `save_plots`."""
    return stem.with_name(f"{stem.name}-{name}.png")


def save_plots(study: optuna.Study, stem: Path) -> list[Path]:
    """Write the optimization history and the importance of each setting as PNG files.

    Args:
        stem: `checkpoint/STUDY`, to which -history.png and -importance.png are added.

    Returns:
        The written files; without the importance if there are too few trials.

    Raises:
        ImportError: matplotlib is not installed.
        UserError: a file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")  # never opens a window
    from matplotlib import pyplot
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as plots

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    drawings: dict[str, Any] = {}
    if complete:
        drawings["history"] = lambda: plots.plot_optimization_history(
            study, target_name="validation loss"
        )
    names = set().union(*(trial.params for trial in complete)) if complete else set()
    if len(names) > 1 and len({trial.value for trial in complete}) >= FEWEST:
        evaluator = PedAnovaImportanceEvaluator()  # the only one that needs no scikit-learn
        drawings["importance"] = lambda: plots.plot_param_importances(study, evaluator=evaluator)
    written = []
    for name, draw in drawings.items():
        figure = draw().figure
        path = plot_path(stem, name)
        with files.atomic_write(path) as file:
            figure.savefig(file, format="png", bbox_inches="tight")
        pyplot.close(figure)
        written.append(path)
    return written
