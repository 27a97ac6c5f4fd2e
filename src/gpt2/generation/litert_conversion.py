"""Convert a model to LiteRT programs with the weights inside.

The model is split at the attention, so that the programs depend neither on the length of a sequence
nor on the batch size, and one copy of each weight serves all of them:

    first.tflite         x -> queries, keys and values of layer 0
    between-NN.tflite    x, attention of layer NN - 1 -> x, queries, keys and values of layer NN
    last.tflite          x, attention of the last layer -> normalized x
    head-NN.tflite       normalized x -> logits of 8,192 tokens
    tokens.npy, positions.npy    the embeddings wte and wpe, of which single rows are read

Each program stays far below the format's limit of 2 GB. Time and memory of a conversion grow faster
than linearly, so that many small ones take only a second or two each.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2.checkpoint import bundle
from gpt2.generation import int4
from gpt2.hparams import HParams
from gpt2.quiet import quiet

if TYPE_CHECKING:
    import tensorflow as tf

VERSION = 1  # of the programs
FIRST, LAST = "first.tflite", "last.tflite"
HEAD_ROWS = 1 << 13  # tokens of the vocabulary in each program of the head
LARGE = 1 << 20  # bytes of a program whose memory is worth the time to free it
TOKENS, POSITIONS = "tokens.npy", "positions.npy"


def between(layer: int) -> str:
    """Return the name of the program between the attention of the previous layer and this one."""
    return f"between-{layer:02}.tflite"


def layer_names(hparams: HParams) -> list[str]:
    """Return the names of the programs of the layers, in order."""
    return [FIRST, *map(between, range(1, hparams.n_layer)), LAST]


def head(part: int) -> str:
    """Return the name of the program for the logits of tokens from part * HEAD_ROWS on."""
    return f"head-{part:02}.tflite"


def head_parts(hparams: HParams) -> int:
    """Return the number of programs that the head is split into."""
    return -(-hparams.n_vocab // HEAD_ROWS)


def program_files(hparams: HParams) -> set[str]:
    """Return the names of all files that `convert` writes."""
    heads = map(head, range(head_parts(hparams)))
    return {TOKENS, POSITIONS, *layer_names(hparams), *heads}


def cache_key(checkpoint: Path, quantize: str) -> str:
    """Return the name of the programs of a checkpoint in the cache."""
    return f"{quantize}-v{VERSION}-{bundle.fingerprint(checkpoint)[:32]}"


def convert(
    weights: Mapping[str, np.ndarray],
    hparams: HParams,
    folder: Path,
    quantize: str,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> None:
    """Write the programs of a model to a folder that exists.

    Args:
        weights: see `gpt2.model`. Each program's are read when it is converted, so that they need
            not be in memory together.
        quantize: "none" for float32 weights; "int8" for weights quantized per column, and
            activations quantized per row at run time (dynamic range quantization); "int4" for
            the layers' weights as `int4` describes, and the head in int8.
        progress: called with the number of finished programs and their total.
    """
    programs, layers = _programs(weights, hparams), layer_names(hparams)
    for done, (name, (function, inputs)) in enumerate(programs.items()):
        progress(done, len(programs))
        in_int8 = quantize == "int8" or (quantize == "int4" and name not in layers)
        program = _converted(function, inputs, hparams, in_int8)
        if quantize == "int4" and name in layers:
            program = int4.quantize_matrices(program)
        (folder / name).write_bytes(program)
        if len(program) > LARGE:
            gc.collect()  # a traced function is a cycle, and holds a copy of its weights
    np.save(folder / TOKENS, weights["model/wte"])
    np.save(folder / POSITIONS, weights["model/wpe"])
    progress(len(programs), len(programs))


def _programs(
    weights: Mapping[str, np.ndarray], hparams: HParams
) -> dict[str, tuple[Callable, int]]:
    """Return for each program its function over rows [N, C] and the number of its inputs."""
    from gpt2 import model

    def from_layer(layer: int) -> Callable:
        def program(x: tf.Tensor, attended: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x = model.after_attention(weights, layer - 1, x, attended)
            return x, model.before_attention(weights, layer, x)

        return program

    def last(x: tf.Tensor, attended: tf.Tensor) -> tf.Tensor:
        x = model.after_attention(weights, hparams.n_layer - 1, x, attended)
        return model.final_norm(weights, x)

    def head_part(part: int) -> Callable:
        def program(x: tf.Tensor) -> tf.Tensor:
            rows = weights["model/wte"][part * HEAD_ROWS : (part + 1) * HEAD_ROWS]
            return model.head({"model/wte": rows}, x)

        return program

    return {
        FIRST: (lambda x: model.before_attention(weights, 0, x), 1),
        **{between(layer): (from_layer(layer), 2) for layer in range(1, hparams.n_layer)},
        LAST: (last, 2),
        **{head(part): (head_part(part), 1) for part in range(head_parts(hparams))},
    }


def _converted(function: Callable, inputs: int, hparams: HParams, in_int8: bool) -> bytes:
    import tensorflow as tf

    rows = tf.TensorSpec([None, hparams.n_embd], tf.float32)
    traced = tf.function(function, input_signature=[rows] * inputs).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], traced)
    if in_int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with quiet():
        return converter.convert()
