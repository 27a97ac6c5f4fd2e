"""Batches are drawn evenly from all windows of the dataset, by seed and step alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from gpt2.data.sampler import Sampler, join_short
from gpt2.errors import UserError


def arrays(*chunks: list[int]) -> list[np.ndarray]:
    return [np.array(chunk, np.uint16) for chunk in chunks]


def windows(chunks: list[list[int]], size: int) -> list[tuple[int, ...]]:
    """Every window of the chunks, in their order."""
    return [
        tuple(chunk[start : start + size])
        for chunk in chunks
        for start in range(len(chunk) - size + 1)
    ]


@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_the_crops_are_every_window_once_and_none_across_a_border(window: int) -> None:
    chunks = [[0, 1, 2, 3, 4, 5, 6], [10, 11, 12, 13], [20, 21, 22, 23, 24]]
    sampler = Sampler(arrays(*chunks), window, seed=1)
    expected = windows(chunks, window)
    crops = [sampler.crop(start) for start in range(len(expected))]
    assert [tuple(crop) for crop in crops] == expected
    assert all(crop.dtype == np.int32 for crop in crops)


def test_batches_draw_every_crop_equally_often() -> None:
    chunks = [[0, 1, 2, 3, 4, 5, 6], [10, 11, 12, 13]]
    sampler = Sampler(arrays(*chunks), 3, seed=1)
    counts = Counter(
        tuple(crop) for step in range(100) for crop in sampler.batch(step, 70).tolist()
    )
    expected = windows(chunks, 3)  # seven
    assert sorted(counts) == sorted(expected)
    # 7,000 draws, 1,000 each with a standard deviation of 29; the seed is fixed.
    assert all(abs(count - 1000) < 5 * 29 for count in counts.values())


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    chunks = arrays(list(range(1000)), list(range(1000, 1100)))
    expected = [Sampler(chunks, 10, seed=5).batch(step, 4).tolist() for step in range(8)]
    sampler = Sampler(iter(chunks), 10, seed=5)
    for step in (7, 0, 3, 3, 1, 6):
        sampler.token(step)
        assert sampler.batch(step, 4).tolist() == expected[step]
    assert len({str(batch) for batch in expected}) == 8
    assert Sampler(chunks, 10, seed=6).batch(0, 4).tolist() != expected[0]


def test_a_batch_has_one_row_for_each_text() -> None:
    sampler = Sampler(arrays(list(range(100))), 10, seed=0)
    batch = sampler.batch(1, 6)
    assert batch.shape == (6, 10)
    assert batch.dtype == np.int32
    assert (np.diff(batch) == 1).all()


@pytest.mark.parametrize(
    ("chunks", "joined"),
    [
        ([[1], [2], [3]], [[1, 2, 3]]),
        ([[1, 2, 3, 4], [5, 6, 7]], [[1, 2, 3, 4], [5, 6, 7]]),
        ([[1], [2, 3], [4, 5, 6], [7], [8]], [[1, 2, 3], [4, 5, 6, 7, 8]]),  # the rest goes last
        ([[1, 2, 3], [], [4]], [[1, 2, 3, 4]]),
        ([[1], [2]], [[1, 2]]),  # all together are too short
        ([[], []], [[]]),
        ([], []),
    ],
    ids=str,
)
def test_short_chunks_are_joined_with_their_neighbours(
    chunks: list[list[int]], joined: list[list[int]]
) -> None:
    assert [chunk.tolist() for chunk in join_short(arrays(*chunks), 3)] == joined


def test_many_short_texts_are_all_drawn_from() -> None:
    # 2019 refused such data as too small: the mean chunk is shorter than the window.
    texts = [[number] for number in range(50)]
    sampler = Sampler(arrays(*texts), 10, seed=0)
    batch = sampler.batch(0, 500)
    assert set(batch.ravel().tolist()) == set(range(50))
    assert (np.diff(batch) == 1).all()


def test_a_dataset_shorter_than_the_window_is_one_window() -> None:
    sampler = Sampler(arrays([1, 2], [3]), 1024, seed=0)
    assert sampler.window == 3
    assert sampler.total_size == 3
    assert sampler.batch(9, 2).tolist() == [[1, 2, 3], [1, 2, 3]]


def test_a_dataset_as_long_as_the_window_is_one_window() -> None:
    sampler = Sampler(arrays([1, 2, 3, 4]), 4, seed=0)
    assert sampler.window == 4
    assert sampler.batch(1, 1).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("chunks", [[], [[]], [[5]], [[], [5], []]], ids=str)
def test_fewer_than_two_tokens_are_no_dataset(chunks: list[list[int]]) -> None:
    with pytest.raises(UserError, match=r"dataset is empty.*at least two tokens"):
        Sampler(arrays(*chunks), 10, seed=0)


def test_samples_begin_with_every_token_of_the_dataset_equally_often() -> None:
    sampler = Sampler(arrays([0, 1], [2, 3, 4, 5]), 2, seed=3)
    counts = Counter(sampler.token(step) for step in range(6000))
    assert sorted(counts) == [0, 1, 2, 3, 4, 5]
    assert all(abs(count - 1000) < 5 * 29 for count in counts.values())
    assert [sampler.token(step) for step in (5, 5)] == [sampler.token(5)] * 2
