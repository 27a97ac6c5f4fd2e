"""Attention over the KV cache equals a slow computation of the textbook formula."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2.generation import attention


def slow_attention(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Softmax attention of one query [D] over keys and values [S, D] in float64."""
    logits = keys.astype(np.float64) @ query / np.sqrt(len(query))
    weights = np.exp(logits - logits.max())
    return (weights / weights.sum()) @ values


def arrays(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Random float32 arrays."""
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("start", [0, 1, 5])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 40])
def test_each_prompt_token_attends_to_itself_and_those_before(
    start: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "ROWS", 3)  # so that there are several pieces, and threads
    attention._mask.cache_clear()
    size = start + length
    query, keys, values = arrays(start * 100 + length, (2, length, 4), (2, size, 4), (2, size, 4))
    found = attention.prefill_attention(query, keys, values, start)
    attention._mask.cache_clear()
    for head in range(2):
        for place in range(length):
            end = start + place + 1
            expected = slow_attention(query[head, place], keys[head, :end], values[head, :end])
            np.testing.assert_allclose(found[place, head * 4 : head * 4 + 4], expected, atol=1e-5)


@pytest.mark.parametrize("lengths", [(5, 5), (1, 5), (5, 2)])
def test_a_new_token_attends_to_the_filled_part_of_its_own_slot(lengths: tuple[int, int]) -> None:
    query, keys, values = arrays(sum(lengths), (2, 3, 4), (2, 3, 8, 4), (2, 3, 8, 4))
    found = attention.decode_attention(query, keys, values, np.arange(2), np.array(lengths))
    for slot, length in enumerate(lengths):
        for head in range(3):
            expected = slow_attention(
                query[slot, head], keys[slot, head, :length], values[slot, head, :length]
            )
            np.testing.assert_allclose(found[slot, head * 4 : head * 4 + 4], expected, atol=1e-5)


def test_a_slot_is_the_same_to_the_bit_whatever_its_neighbors() -> None:
    lengths = np.array([3, 130, 64, 7, 200, 64])
    query, keys, values = arrays(1, (6, 12, 64), (6, 12, 256, 64), (6, 12, 256, 64))
    together = attention.decode_attention(query, keys, values, np.arange(6), lengths)
    for slot in range(6):
        alone = attention.decode_attention(
            query[slot, None], keys, values, np.array([slot]), lengths[slot, None]
        )
        np.testing.assert_array_equal(together[slot], alone[0])


def test_very_different_logits_do_not_overflow() -> None:
    query, keys, values = arrays(3, (1, 2, 4), (1, 2, 4), (1, 2, 4))
    found = attention.prefill_attention(query * 1000, keys * 1000, values, 0)
    assert np.isfinite(found).all()
