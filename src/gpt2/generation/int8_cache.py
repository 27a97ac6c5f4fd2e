"""8-bit copies of keys and values, for the attention of long sequences of quantized models.

At position 1000 of 124M, a decode step in int8 reads 124 MB of weights and 73 MB of float32 keys
and values. The codes are a quarter of that. They are copies, so that prefill, whose result must not
depend on how a prompt is cut, and tokens at early positions know nothing of them. Whether a token
uses them depends on its position alone, and its codes on its keys and values alone.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import threading
from collections.abc import Callable, Sequence

import numpy as np

from gpt2.generation import attention

# Tokens with that many positions to attend to, or more, use the codes. Shorter texts do not have to
# wait for the import of Numba, which begins at half of it.
FROM = 96


def is_available() -> bool:
    """Return whether Numba is installed."""
    return importlib.util.find_spec("numba") is not None


class Int8Cache:
    """The codes of a KV cache, which are brought up to date when they are needed.

    Shapes: L layers, B slots, H heads, N positions, D dimensions of a head.
    """

    def __init__(self, cache: np.ndarray):
        """Begin without codes for a cache [2, L, B, H, N, D]."""
        self._cache = cache
        self._codes = np.zeros(cache.shape, np.int8)
        self._scales = np.zeros(cache.shape[:-1], np.float32)
        self._filled = np.zeros(cache.shape[1:3], np.int64)  # positions with codes, [L, B]

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
        keys, values = self._cache[:, layer]
        long = lengths >= FROM
        compiled = _compiled() if long.any() else None
        if compiled is None:
            if lengths.max() >= FROM // 2:
                _import_in_background()
            return attention.decode_attention(query, keys, values, slots, lengths)

        def attend(query: np.ndarray, slots: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            slots, query = slots.astype(np.int64, copy=False), np.ascontiguousarray(query)
            arrays = self._cache, self._codes, self._scales, self._filled
            return compiled(query, layer, slots, lengths, *arrays).reshape(len(query), -1)

        if long.all():
            return attend(query, slots, lengths)
        attended = np.empty((len(query), query[0].size), np.float32)
        attended[long] = attend(query[long], slots[long], lengths[long])
        attended[~long] = attention.decode_attention(
            query[~long], keys, values, slots[~long], lengths[~long]
        )
        return attended


@functools.cache
def _compiled() -> Callable[..., np.ndarray] | None:
    """Return the compiled function, None if this Numba cannot be used."""
    try:
        module = importlib.import_module("gpt2.generation.compiled_attention")
    except ImportError:  # a Numba that is older than NumPy or Python
        return None
    return module.attend()


@functools.cache
def _import_in_background() -> None:
    """Import Numba while LiteRT's threads compute."""

    def load() -> None:
        with contextlib.suppress(ImportError):
            importlib.import_module("numba")

    threading.Thread(target=load, daemon=True).start()
