"""plot.py diversity: what the settings of sampling do to the samples."""

from pathlib import Path

from gpt2.pictures.diversity import diversity_picture, read_grid
from plot_commands.shared import check_picture, save


def diversity(grid, *, out="diversity.png", theme="light"):
    """Draw how the settings of sampling change the samples, from a grid of them.

    Args:
        grid: the file that evaluate.py grid --json FILE has written
        out: the picture, .png or .svg
        theme: light or dark
    """
    path, colors = check_picture(out, theme)
    save(diversity_picture(read_grid(Path(grid)), colors), path, colors)
