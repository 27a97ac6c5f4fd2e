"""Examples are packed into few rows, each once in an epoch, as a function of seed and epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from gpt2.data.datasets import DocumentSet, TokenStream, collect, documents_in
from gpt2.data.packing import pack
from gpt2.data.samplers import Batch, DocumentSampler, make_sampler, make_validation_sampler
from gpt2.tokenizer import Tokenizer


def best_fit_decreasing(lengths: list[int], room: int) -> list[list[int]]:
    """The lengths in each row, one by one."""
    rows: list[list[int]] = []
    for length in lengths:
        fitting = [row for row in rows if sum(row) + length <= room]
        best = max(fitting, key=sum, default=None)
        if best is None:
            rows.append([length])
        else:
            best.append(length)
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_packing_is_best_fit_decreasing(seed: int) -> None:
    random = np.random.default_rng(seed)
    room = int(random.integers(1, 30))
    lengths = np.sort(random.integers(1, room + 1, random.integers(1, 80)))[::-1]
    rows = pack(lengths, room)
    expected = best_fit_decreasing(lengths.tolist(), room)
    # Which of two equally full rows is filled first is left open.
    assert sorted(np.bincount(rows, weights=lengths)) == sorted(map(sum, expected))


def synthetic(mean: int, longest: int, count: int) -> DocumentSet:
    random = np.random.default_rng(1)
    lengths = np.clip(random.gamma(2.5, mean / 2.5, count).round().astype(int), 2, longest)
    lengths[0] = longest
    tokens = random.integers(1, 8000, lengths.sum(), dtype=np.int32)
    tokens[np.cumsum(lengths) - 1] = 0
    return documents_in([tokens], endoftext=0)


def examples(batch: Batch) -> list[tuple[int, ...]]:
    """The tokens of each example, the last target included."""
    return [
        (*example.inputs[0].tolist(), int(example.targets[0, -1])) for example in batch.examples()
    ]


@pytest.mark.parametrize(("mean", "longest", "count"), [(205, 1000, 5000), (10, 40, 20000)])
def test_short_stories_and_lines_leave_less_than_5_percent_padding(
    mean: int, longest: int, count: int
) -> None:
    sampler = DocumentSampler(synthetic(mean, longest, count), 1024, seed=1, packing=True)
    batches = [sampler.batch(number, 4) for number in range(sampler.steps_per_epoch(4) - 1)]
    targets = sum(batch.target_count for batch in batches)
    assert targets / sum(batch.targets.size for batch in batches) >= 0.95


def test_an_epoch_has_every_example_once_in_rows_that_change() -> None:
    documents = synthetic(12, 70, 300)  # some are longer than the window of 40
    sampler, padded = (DocumentSampler(documents, 40, 3, packing) for packing in (True, False))
    assert sampler.window == sampler.reach == 40
    epochs = []
    for epoch in range(3):
        rows = sampler.steps_per_epoch(1)
        assert rows < padded.steps_per_epoch(1) / 2
        found = [examples(sampler.batch(epoch * rows + row, 1)) for row in range(rows)]
        whole = padded.steps_per_epoch(1)
        expected = [padded.batch(epoch * whole + row, 1) for row in range(whole)]
        inputs = [tuple(batch.inputs[0, : batch.target_count].tolist()) for batch in expected]
        assert Counter(example[:-1] for row in found for example in row) == Counter(inputs)
        epochs.append(found)
    assert epochs[0] != epochs[1] != epochs[2]
    # Examples of the same length take each other's places.
    neighbors = [{tuple(sorted(row)) for row in found if len(row) > 1} for found in epochs]
    assert len(neighbors[0] & neighbors[1]) < len(neighbors[0]) / 4


def test_a_packed_batch_is_a_function_of_seed_and_number() -> None:
    documents = synthetic(12, 70, 100)
    first, second = (DocumentSampler(documents, 40, 3, packing=True) for _ in range(2))
    wanted = [first.batch(number, 4).fingerprint() for number in range(20)]
    assert [second.batch(number, 4).fingerprint() for number in reversed(range(20))] == wanted[::-1]
    assert len(set(wanted)) == 20
    other = DocumentSampler(documents, 40, 4, packing=True)
    assert other.batch(0, 4).fingerprint() != wanted[0]
    # Rows do not depend on the batch size.
    rows = [first.batch(number, 1).inputs[0].tolist() for number in range(8)]
    assert np.concatenate([first.batch(n, 4).inputs for n in range(2)]).tolist() == rows


def test_positions_restart_and_segments_count_the_examples() -> None:
    given = [(np.array(tokens), "a.txt") for tokens in ([1, 2, 3, 0], [4, 5, 0], [6, 0], [9])]
    documents = collect(given, endoftext=0)
    sampler = DocumentSampler(documents, 8, seed=1, packing=True)
    assert (sampler.window, sampler.reach) == (8, 4)
    batch = sampler.batch(0, 2)
    for row in range(2):
        segments, positions = batch.segments[row].tolist(), batch.positions[row].tolist()
        used = [segment for segment in segments if segment >= 0]
        assert used == sorted(used) and segments[: len(used)] == used
        starts = [at for at, position in enumerate(positions) if position == 0]
        assert batch.inputs[row, starts[: used[-1] + 1]].tolist() == [0] * (used[-1] + 1)
        assert (batch.targets[row, len(used) :] < 0).all()
    found = examples(batch)
    assert sorted(found) == [(0, 1, 2, 3, 0), (0, 4, 5, 0), (0, 6, 0), (0, 9)]
    for example, where in zip(found, sampler.describe(0, 2), strict=True):
        document = {1: 0, 4: 1, 6: 2, 9: 3}[example[1]]
        assert f"document {document} " in where


def test_control_codes_stay_in_front_of_packed_examples(bytes_and_endoftext: Tokenizer) -> None:
    given = [(np.frombuffer(text, np.uint8), "data/ab.txt") for text in (b"roses", b"are", b"red")]
    sampler = DocumentSampler(collect(given, bytes_and_endoftext), 30, seed=0, packing=True)
    assert sorted(map(bytes, examples(sampler.batch(0, 1)))) == [
        b"ab\nare",
        b"ab\nred",
        b"ab\nroses",
    ]


def test_a_dataset_shorter_than_the_window_is_one_row() -> None:
    sampler = DocumentSampler(documents_in([np.array([1, 2, 0, 3, 4, 5, 0])], 0), 1024, 1, True)
    assert (sampler.window, sampler.steps_per_epoch(1)) == (7, 1)
    assert sampler.batch(0, 1).inputs.shape == (1, 7)


def test_only_separate_examples_are_packed() -> None:
    stream = TokenStream([np.arange(100)])
    assert make_sampler(stream, 8, 0, packing=True).reach is None
    assert make_validation_sampler(stream, 8, 1, packing=True).reach is None
    documents = synthetic(12, 70, 100)
    assert make_sampler(documents, 40, 0, packing=True).reach == 40
    assert make_validation_sampler(documents, 40, 1, packing=True).batch(0, 2).reach == 40
    assert make_sampler(documents, 40, 0).batch(0, 2).segments is None
