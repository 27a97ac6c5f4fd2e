"""The engine for large models on CPUs: LiteRT runs the matrices, NumPy the attention between them.

At batch 1 a token costs one pass over the weights, so LiteRT (XNNPACK underneath), which reads them
at the speed of the memory, and a quarter of the bytes when they are int8, is close to the limit.
"""

from __future__ import annotations

import importlib.util
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.generation import litert_conversion, memory_pages
from gpt2.generation.cached_engine import CachedEngine
from gpt2.hparams import HParams
from gpt2.processes import available_cores
from gpt2.quiet import quiet


def interpreter_class() -> Any | None:
    """Return LiteRT's interpreter, None where neither package has it.

    That of `ai-edge-litert` is ready in a hundredth of a second. TensorFlow has the same one and
    takes seconds to import; it is going to drop it in favor of the other package.
    """
    if importlib.util.find_spec("ai_edge_litert") is not None:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    import tensorflow as tf

    return getattr(tf.lite, "Interpreter", None)


class LiteRTEngine(CachedEngine):
    """A converted model; see `Engine`."""

    def __init__(
        self,
        folder: Path,
        hparams: HParams,
        threads: int | None = None,
        int8_cache: bool = False,
    ):
        """Load the programs of a folder that `litert_conversion.convert` wrote.

        Args:
            threads: number of threads, by default one for each core.
            int8_cache: see `CachedEngine`.
        """
        threads = threads or available_cores()
        names = litert_conversion.layer_names(hparams)
        heads = map(litert_conversion.head, range(litert_conversion.head_parts(hparams)))
        with quiet():
            layers = [Program(folder / name, threads) for name in names]
            head = [Program(folder / name, threads) for name in heads]
        # Takes 0.2 s, and the first tokens do not have to wait for it.
        threading.Thread(target=memory_pages.use_huge_pages, daemon=True).start()
        embeddings = (
            np.load(folder / litert_conversion.TOKENS, mmap_mode="r"),
            np.load(folder / litert_conversion.POSITIONS, mmap_mode="r"),
        )
        super().__init__(hparams, embeddings, layers, head, int8_cache)


class Program:
    """One LiteRT program over rows, as many as there are."""

    def __init__(self, path: Path, threads: int):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow's notice that its copy will be dropped
            interpreter: Any = interpreter_class()
            self._interpreter = interpreter(str(path), num_threads=threads)
        inputs = self._interpreter.get_input_details()
        self._inputs = [detail["index"] for detail in inputs]
        self._width = int(inputs[0]["shape"][1])
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
        """Make room for another number of rows, which takes a tenth of a millisecond."""
        self._rows = rows
        for index in self._inputs:
            self._interpreter.resize_tensor_input(index, [rows, self._width])
        self._interpreter.allocate_tensors()
