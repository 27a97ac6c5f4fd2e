"""Batches are drawn evenly from all windows of the dataset, by seed and step alone."""

from __future__ import annotations

import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import shards
from gpt2.data.datasets import documents_in
from gpt2.data.samplers import DocumentSampler, StreamSampler, join_short
from gpt2.errors import UserError
from tests.data.conftest import rows_of, whole_chunks


def arrays(*chunks: list[int]) -> list[np.ndarray]:
    return [np.array(chunk, np.uint16) for chunk in chunks]


def windows(chunks: list[list[int]], size: int) -> list[tuple[int, ...]]:
    """Every window of the chunks, in their order."""
    return [
        tuple(chunk[start : start + size])
        for chunk in chunks
        for start in range(len(chunk) - size + 1)
    ]


@pytest.mark.parametrize("window", [1, 2, 3])
def test_the_crops_are_every_one_of_the_window_and_none_across_a_border(window: int) -> None:
    # Those of `window` tokens and the one after each: every input has its target.
    chunks = [[0, 1, 2, 3, 4, 5, 6], [10, 11, 12, 13], [20, 21, 22, 23, 24]]
    sampler = StreamSampler(arrays(*chunks), window, seed=1)
    batch = rows_of(sampler.batch(0, 1000))
    assert set(map(tuple, batch.tolist())) == set(windows(chunks, window + 1))
    assert batch.dtype == np.int32


def test_a_chunk_is_drawn_as_often_as_it_has_tokens_and_its_crops_equally() -> None:
    chunks = [[0, 1, 2, 3, 4, 5, 6, 7], [10, 11, 12, 13]]
    seed = 1
    print("seed", seed)
    sampler = StreamSampler(arrays(*chunks), 3, seed)
    counts = Counter(
        tuple(crop) for step in range(100) for crop in rows_of(sampler.batch(step, 120)).tolist()
    )
    # 12,000 draws: 8 of 12 are of the first chunk, with five crops; 4 of the second, with one.
    expected = dict.fromkeys(windows(chunks[:1], 4), 1600) | {(10, 11, 12, 13): 4000}
    assert sorted(counts) == sorted(expected)
    assert all(abs(counts[crop] - expected[crop]) < 5 * expected[crop] ** 0.5 for crop in counts)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    chunks = arrays(list(range(1000)), list(range(1000, 1100)))
    expected = [
        rows_of(StreamSampler(chunks, 10, seed=5).batch(step, 4)).tolist() for step in range(8)
    ]
    sampler = StreamSampler(iter(chunks), 10, seed=5)
    for step in (7, 0, 3, 3, 1, 6):
        sampler.token(step)
        assert rows_of(sampler.batch(step, 4)).tolist() == expected[step]
    assert len({str(batch) for batch in expected}) == 8
    assert rows_of(StreamSampler(chunks, 10, seed=6).batch(0, 4)).tolist() != expected[0]


def test_a_batch_has_one_row_for_each_text() -> None:
    sampler = StreamSampler(arrays(list(range(100))), 10, seed=0)
    batch = rows_of(sampler.batch(1, 6))
    assert batch.shape == (6, 11)
    assert batch.dtype == np.int32
    assert (np.diff(batch) == 1).all()


@pytest.mark.parametrize(
    ("chunks", "joined"),
    [
        ([[1], [2], [3]], [[1, 2, 3]]),
        ([[1, 2, 3, 4], [5, 6, 7]], [[1, 2, 3, 4], [5, 6, 7]]),
        ([[1], [2, 3], [4, 5, 6], [7], [8]], [[1, 2, 3], [4, 5, 6, 7, 8]]),  # the rest goes last
        ([[1, 2, 3], [], [4]], [[1, 2, 3, 4]]),
        # Of long chunks, only as much is copied as is needed.
        ([[1], [2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4], [5, 6, 7]]),
        ([[1, 2, 3, 4, 5, 6], [7]], [[1, 2, 3], [4, 5, 6, 7]]),
        ([[1, 2, 3, 4, 5, 6, 7], [8], []], [[1, 2, 3, 4], [5, 6, 7, 8]]),
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
    sampler = StreamSampler(arrays(*texts), 10, seed=0)
    batch = rows_of(sampler.batch(0, 500))
    assert set(batch.ravel().tolist()) == set(range(50))
    assert (np.diff(batch) == 1).all()


def test_a_dataset_shorter_than_the_window_is_one_window() -> None:
    sampler = StreamSampler(arrays([1, 2], [3]), 1024, seed=0)
    assert sampler.window == 2  # tokens after each of which comes another
    assert sampler.total_size == 3
    assert rows_of(sampler.batch(9, 2)).tolist() == [[1, 2, 3], [1, 2, 3]]


def test_a_dataset_of_the_window_and_one_token_is_one_window() -> None:
    sampler = StreamSampler(arrays([1, 2, 3, 4]), 3, seed=0)
    assert sampler.window == 3
    assert rows_of(sampler.batch(1, 1)).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("chunks", [[], [[]], [[5]], [[], [5], []]], ids=str)
def test_fewer_than_two_tokens_are_no_dataset(chunks: list[list[int]]) -> None:
    with pytest.raises(UserError, match=r"dataset is empty.*at least two tokens"):
        StreamSampler(arrays(*chunks), 10, seed=0)


def test_samples_begin_with_every_token_of_the_dataset_equally_often() -> None:
    sampler = StreamSampler(arrays([0, 1], [2, 3, 4, 5]), 2, seed=3)
    counts = Counter(sampler.token(step) for step in range(6000))
    assert sorted(counts) == [0, 1, 2, 3, 4, 5]
    assert all(abs(count - 1000) < 5 * 29 for count in counts.values())
    assert [sampler.token(step) for step in (5, 5)] == [sampler.token(5)] * 2


def test_an_epoch_predicts_as_many_tokens_as_there_are() -> None:
    sampler = StreamSampler(arrays(list(range(100))), 10, seed=0)
    assert [sampler.steps_per_epoch(size) for size in (1, 3, 10, 1000)] == [10, 4, 1, 1]


def test_rows_are_described_by_where_they_are_from() -> None:
    chunks = [list(range(100)), list(range(1000, 1050))]
    sampler = StreamSampler(arrays(*chunks), 4, seed=8)
    words = sampler.describe(3, 9)
    for row, where in zip(rows_of(sampler.batch(3, 9)).tolist(), words, strict=True):
        chunk = row[0] // 1000
        first, last = (chunks[chunk].index(token) for token in (row[0], row[-1]))
        assert where == f"chunk {chunk}, tokens {first} to {last}"


def test_long_chunks_are_read_from_the_disk_and_never_copied(tmp_path: Path) -> None:
    chunks = arrays(list(range(5000)), [7, 8], list(range(9000)), [9])
    shards.write_parts(tmp_path / "tokens", whole_chunks(chunks), 10000)
    mapped = shards.read(tmp_path / "tokens", 10000)
    sampler = StreamSampler(mapped, 10, seed=0)
    assert sampler.total_size == 14003
    assert (
        rows_of(sampler.batch(0, 8)).tolist()
        == rows_of(StreamSampler(chunks, 10, seed=0).batch(0, 8)).tolist()
    )
    copied = [chunk for chunk in sampler.chunks if chunk.flags.owndata]
    assert sum(map(len, copied)) == 13 + 12  # 2 + 11 where chunks were joined, 11 + 1 at the end


def test_batches_are_those_of_earlier_versions() -> None:
    # Numbers of version 1, whose batches were one array: runs of that time resume exactly.
    random = np.random.default_rng(1)
    chunk = random.integers(1, 61, 400)
    chunk[random.random(400) < 0.1] = 0
    documents = documents_in([chunk], endoftext=0)
    found = []
    for sampler in (StreamSampler([chunk], 16, seed=3), DocumentSampler(documents, 16, seed=3)):
        checksum = 0
        for number in range(9):
            batch = sampler.batch(number, 5)
            rows = np.concatenate([batch.inputs[:, :1], batch.targets], axis=1)
            checksum = zlib.crc32(rows.tobytes(), checksum)
        found.append(checksum)
    assert found == [1666155659, 2942766454]
