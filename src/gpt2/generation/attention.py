"""Attention over the KV cache in NumPy, for the engines whose matrix products run elsewhere."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gpt2.processes import available_cores

# Queries of a prompt in one product: few enough that the logits stay in the processor's cache.
# Products begin at multiples of it, wherever a prompt is cut into parts: sums over other numbers of
# keys would be rounded in another order.
ROWS = 128


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
        last = 0
        while last < length:
            first, end = last, min((start + last) // ROWS * ROWS + ROWS, start + length)
            last = end - start
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
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    slots: np.ndarray,
    lengths: np.ndarray,
) -> np.ndarray:
    """Return the attention output of new tokens, in any slots.

    A token's output does not depend on the other tokens, to the last bit: over padding, sums would
    be rounded in another order, and int8 activations turn such a difference into a large one.

    Args:
        query: [T, H, D].
        keys, values: [B, H, N, D].
        slots: the slot of each token, [T].
        lengths: how many of the N positions of its slot each token attends to, [T].

    Returns:
        [T, C].
    """
    count, heads, size = query.shape
    query = query[:, :, None] * np.float32(size**-0.5)  # [T, H, 1, D]
    together = len(keys) == count > 1 and (np.diff(slots) > 0).all() and len(set(lengths)) == 1
    if together:
        end = lengths[0]
        logits = np.matmul(query, keys[:, :, :end].transpose(0, 1, 3, 2))
        return _weighted(logits, values[:, :, :end]).reshape(count, heads * size)
    attended = np.empty((count, heads, 1, size), np.float32)
    for token, (slot, end) in enumerate(zip(slots.tolist(), lengths.tolist(), strict=True)):
        logits = np.matmul(query[token], keys[slot, :, :end].transpose(0, 2, 1))  # [H, 1, end]
        attended[token] = _weighted(logits, values[slot, :, :end])
    return attended.reshape(count, heads * size)


def _weighted(logits: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the values weighted by the softmax of the logits, which are overwritten.

    The sum divides the result instead of the weights, which are many more numbers. At short
    lengths the calls take longer than the numbers; `reduce` skips a layer of Python.
    """
    np.subtract(logits, np.maximum.reduce(logits, axis=-1, keepdims=True), out=logits)
    np.exp(logits, out=logits)
    weighted = np.matmul(logits, values)
    return np.divide(weighted, np.add.reduce(logits, axis=-1, keepdims=True), out=weighted)


@functools.cache
def _mask() -> np.ndarray:
    """Return what is added to the logits of keys that lie ahead of their query, [ROWS, ROWS]."""
    return np.triu(np.full((ROWS, ROWS), -np.inf, np.float32), 1)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores())
