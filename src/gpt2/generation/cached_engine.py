"""An engine whose KV cache and attention are NumPy's; subclasses bring the matrix products.

A model is cut where keys and values are looked up, so that the products know nothing of the length
of a sequence or the number of slots. Keys and values lie in one array that each decode step writes
one position of; attention reads the filled part and copies nothing, or reads `Int8Cache`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np

from gpt2.generation import attention
from gpt2.generation.engine import result_of
from gpt2.generation.int8_cache import Int8Cache
from gpt2.hparams import HParams

Product = Callable[..., Sequence[np.ndarray]]  # of arrays [N, C], N rows
Slices = Generator[None, None, np.ndarray]  # a computation that may be interrupted where it yields


class CachedEngine:
    """See `Engine`.

    Prompts give the same logits however they are cut into parts, to the bit, if parts begin at
    multiples of `attention.ROWS`, and if a row's product depends neither on the other rows nor
    (unless `CHUNK` is no larger than that) on how many there are.
    """

    CHUNK = 512  # prompt tokens that go through the products together

    def __init__(
        self,
        hparams: HParams,
        embeddings: tuple[np.ndarray, np.ndarray],
        layers: Sequence[Product],
        head: Sequence[Product],
        int8_cache: bool = False,
    ):
        """Take the parts of a model.

        Args:
            embeddings: of tokens [V, C] and of positions [n_ctx, C].
            layers: L + 1 products. The first turns x into the first layer's queries, keys and
                values side by side, [N, 3C]; each of the next turns x and the layer's attention
                output into the next x and its queries, keys and values; the last returns the final
                layer's normalized output, [N, C].
            head: turns that into logits, each part for some tokens of the vocabulary.
            int8_cache: whether decode steps at later positions use 8-bit keys and values.
        """
        self._hparams = hparams
        self._tokens, self._positions = embeddings
        self._first, *self._layers = layers
        self._head = head
        self.lengths = np.zeros(1, np.int64)
        self._cache = self._empty_cache(1)
        self._int8_cache = Int8Cache(self._cache) if int8_cache else None
        self.slot_bytes = self._cache.nbytes + (self._int8_cache.nbytes if self._int8_cache else 0)
        # The prompt of each slot, as far as its keys and values are those that prefilling it from
        # the start gives, to the bit. It stays when the sequence has ended.
        self._prompts: list[list[int]] = [[]]

    def reset(self, slots: int) -> None:
        """See `Engine.reset`."""
        if slots != len(self.lengths):
            kept = min(slots, len(self.lengths))
            self._copy_slots(self._empty_cache(slots), range(kept), max(map(len, self._prompts)))
            self._prompts = self._prompts[:kept] + [[] for _ in range(slots - kept)]
        self.lengths = np.zeros(slots, np.int64)

    def reuse(self, slot: int, tokens: Sequence[int]) -> int:
        """See `Engine.reuse`: whole blocks of attention, of the slot's last prompt or another's."""
        known = [common_prefix(prompt, tokens[:-1]) for prompt in self._prompts]
        source = slot if known[slot] == max(known) else int(np.argmax(known))
        length = known[source] // attention.ROWS * attention.ROWS
        if source != slot:
            self._changes(slot, 0)
            self._cache[:, :, slot, :, :length] = self._cache[:, :, source, :, :length]
        self._prompts[slot] = list(tokens[:length])
        self.lengths[slot] = length
        return length

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> np.ndarray:
        """See `Engine.prefill`."""
        return result_of(self.prefill_slices(slot, tokens, start))[0]

    def score(self, slot: int, tokens: Sequence[int], start: int = 0) -> np.ndarray:
        """See `Engine.score`."""
        return result_of(self.prefill_slices(slot, tokens, start, scored=True))

    def prefill_slices(
        self, slot: int, tokens: Sequence[int], start: int = 0, scored: bool = False
    ) -> Slices:
        """See `Engine.prefill_slices`. A slice is a product or the attention of a layer.

        Slices of fewer tokens would be shorter, too, but change how attention is rounded.
        """
        slices = self._prefill(slot, tokens, start, scored)
        while True:
            # Logits that are not finite are refused where they are used; warnings would come before
            # that. Between slices, the state of the caller holds.
            with np.errstate(all="ignore"):
                try:
                    next(slices)
                except StopIteration as end:
                    return end.value
            yield

    @np.errstate(all="ignore")
    def decode(self, tokens: np.ndarray, slots: Sequence[int] | None = None) -> np.ndarray:
        """See `Engine.decode`."""
        extended = np.arange(len(self.lengths)) if slots is None else np.array(slots)
        return self._append(tokens, extended, self.lengths[extended])

    @np.errstate(all="ignore")
    def extend(self, slot: int, tokens: Sequence[int]) -> np.ndarray:
        """See `Engine.extend`."""
        places = self.lengths[slot] + np.arange(len(tokens))
        return self._append(np.array(tokens), np.full(len(tokens), slot), places)

    def reorder(self, sources: Sequence[int]) -> None:
        """See `Engine.reorder`."""
        end = max(int(self.lengths.max()), *map(len, self._prompts))
        same = len(sources) == len(self.lengths)
        self._copy_slots(self._cache if same else self._empty_cache(len(sources)), sources, end)
        self.lengths = self.lengths[list(sources)]
        self._prompts = [self._prompts[source] for source in sources]

    def _copy_slots(self, new: np.ndarray, sources: Sequence[int], end: int) -> None:
        """Copy the first `end` positions of slots into the first slots of a cache, and use it."""
        for kept, copied in zip(self._cache, new, strict=True):
            for layer in range(self._hparams.n_layer):
                copied[layer, : len(sources), :, :end] = kept[layer, list(sources), :, :end]
        self._cache = new
        if self._int8_cache:
            self._int8_cache = self._int8_cache.copy_slots(new, sources, end)

    def _empty_cache(self, slots: int) -> np.ndarray:
        """Return empty keys and values, [2, L, B, H, N, D].

        One array, because NumPy asks for huge pages from 4 MB on, and that of a layer alone is
        smaller; in pages of 4 KB attention takes a quarter longer.
        """
        hparams = self._hparams
        head_size = hparams.n_embd // hparams.n_head
        shape = [2, hparams.n_layer, slots, hparams.n_head, hparams.n_ctx, head_size]
        return np.zeros(shape, np.float32)

    def _changes(self, slot: int, place: int) -> None:
        """Forget what is known of a slot's keys and values from a position on."""
        del self._prompts[slot][place:]
        if self._int8_cache:
            self._int8_cache.drop(slot, place)

    def _prefill(self, slot: int, tokens: Sequence[int], start: int, scored: bool) -> Slices:
        """Run a prompt from `start` on: ids [T] -> logits [T, V], or [1, V] of the last token."""
        self.lengths[slot] = start
        prompt = self._prompts[slot][:start]
        self._changes(slot, start)
        if len(prompt) == start and start % attention.ROWS == 0:
            prompt = [*prompt, *tokens]
        self._prompts[slot] = []  # in case of an interruption
        chunks = []
        for first in range(0, len(tokens), self.CHUNK):
            chunk = np.array(tokens[first : first + self.CHUNK])
            chunks.append((yield from self._prefill_chunk(slot, chunk)))
        self._prompts[slot] = prompt
        return (yield from self._logits(np.concatenate(chunks) if scored else chunks[-1][-1:]))

    def _prefill_chunk(self, slot: int, tokens: np.ndarray) -> Slices:
        """Run part of a prompt through the layers: ids [T] -> [T, C]."""
        start = int(self.lengths[slot])
        end = start + len(tokens)
        keys, values = self._cache[:, :, slot]

        def attend(layer: int, qkv: np.ndarray) -> np.ndarray:
            qkv = qkv.reshape(len(tokens), 3, self._hparams.n_head, -1).transpose(1, 2, 0, 3)
            keys[layer][:, start:end], values[layer][:, start:end] = qkv[1], qkv[2]
            return attention.prefill_attention(
                qkv[0], keys[layer][:, :end], values[layer][:, :end], start
            )

        self.lengths[slot] = end
        return (yield from self._run(self._tokens[tokens] + self._positions[start:end], attend))

    def _append(self, tokens: np.ndarray, slots: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Run tokens at given positions of slots, and return the logits after each: [T, V]."""
        keys, values = self._cache
        for slot, place in zip(slots.tolist(), places.tolist(), strict=True):
            self._changes(slot, place)
        lengths = places + 1
        # Indexing with whole numbers takes half the time of indexing with arrays.
        at = (slots[0], places[0]) if len(slots) == 1 else (slots, places)

        def attend(layer: int, qkv: np.ndarray) -> np.ndarray:
            qkv = qkv.reshape(len(slots), 3, self._hparams.n_head, -1)  # [T, 3, H, D]
            keys[layer][at[0], :, at[1]] = qkv[:, 1]
            values[layer][at[0], :, at[1]] = qkv[:, 2]
            if self._int8_cache:
                return self._int8_cache.decode_attention(layer, qkv[:, 0], slots, lengths)
            return attention.decode_attention(qkv[:, 0], keys[layer], values[layer], slots, lengths)

        x = result_of(self._run(self._tokens[tokens] + self._positions[places], attend))
        logits = result_of(self._logits(x))
        self.lengths[slots] = lengths  # of equal slots, the last one counts
        return logits

    def _run(self, x: np.ndarray, attend: Callable[[int, np.ndarray], np.ndarray]) -> Slices:
        """Run the layers, with attention in between: [N, C] -> [N, C]."""
        (qkv,) = self._first(x)
        for layer, product in enumerate(self._layers):
            yield
            attended = attend(layer, qkv)
            yield
            x, *following = product(x, attended)
            if following:
                (qkv,) = following
        return x

    def _logits(self, x: np.ndarray) -> Slices:
        parts = []
        for part in self._head:
            yield
            parts.append(part(x)[0])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of equal leading tokens of two sequences."""
    length = min(len(first), len(second))
    different = np.flatnonzero(np.array(first[:length]) != np.array(second[:length]))
    return int(different[0]) if len(different) else length
