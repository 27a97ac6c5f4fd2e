"""Pack examples of different lengths into rows of one length."""

from __future__ import annotations

import numpy as np


def pack(lengths: np.ndarray, room: int) -> np.ndarray:
    """Return the row of each example, int64 [examples]: best-fit decreasing bin packing.

    The longest example comes first, and each goes into the fullest row that has room for it.

    Source: Johnson 1973, "Near-Optimal Bin Packing Algorithms".

    Args:
        lengths: of the examples in descending order, integers from 1 to `room`.
        room: length of a row.

    Example:
        >>> pack(np.array([5, 4, 3, 2, 2]), 8).tolist()
        [0, 1, 0, 1, 1]
    """
    rows: list[int] = []
    count = 0  # rows so far
    rows_left: list[list[int]] = [[] for _ in range(room + 1)]  # the rows with so much room left
    sizes, counts = np.unique(lengths, return_counts=True)
    for size, waiting in zip(sizes.tolist()[::-1], counts.tolist()[::-1], strict=True):
        left = size
        while waiting:
            # A row that took all it can has less room than `size`, so the search never goes back.
            while left < room and not rows_left[left]:
                left += 1
            if not rows_left[left]:
                rows_left[left].append(count)
                count += 1
            row = rows_left[left].pop()
            taken = min(waiting, left // size)
            rows += [row] * taken
            waiting -= taken
            rows_left[left - taken * size].append(row)
    return np.array(rows, np.int64)
