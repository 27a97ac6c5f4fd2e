"""Attention over the KV cache in NumPy, for the engines whose matrix products run elsewhere."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gpt2.processes import available_cores

ROWS = 128  # queries of a prompt in one product: few enough that the scores stay in the cache


def prefill_attention(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, start: int
) -> np.ndarray:
    """Return the attention output of consecutive prompt tokens, causally masked.

    Args:
        query: [H, T, D], of the positions from `start` on.
        keys, values: [H, S, D] with S = start + T: all positions up to the last query.

    Returns:
        [T, C]: the heads side by side.
    """
    heads, length, size = query.shape
    attended = np.empty((length, heads, size), np.float32)
    query = query * np.float32(size**-0.5)

    def attend(head: int) -> None:
        for first in range(0, length, ROWS):
            last = min(first + ROWS, length)
            end = start + last
            logits = query[head, first:last] @ keys[head, :end].T  # [rows, end]
            rows = last - first
            logits[:, -rows:] += _mask()[:rows, :rows]  # the only part with keys that lie ahead
            attended[first:last, head] = _weighted(logits, values[head, :end])

    if length * keys.shape[1] < ROWS * ROWS:
        for head in range(heads):
            attend(head)
    else:
        list(_threads().map(attend, range(heads)))
    return attended.reshape(length, heads * size)


def decode_attention(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Return the attention output of one new token in each slot.

    A slot's output does not depend on the other slots, to the last bit: over padding, sums would
    be rounded in another order, and int8 activations turn such a difference into a large one.

    Args:
        query: [B, H, D].
        keys, values: [B, H, N, D].
        lengths: how many of the N positions of each slot are filled, [B].

    Returns:
        [B, C].
    """
    slots, heads, size = query.shape
    query = query[:, :, None] * np.float32(size**-0.5)  # [B, H, 1, D]
    attended = np.empty((slots, heads, 1, size), np.float32)
    equal = (lengths == lengths[0]).all()
    for some in [slice(None)] if equal else range(slots):
        end = lengths[0] if equal else lengths[some]
        logits = np.matmul(query[some], keys[some, ..., :end, :].swapaxes(-1, -2))
        attended[some] = _weighted(logits, values[some, ..., :end, :])
    return attended.reshape(slots, heads * size)


def _weighted(logits: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the values weighted by the softmax of the logits, which are overwritten.

    The sum divides the result instead of the weights, which are many more numbers.
    """
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    return np.matmul(logits, values) / logits.sum(axis=-1, keepdims=True)


@functools.cache
def _mask() -> np.ndarray:
    """Return what is added to the logits of keys that lie ahead of their query, [ROWS, ROWS]."""
    return np.triu(np.full((ROWS, ROWS), -np.inf, np.float32), 1)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores())
