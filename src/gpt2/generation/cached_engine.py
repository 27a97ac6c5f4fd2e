"""An engine whose KV cache and attention are NumPy's; subclasses bring the matrix products.

A model is cut where keys and values are looked up, so that the products know nothing of the length
of a sequence or the number of slots. Keys and values lie in one array that each decode step writes
one position of; attention reads the filled part and copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gpt2.generation.attention import decode_attention, prefill_attention
from gpt2.hparams import HParams

CHUNK = 512  # prompt tokens that go through the products together

Product = Callable[..., Sequence[np.ndarray]]  # of arrays [N, C], N rows


class CachedEngine:
    """See `Engine`."""

    def __init__(
        self,
        hparams: HParams,
        embeddings: tuple[np.ndarray, np.ndarray],
        layers: Sequence[Product],
        head: Sequence[Product],
    ):
        """Take the parts of a model.

        Args:
            embeddings: of tokens [V, C] and of positions [n_ctx, C].
            layers: L + 1 products. The first turns x into the first layer's queries, keys and
                values side by side, [N, 3C]; each of the next turns x and the layer's attention
                output into the next x and its queries, keys and values; the last returns the final
                layer's normalized output, [N, C].
            head: turns that into logits, each part for some tokens of the vocabulary.
        """
        self._hparams = hparams
        self._tokens, self._positions = embeddings
        self._first, *self._layers = layers
        self._head = head
        self.lengths = np.zeros(0, np.int64)
        self.reset(1)

    def reset(self, slots: int) -> None:
        """See `Engine.reset`."""
        if slots != len(self.lengths):
            self._cache = self._empty_cache(slots)
        self.lengths = np.zeros(slots, np.int64)

    # Logits that are not finite are refused where they are used; warnings would come before that.
    @np.errstate(all="ignore")
    def prefill(self, slot: int, tokens: Sequence[int]) -> np.ndarray:
        """See `Engine.prefill`."""
        self.lengths[slot] = 0
        for start in range(0, len(tokens), CHUNK):
            x = self._prefill_chunk(slot, np.array(tokens[start : start + CHUNK]))
        return self._logits(x[-1:])[0]

    @np.errstate(all="ignore")
    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """See `Engine.decode`."""
        places, slots = self.lengths, np.arange(len(tokens))
        lengths = self.lengths = places + 1
        keys, values = self._cache

        def attend(layer: int, qkv: np.ndarray) -> np.ndarray:
            qkv = qkv.reshape(len(slots), 3, self._hparams.n_head, -1)  # [B, 3, H, D]
            keys[layer][slots, :, places] = qkv[:, 1]
            values[layer][slots, :, places] = qkv[:, 2]
            return decode_attention(qkv[:, 0], keys[layer], values[layer], lengths)

        return self._logits(self._run(self._tokens[tokens] + self._positions[places], attend))

    def reorder(self, sources: Sequence[int]) -> None:
        """See `Engine.reorder`."""
        end = int(self.lengths.max())
        self.lengths = self.lengths[sources]
        old = self._cache
        if len(sources) != old.shape[2]:
            self._cache = self._empty_cache(len(sources))
        for kept, new in zip(old, self._cache, strict=True):
            for layer in range(self._hparams.n_layer):
                new[layer, :, :, :end] = kept[layer, sources, :, :end]

    def _empty_cache(self, slots: int) -> np.ndarray:
        """Return empty keys and values, [2, L, B, H, N, D].

        One array, because NumPy asks for huge pages from 4 MB on, and that of a layer alone is
        smaller; in pages of 4 KB attention takes a quarter longer.
        """
        hparams = self._hparams
        head_size = hparams.n_embd // hparams.n_head
        shape = [2, hparams.n_layer, slots, hparams.n_head, hparams.n_ctx, head_size]
        return np.zeros(shape, np.float32)

    def _prefill_chunk(self, slot: int, tokens: np.ndarray) -> np.ndarray:
        """Run part of a prompt through the layers: ids [T] -> [T, C]."""
        start = int(self.lengths[slot])
        end = start + len(tokens)
        keys, values = self._cache[:, :, slot]

        def attend(layer: int, qkv: np.ndarray) -> np.ndarray:
            qkv = qkv.reshape(len(tokens), 3, self._hparams.n_head, -1).transpose(1, 2, 0, 3)
            keys[layer][:, start:end], values[layer][:, start:end] = qkv[1], qkv[2]
            return prefill_attention(qkv[0], keys[layer][:, :end], values[layer][:, :end], start)

        self.lengths[slot] = end
        return self._run(self._tokens[tokens] + self._positions[start:end], attend)

    def _run(self, x: np.ndarray, attend: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
        """Run the layers, with attention in between: [N, C] -> [N, C]."""
        (qkv,) = self._first(x)
        for layer, product in enumerate(self._layers):
            x, *following = product(x, attend(layer, qkv))
            if following:
                (qkv,) = following
        return x

    def _logits(self, x: np.ndarray) -> np.ndarray:
        parts = [part(x)[0] for part in self._head]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
