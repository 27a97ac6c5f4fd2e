"""A model as LiteRT programs, with its weights inside, kept in a folder beside the checkpoint.

The model is cut where keys and values are looked up, so that the programs know nothing of the
length of a text or the size of a batch and one copy of each weight serves all of them:

    first.tflite         x -> queries, keys and values of layer 0
    between-NN.tflite    x, attended values of layer NN - 1 -> x, queries, ... of layer NN
    last.tflite          x, attended values of the last layer -> normalised x
    head-NN.tflite       normalised x -> logits of some thousand tokens
    tokens.npy, positions.npy    the embeddings, of which single rows are read

So none comes near the format's limit of 2 GB, and conversion, whose time and memory grow faster
than what is converted, takes a second or two for each.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from gpt2 import files, model
from gpt2.checkpoint import bundle
from gpt2.hparams import HParams
from gpt2.quiet import quiet

VERSION = 1  # of the programs; another one makes all of them anew
QUANTIZE = ("none", "int8")
FIRST, LAST = "first.tflite", "last.tflite"
HEAD_ROWS = 1 << 13  # tokens in each part of the head
TOKENS, POSITIONS = "tokens.npy", "positions.npy"
SIZES = "sizes.json"


def between(layer: int) -> str:
    """The program from the attention of the layer before to the queries of this one."""
    return f"between-{layer:02}.tflite"


def head(part: int) -> str:
    """The program for the logits of the tokens from part * HEAD_ROWS on."""
    return f"head-{part:02}.tflite"


def head_parts(hparams: HParams) -> int:
    """How many parts the head has."""
    return -(-hparams.n_vocab // HEAD_ROWS)


def folder_name(checkpoint: Path, quantize: str) -> str:
    """Where the programs of a checkpoint lie, beside it.

    The index holds a checksum of every tensor, so its own is the identity of the weights.
    """
    index = bundle.with_ending(checkpoint, bundle.INDEX).read_bytes()
    return f"litert-{quantize}-{hashlib.sha256(index).hexdigest()[:16]}"


def is_whole(folder: Path) -> bool:
    """Whether a folder holds all the programs of this version, each of the size it had."""
    try:
        known = json.loads((folder / SIZES).read_text(encoding="utf-8"))
        return known.pop("version") == VERSION and all(
            (folder / name).stat().st_size == size for name, size in known.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def convert(
    weights: Mapping[str, np.ndarray],
    hparams: HParams,
    folder: Path,
    quantize: str,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> None:
    """Write a model's programs into a folder, which appears when all of them are there.

    Args:
        quantize: "none" keeps the weights in float32; "int8" rounds each column of a matrix to
            255 steps, and each row of what it is multiplied with while it runs.
        progress: called with how many programs are done, and how many there are.

    Raises:
        UserError: the folder cannot be written.
    """
    programs = _programs(weights, hparams)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    with files.atomic_folder(folder) as partial:
        for done, (name, (function, inputs)) in enumerate(programs.items()):
            progress(done, len(programs))
            (partial / name).write_bytes(_converted(function, inputs, hparams, quantize))
        np.save(partial / TOKENS, weights["model/wte"])
        np.save(partial / POSITIONS, weights["model/wpe"])
        sizes = {path.name: path.stat().st_size for path in partial.iterdir()}
        (partial / SIZES).write_text(json.dumps({"version": VERSION, **sizes}), encoding="utf-8")
        progress(len(programs), len(programs))


def remove_outdated(folder: Path) -> None:
    """Delete the programs, of the same kind, of checkpoints that the folder's has replaced."""
    kind = folder.name.rpartition("-")[0]
    for other in folder.parent.glob(f"{kind}-*"):
        if other != folder and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)


def _programs(
    weights: Mapping[str, np.ndarray], hparams: HParams
) -> dict[str, tuple[Callable, int]]:
    """The function of each program, over rows of width C, and how many inputs it takes."""

    def from_layer(layer: int) -> Callable:
        def program(x: tf.Tensor, attended: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x = model.after_attention(weights, layer - 1, x, attended)
            return x, model.before_attention(weights, layer, x)

        return program

    def last(x: tf.Tensor, attended: tf.Tensor) -> tf.Tensor:
        x = model.after_attention(weights, hparams.n_layer - 1, x, attended)
        return model.final_norm(weights, x)

    def head_part(part: int) -> Callable:
        rows = weights["model/wte"][part * HEAD_ROWS : (part + 1) * HEAD_ROWS]
        return lambda x: model.head({"model/wte": rows}, x)

    return {
        FIRST: (lambda x: model.before_attention(weights, 0, x), 1),
        **{between(layer): (from_layer(layer), 2) for layer in range(1, hparams.n_layer)},
        LAST: (last, 2),
        **{head(part): (head_part(part), 1) for part in range(head_parts(hparams))},
    }


def _converted(function: Callable, inputs: int, hparams: HParams, quantize: str) -> bytes:
    rows = tf.TensorSpec([None, hparams.n_embd], tf.float32)
    traced = tf.function(function, input_signature=[rows] * inputs).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], traced)
    if quantize == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with quiet():
        return converter.convert()
