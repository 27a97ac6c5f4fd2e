"""The engine for CPUs: LiteRT multiplies the matrices, NumPy computes the attention in between.

At batch size 1 a decode step reads every weight once, so its speed is bounded by memory bandwidth.
LiteRT (XNNPACK) reaches that bound, and int8 weights have a quarter of the bytes. The KV cache is
an array that each decode step writes one position of; attention reads the filled part in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from gpt2 import model
from gpt2.generation import litert_conversion, memory_pages
from gpt2.hparams import HParams
from gpt2.processes import available_cores
from gpt2.quiet import quiet

CHUNK = 256  # prompt tokens in one prefill step


class LiteRTEngine:
    """An engine over converted programs; see `Engine`."""

    def __init__(self, folder: Path, hparams: HParams, threads: int | None = None):
        """Load the programs of a folder.

        Args:
            folder: written by `litert_conversion.convert`.
            threads: of each program; None for one per available core.
        """
        self._hparams = hparams
        threads = threads or available_cores()
        with quiet():
            self._first, *self._layers = [
                Program(folder / name, threads)
                for name in (
                    litert_conversion.FIRST,
                    *(litert_conversion.between(layer) for layer in range(1, hparams.n_layer)),
                    litert_conversion.LAST,
                )
            ]
            self._head = [
                Program(folder / litert_conversion.head(part), threads)
                for part in range(litert_conversion.head_parts(hparams))
            ]
        memory_pages.use_huge_pages()
        self._tokens = np.load(folder / litert_conversion.TOKENS, mmap_mode="r")
        self._positions = np.load(folder / litert_conversion.POSITIONS, mmap_mode="r")
        self.lengths = np.zeros(0, np.int64)
        self.reset(1)

    def reset(self, slots: int) -> None:
        """See `Engine.reset`."""
        if slots != len(self.lengths):
            self._keys, self._values = self._empty_cache(slots)
        self.lengths = np.zeros(slots, np.int64)

    def prefill(self, slot: int, tokens: Sequence[int]) -> np.ndarray:
        """See `Engine.prefill`."""
        self.lengths[slot] = 0
        for start in range(0, len(tokens), CHUNK):
            x = self._prefill_chunk(slot, np.array(tokens[start : start + CHUNK]))
        return self._logits(x[-1:])[0]

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """See `Engine.decode`."""
        positions = self.lengths
        slots = np.arange(len(tokens))
        self.lengths = positions + 1
        end = int(self.lengths.max())
        masked = None
        if (positions + 1 < end).any():
            masked = np.arange(end) > np.repeat(positions, self._hparams.n_head)[:, None, None]

        def attend(layer: int, qkv: np.ndarray) -> np.ndarray:
            qkv = qkv.reshape(len(slots), 3, self._hparams.n_head, -1)  # [B, 3, H, D]
            self._keys[layer][slots, :, positions] = qkv[:, 1]
            self._values[layer][slots, :, positions] = qkv[:, 2]
            return attend_last(qkv[:, 0], self._keys[layer], self._values[layer], end, masked)

        return self._logits(self._run(self._tokens[tokens] + self._positions[positions], attend))

    def reorder(self, sources: Sequence[int]) -> None:
        """See `Engine.reorder`."""
        end = int(self.lengths.max())
        self.lengths = self.lengths[sources]
        old = (self._keys, self._values)
        if len(sources) != self._keys.shape[1]:
            self._keys, self._values = self._empty_cache(len(sources))
        for kept, new in zip(old, (self._keys, self._values), strict=True):
            for layer in range(self._hparams.n_layer):
                new[layer, :, :, :end] = kept[layer, sources, :, :end]

    def _empty_cache(self, slots: int) -> np.ndarray:
        """Return an empty KV cache, float32 [2, L, B, H, n_ctx, D].

        It is one array because NumPy requests huge pages from 4 MB on, and those of a single layer
        would be smaller; attention over pages of 4 KB takes a quarter longer.
        """
        hparams = self._hparams
        head_size = hparams.n_embd // hparams.n_head
        shape = [2, hparams.n_layer, slots, hparams.n_head, hparams.n_ctx, head_size]
        return np.zeros(shape, np.float32)

    def _prefill_chunk(self, slot: int, tokens: np.ndarray) -> np.ndarray:
        """Append part of a prompt to a slot: ids [T] -> final hidden states [T, C]."""
        start = int(self.lengths[slot])
        end = start + len(tokens)
        visible = np.arange(end) <= np.arange(start, end)[:, None]  # [T, S]

        def attend(layer: int, qkv: np.ndarray) -> np.ndarray:
            query, key, value = model.split_heads(tf.convert_to_tensor(qkv), self._hparams, 1)
            keys, values = self._keys[layer][slot, None], self._values[layer][slot, None]
            keys[:, :, start:end], values[:, :, start:end] = key, value
            attended = model.scaled_dot_product(
                query, keys[:, :, :end], values[:, :, :end], visible
            )
            return model.merge_heads(attended, self._hparams).numpy()

        self.lengths[slot] = end
        return self._run(self._tokens[tokens] + self._positions[start:end], attend)

    def _run(self, x: np.ndarray, attend: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
        """Run all layers, with `attend` in between: [N, C] -> [N, C]."""
        (qkv,) = self._first(x)
        for layer, program in enumerate(self._layers):
            x, *following = program(x, attend(layer, qkv))
            if following:
                (qkv,) = following
        return x

    def _logits(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate([part(x)[0] for part in self._head], axis=1)


def attend_last(
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    end: int,
    masked: np.ndarray | None,
) -> np.ndarray:
    """Return the attention of one new token of each slot over its KV cache.

    Args:
        query: [B, H, D].
        keys, values: [B, H, n_ctx, D], of which the first `end` positions are used.
        masked: positions beyond a shorter sequence's own, bool [BH, 1, S]; None if all are equally
            long.

    Returns:
        [B, C].

    Source: Vaswani et al. 2017, equation 1.
    """
    slots, heads, positions, head_size = keys.shape
    query = query.reshape(slots * heads, 1, head_size) * np.float32(head_size**-0.5)
    keys = keys.reshape(slots * heads, positions, head_size)[:, :end]
    values = values.reshape(slots * heads, positions, head_size)[:, :end]
    scores = np.matmul(query, keys.swapaxes(1, 2))  # [BH, 1, S]
    if masked is not None:
        scores[masked] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.matmul(scores, values).reshape(slots, heads * head_size)


class Program:
    """One LiteRT program over any number of rows."""

    def __init__(self, path: Path, threads: int):
        with warnings.catch_warnings():
            # TensorFlow warns that the interpreter will move to a package of its own.
            warnings.simplefilter("ignore")
            self._interpreter = tf.lite.Interpreter(str(path), num_threads=threads)
        inputs = self._interpreter.get_input_details()
        self._inputs = [detail["index"] for detail in inputs]
        self._columns = int(inputs[0]["shape"][1])
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self._resize(1)
        memory_pages.let_go_of(path)

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run on float32 arrays of shape [rows, C]."""
        if len(inputs[0]) != self._rows:
            self._resize(len(inputs[0]))
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def _resize(self, rows: int) -> None:
        """Resize the inputs to this number of rows, which takes 0.1 ms."""
        self._rows = rows
        for index in self._inputs:
            self._interpreter.resize_tensor_input(index, [rows, self._columns])
        self._interpreter.allocate_tensors()
