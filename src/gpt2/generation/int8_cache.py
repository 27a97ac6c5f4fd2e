"""8-bit copies of keys and values, for the attention of decode steps.

At position 1000 of 124M, a decode step in int8 reads 124 MB of weights and 73 MB of float32 keys
and values. The codes are a quarter of that. They are copies, so that prefill, whose result must not
depend on how a prompt is cut, knows nothing of them. A token's codes depend on its keys and values
alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np

from gpt2.errors import UserError


def check_numba() -> None:
    """Check that Numba, which takes half a second to import, is there.

    Raises:
        UserError: it is not installed, or too old for this Python or NumPy.
    """
    try:
        importlib.import_module("numba")
    except ImportError as error:
        raise UserError(
            f"kv_cache int8 needs Numba, which cannot be imported ({error}). Install it with: "
            "pip install numba"
        ) from error


class Int8Cache:
    """The codes of a KV cache, which are brought up to date when they are needed.

    Shapes: L layers, B slots, H heads, N positions, D dimensions of a head.
    """

    def __init__(self, cache: np.ndarray):
        """Begin without codes for a cache [2, L, B, H, N, D]."""
        from gpt2.generation import compiled_attention  # imports Numba

        self._attend = compiled_attention.attend()
        self._cache = cache
        self._codes = np.zeros(cache.shape, np.int8)
        self._scales = np.zeros(cache.shape[:-1], np.float32)
        self._filled = np.zeros(cache.shape[1:3], np.int64)  # positions with codes, [L, B]

    @property
    def nbytes(self) -> int:
        """Memory that the codes and their scales take."""
        return self._codes.nbytes + self._scales.nbytes

    def drop(self, slot: int, length: int) -> None:
        """Forget the codes of a slot from a position on, before the cache changes there."""
        np.minimum(self._filled[:, slot], length, out=self._filled[:, slot])

    def copy_slots(self, cache: np.ndarray, sources: Sequence[int], end: int) -> Int8Cache:
        """Return the codes of a cache whose first slots are now copies of slots of this one.

        Args:
            cache: another one, or this one.
            end: number of positions that were copied.
        """
        copy = self if cache is self._cache else Int8Cache(cache)
        for old, new in ((self._codes, copy._codes), (self._scales, copy._scales)):
            for part in range(2):
                for layer in range(cache.shape[1]):
                    new[part, layer, : len(sources), :, :end] = old[
                        part, layer, list(sources), :, :end
                    ]
        copy._filled[:, : len(sources)] = np.minimum(self._filled[:, list(sources)], end)
        return copy

    def decode_attention(
        self, layer: int, query: np.ndarray, slots: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Return the attention output of new tokens; see `attention.decode_attention`."""
        slots, query = slots.astype(np.int64, copy=False), np.ascontiguousarray(query)
        arrays = self._cache, self._codes, self._scales, self._filled
        return self._attend(query, layer, slots, lengths, *arrays).reshape(len(query), -1)
