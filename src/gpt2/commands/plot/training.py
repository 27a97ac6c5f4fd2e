"""plot.py training: loss and perplexity over the steps of runs."""

from gpt2.training.run_log import HISTORY, read_curves
from gpt2.workspace import Workspace
from plot_commands.shared import check_picture, names, run_folder, save


def training(run="run1", *, out="training.png", theme="light", models_dir="models"):
    """Draw loss, validation loss and perplexity over the steps of one run or several.

    Args:
        run: names of runs under checkpoint/, or paths of their folders, separated by commas
        out: the picture, .png or .svg
        theme: light or dark
        models_dir: the folder that holds the models
    """
    path, colors = check_picture(out, theme)
    workspace = Workspace.find(models_dir)
    runs = {name: read_curves(run_folder(workspace, name) / HISTORY) for name in names(run)}
    from gpt2.pictures.training import training_picture

    save(training_picture(runs, colors), path, colors)
