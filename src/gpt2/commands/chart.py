"""A curve drawn with characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BLOCKS = " ▁▂▃▄▅▆▇█"  # a column of a cell is filled from below in eighths


def draw_curve(values: Sequence[float], width: int = 64, height: int = 8) -> list[str]:
    """Return the lines of an area chart, with the largest and the smallest value at its left.

    Args:
        values: at least one, finite; each column shows the mean of its share of them.
        width, height: of the chart without labels, in characters.

    Example:
        >>> print(*draw_curve([4, 3, 2, 1], height=2), sep="\\n")
        4.00 │█▃
        1.00 │██▆▁
    """
    parts = np.array_split(np.array(values, float), min(width, len(values)))
    columns = np.array([part.mean() for part in parts])
    low, high = columns.min(), columns.max()
    shares = (columns - low) / (high - low or 1)
    eighths = np.rint(1 + shares * (height * 8 - 1)).astype(int)
    labels = [f"{high:.2f}", *[""] * (height - 2), f"{low:.2f}"]
    margin = max(map(len, labels))
    return [
        f"{label:>{margin}} │{''.join(_BLOCKS[cell] for cell in cells)}".rstrip()
        for label, cells in zip(
            labels,
            (np.clip(eighths - 8 * row, 0, 8) for row in range(height - 1, -1, -1)),
            strict=True,
        )
    ]
