"""Convert a model to LiteRT programs with the weights inside.

The model is split at the attention, so that the programs depend neither on the length of a sequence
nor on the batch size, and one copy of each weight serves all of them:

    first.tflite         x -> queries, keys and values of layer 0
    between-NN.tflite    x, attention of layer NN - 1 -> x, queries, keys and values of layer NN
    last.tflite          x, attention of the last layer -> normalized x
    head-NN.tflite       normalized x -> logits of 8,192 tokens
    tokens.npy, positions.npy    the embeddings wte and wpe, of which single rows are read

Each program stays far below the format's limit of 2 GB. Those of the layers differ in their weights
only, so one of each kind is converted and the others are copies of it; see `program_template`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpt2.checkpoint import bundle
from gpt2.errors import UserError
from gpt2.generation import int4
from gpt2.generation.program_template import (
    Layout,
    Template,
    as_float32,
    as_int4,
    as_int8,
    recognizable,
)
from gpt2.hparams import HParams
from gpt2.quiet import quiet

if TYPE_CHECKING:
    import tensorflow as tf

VERSION = 2  # of the programs
FIRST, LAST = "first.tflite", "last.tflite"
HEAD_ROWS = 1 << 13  # tokens of the vocabulary in each program of the head
LARGE = 1 << 20  # bytes of a program whose memory is worth the time to free it
TOKENS, POSITIONS = "tokens.npy", "positions.npy"

# Linear layers, and the layer normalization before them.
BEFORE_ATTENTION = {"attn/c_attn": "ln_1"}
AFTER_ATTENTION = {"attn/c_proj": None, "mlp/c_fc": "ln_2", "mlp/c_proj": None}
_LAYER = "model/h0"  # the name of every layer in its program

# How the programs of a quantization may store a matrix; the converter leaves small ones in float32.
LAYOUTS: dict[str, list[Layout]] = {
    "none": [as_float32],
    "int8": [as_int8, as_float32],
    "int4": [as_int4],
}
# The largest weights that have a scale, after the gain of a normalization is multiplied into them.
MOST = {"int8": np.finfo(np.float32).max, "int4": int4.MOST}
Weights = Mapping[str, np.ndarray]


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


# Weights near the limit of float32 may overflow; sampling says so, by logits that are not finite.
@np.errstate(over="ignore", invalid="ignore")
def convert(
    weights: Weights,
    hparams: HParams,
    folder: Path,
    quantize: str,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> None:
    """Write the programs of a model to a folder that exists.

    Args:
        weights: see `gpt2.model`. Each program's are read when it is written, so that they need
            not be in memory together.
        quantize: "none" for float32 weights; "int8" for weights quantized per column, and
            activations quantized per row at run time (dynamic range quantization); "int4" for
            the layers' weights as `int4` describes, and the head in int8.
        progress: called with the number of finished programs and their total.

    Raises:
        UserError: weights are too large for their quantization.
    """
    programs = _programs(weights, hparams)
    templates: dict[object, Template | None] = {}
    for done, (name, program) in enumerate(programs.items()):
        progress(done, len(programs))
        kind = "int8" if quantize == "int4" and program.function is _head else quantize
        own = program.weights()
        if kind != "none":
            _check_range(own, kind)
        sizes = program.function, tuple(array.shape for array in own.values())
        if sizes not in templates:
            templates[sizes] = _template(program, own, hparams, kind)
        template = templates[sizes]
        content = template.filled(own) if template else _converted(program, own, hparams, kind)
        (folder / name).write_bytes(content)
    np.save(folder / TOKENS, weights["model/wte"])
    np.save(folder / POSITIONS, weights["model/wpe"])
    progress(len(programs), len(programs))


def _check_range(weights: Weights, kind: str) -> None:
    """Check that the scales of the weights are numbers; LiteRT refuses programs otherwise.

    Raises:
        UserError: a weight is beyond the range of the quantization, or not a finite number.
    """
    for array in weights.values():
        if array.ndim > 1:
            largest = max(array.max(), -array.min())  # NaN if a weight is
            if not largest <= MOST[kind]:
                raise UserError(
                    f"The model has weights that are too large for quantize {kind}, or not finite "
                    f"numbers: {largest:.3g}, at most {MOST[kind]:.3g}. Use quantize none."
                )


class _Program(NamedTuple):
    """A program as a function of its weights and of rows [N, C]."""

    function: Callable
    inputs: int  # how many arrays of rows it takes
    weights: Callable[[], dict[str, np.ndarray]]


def _programs(weights: Weights, hparams: HParams) -> dict[str, _Program]:
    """Return the programs by the names of their files."""

    def first() -> dict[str, np.ndarray]:
        return _linear_layers(weights, 0, BEFORE_ATTENTION)

    def from_layer(layer: int) -> Callable[[], dict[str, np.ndarray]]:
        return lambda: {
            **_linear_layers(weights, layer - 1, AFTER_ATTENTION),
            **_linear_layers(weights, layer, BEFORE_ATTENTION),
        }

    def last() -> dict[str, np.ndarray]:
        norm = {name: weights[name] for name in ("model/ln_f/g", "model/ln_f/b")}
        return _linear_layers(weights, hparams.n_layer - 1, AFTER_ATTENTION) | norm

    @functools.cache
    def embeddings() -> np.ndarray:
        return weights["model/wte"]

    def head_part(part: int) -> Callable[[], dict[str, np.ndarray]]:
        rows = slice(part * HEAD_ROWS, (part + 1) * HEAD_ROWS)
        return lambda: {"model/wte": embeddings()[rows]}

    return {
        FIRST: _Program(_before_attention, 1, first),
        **{
            between(layer): _Program(_between, 2, from_layer(layer))
            for layer in range(1, hparams.n_layer)
        },
        LAST: _Program(_after_last_attention, 2, last),
        **{head(part): _Program(_head, 1, head_part(part)) for part in range(head_parts(hparams))},
    }


def _linear_layers(
    weights: Weights, layer: int, names: Mapping[str, str | None]
) -> dict[str, np.ndarray]:
    """Return matrices and biases that include the gain and bias of the normalization before them.

    For a normalized x, (x g + b) W + c = x (g W) + (b W + c). The converter would do the same.

    Args:
        names: the linear layers and the normalization before each; their names are returned
            without the number of the layer.
    """
    linear = {}
    for name, norm in names.items():
        matrix = weights[f"model/h{layer}/{name}/w"]  # [1, in, out]
        bias = weights[f"model/h{layer}/{name}/b"]
        if norm:
            shift = weights[f"model/h{layer}/{norm}/b"].astype(np.float64)
            bias = (shift @ matrix[0] + bias).astype(np.float32)
            matrix = weights[f"model/h{layer}/{norm}/g"][:, None] * matrix
        linear[f"{_LAYER}/{name}/w"], linear[f"{_LAYER}/{name}/b"] = matrix, bias
    return linear


def _before_attention(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    from gpt2 import model

    return model.before_attention(weights, 0, x)


def _between(weights: Weights, x: tf.Tensor, attended: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    from gpt2 import model

    x = model.after_attention(weights, 0, x, attended)
    return x, model.before_attention(weights, 0, x)


def _after_last_attention(weights: Weights, x: tf.Tensor, attended: tf.Tensor) -> tf.Tensor:
    from gpt2 import model

    return model.final_norm(weights, model.after_attention(weights, 0, x, attended))


def _head(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    from gpt2 import model

    return model.head(weights, x)


def _template(program: _Program, weights: Weights, hparams: HParams, kind: str) -> Template | None:
    """Return a template for programs with weights of these shapes.

    None if the converter stores the weights in a way that is not known here, as that of another
    version of TensorFlow may; then each program is converted.
    """
    marks = recognizable({name: array.shape for name, array in weights.items()})
    with contextlib.suppress(LookupError):
        return Template.of(_converted(program, marks, hparams, kind), marks, LAYOUTS[kind])
    return None


def _converted(program: _Program, weights: Weights, hparams: HParams, kind: str) -> bytes:
    """Return a program with these weights, as the converter writes it."""
    content = _traced_and_converted(program, weights, hparams, in_int8=kind == "int8")
    if len(content) > LARGE:
        gc.collect()  # a traced function is a cycle, and holds a copy of its weights
    return int4.quantize_matrices(content) if kind == "int4" else content


def _traced_and_converted(
    program: _Program, weights: Weights, hparams: HParams, in_int8: bool
) -> bytes:
    import tensorflow as tf

    names = [f"{_LAYER}/{norm}" for norm in ("ln_1", "ln_2")]
    plain = {f"{name}/g": np.ones(hparams.n_embd, np.float32) for name in names}
    plain |= {f"{name}/b": np.zeros(hparams.n_embd, np.float32) for name in names}
    rows = [tf.TensorSpec([None, hparams.n_embd], tf.float32)] * program.inputs
    function = tf.function(functools.partial(program.function, {**plain, **weights}), rows)
    traced = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], traced)
    if in_int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with quiet():
        return converter.convert()
