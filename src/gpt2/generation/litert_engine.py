"""The engine for CPUs: LiteRT runs the matrices, NumPy the attention between them.

At batch 1 a token costs one pass over the weights, so LiteRT (XNNPACK underneath), which reads them
at the speed of the memory, and reads a quarter of the bytes when they are int8, is as fast as it
gets. Keys and values lie in arrays that each step writes one row into; attention looks at the part
that is filled, and at no copy of it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from gpt2 import model
from gpt2.generation import litert_conversion, memory_pages
from gpt2.hparams import HParams
from gpt2.quiet import quiet

CHUNK = 256  # tokens of a prompt that go through the matrices together


class LiteRTEngine:
    """A converted model; see `Engine`."""

    def __init__(self, folder: Path, hparams: HParams, threads: int | None = None):
        """Load the programs of a folder that `litert_conversion.convert` wrote."""
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

    def reset(self, rows: int) -> None:
        """See `Engine.reset`."""
        if rows != len(self.lengths):
            self._keys, self._values = self._memory(rows)
        self.lengths = np.zeros(rows, np.int64)

    def prefill(self, row: int, tokens: Sequence[int]) -> np.ndarray:
        """See `Engine.prefill`."""
        self.lengths[row] = 0
        for start in range(0, len(tokens), CHUNK):
            x = self._take_in(row, np.array(tokens[start : start + CHUNK]))
        return self._logits(x[-1:])[0]

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """See `Engine.decode`."""
        places = self.lengths
        rows = np.arange(len(tokens))
        self.lengths = places + 1
        end = int(self.lengths.max())
        hidden = None
        if (places + 1 < end).any():
            hidden = np.arange(end) > np.repeat(places, self._hparams.n_head)[:, None, None]

        def attend(layer: int, qkv: np.ndarray) -> np.ndarray:
            qkv = qkv.reshape(len(rows), 3, self._hparams.n_head, -1)  # [B, 3, H, D]
            self._keys[layer][rows, :, places] = qkv[:, 1]
            self._values[layer][rows, :, places] = qkv[:, 2]
            return look(qkv[:, 0], self._keys[layer], self._values[layer], end, hidden)

        return self._logits(self._run(self._tokens[tokens] + self._positions[places], attend))

    def reorder(self, sources: Sequence[int]) -> None:
        """See `Engine.reorder`."""
        end = int(self.lengths.max())
        self.lengths = self.lengths[sources]
        old = (self._keys, self._values)
        if len(sources) != self._keys.shape[1]:
            self._keys, self._values = self._memory(len(sources))
        for kept, new in zip(old, (self._keys, self._values), strict=True):
            for layer in range(self._hparams.n_layer):
                new[layer, :, :, :end] = kept[layer, sources, :, :end]

    def _memory(self, rows: int) -> np.ndarray:
        """Empty keys and values, [2, L, B, H, N, D].

        One array, because NumPy asks for huge pages from 4 MB on, and a layer's alone is smaller;
        in pages of 4 KB attention takes a quarter longer.
        """
        hparams = self._hparams
        width = hparams.n_embd // hparams.n_head
        shape = [2, hparams.n_layer, rows, hparams.n_head, hparams.n_ctx, width]
        return np.zeros(shape, np.float32)

    def _take_in(self, row: int, tokens: np.ndarray) -> np.ndarray:
        """Put part of a prompt through the layers: ids [T] -> [T, C]."""
        start = int(self.lengths[row])
        end = start + len(tokens)
        visible = np.arange(end) <= np.arange(start, end)[:, None]  # [T, S]

        def attend(layer: int, qkv: np.ndarray) -> np.ndarray:
            query, key, value = model.split_heads(tf.convert_to_tensor(qkv), self._hparams, 1)
            keys, values = self._keys[layer][row, None], self._values[layer][row, None]
            keys[:, :, start:end], values[:, :, start:end] = key, value
            attended = model.scaled_dot_product(
                query, keys[:, :, :end], values[:, :, :end], visible
            )
            return model.merge_heads(attended, self._hparams).numpy()

        self.lengths[row] = end
        return self._run(self._tokens[tokens] + self._positions[start:end], attend)

    def _run(self, x: np.ndarray, attend: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
        """The layers with attention in between: [rows, C] -> [rows, C]."""
        (qkv,) = self._first(x)
        for layer, program in enumerate(self._layers):
            x, *following = program(x, attend(layer, qkv))
            if following:
                (qkv,) = following
        return x

    def _logits(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate([part(x)[0] for part in self._head], axis=1)


def look(
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    end: int,
    hidden: np.ndarray | None,
) -> np.ndarray:
    """Attention of one new token in each row.

    Args:
        query: [B, H, D].
        keys, values: [B, H, N, D], of which the first `end` are filled.
        hidden: which of those are not the row's own, [BH, 1, S].

    Returns:
        [B, C].
    """
    rows, heads, places, width = keys.shape
    query = query.reshape(rows * heads, 1, width) * np.float32(width**-0.5)
    keys = keys.reshape(rows * heads, places, width)[:, :end]
    values = values.reshape(rows * heads, places, width)[:, :end]
    scores = np.matmul(query, keys.swapaxes(1, 2))  # [BH, 1, S]
    if hidden is not None:
        scores[hidden] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.matmul(scores, values).reshape(rows, heads * width)


class Program:
    """One LiteRT program over rows, as many as there are."""

    def __init__(self, path: Path, threads: int):
        with warnings.catch_warnings():
            # It will move to a package of its own; until it is gone from TensorFlow, no news here.
            warnings.simplefilter("ignore")
            self._interpreter = tf.lite.Interpreter(str(path), num_threads=threads)
        inputs = self._interpreter.get_input_details()
        self._inputs = [detail["index"] for detail in inputs]
        self._width = int(inputs[0]["shape"][1])
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self._take_rows(1)
        memory_pages.let_go_of(path)

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Run on float32 arrays of shape [rows, C]."""
        if len(inputs[0]) != self._rows:
            self._take_rows(len(inputs[0]))
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def _take_rows(self, rows: int) -> None:
        """Make room for another number of rows; costs a tenth of a millisecond."""
        self._rows = rows
        for index in self._inputs:
            self._interpreter.resize_tensor_input(index, [rows, self._width])
        self._interpreter.allocate_tensors()


def available_cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
