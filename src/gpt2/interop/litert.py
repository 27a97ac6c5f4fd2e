"""Export as LiteRT programs, the ones that this project's own engine runs, with their description.

The folder has the programs and embeddings of `gpt2.generation.litert_conversion`, the vocabulary,
`hparams.json`, and `model.json`, which lists each program with the shapes of its inputs and
outputs. Attention lies between the programs and is computed by the caller; the README in the folder
says how.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.checkpoint.folder import HPARAMS_FILE
from gpt2.generation import litert_conversion
from gpt2.generation.litert_conversion import FIRST, LAST, POSITIONS, TOKENS
from gpt2.hparams import HParams
from gpt2.interop.weights import PortableModel
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE, write_vocabulary

DESCRIPTION, README = "model.json", "README.md"
QUANTIZATIONS = ("none", "int8")


def file_names(hparams: HParams) -> set[str]:
    """Return the names of all files of the folder, which `--overwrite` may replace."""
    others = {HPARAMS_FILE, ENCODER_FILE, MERGES_FILE, DESCRIPTION, README}
    return litert_conversion.program_files(hparams) | others


def write_litert(
    path: Path,
    model: PortableModel,
    quantize: str,
    overwrite: bool = False,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> None:
    """Write the folder, atomically.

    Args:
        quantize: one of `QUANTIZATIONS`; see `litert_conversion.convert`.
        overwrite: replace a folder that such an export of a model of these sizes has written.
        progress: called with the number of finished programs and their total.

    Raises:
        UserError: the folder exists or cannot be written, or a tensor cannot be read.
    """
    weights = dict(model.tensors())
    with files.atomic_folder(path, file_names(model.hparams) if overwrite else ()) as folder:
        litert_conversion.convert(weights, model.hparams, folder, quantize, progress)
        model.hparams.save(folder / HPARAMS_FILE)
        write_vocabulary(folder, model.vocabulary, model.merges)
        files.write_json(folder / DESCRIPTION, describe(model.hparams, quantize))
        files.write_text(folder / README, _README)


def describe(hparams: HParams, quantize: str) -> dict[str, Any]:
    """Return sizes, files and shapes; N is the number of rows (tokens) of a call."""
    width, n_embd = ["N", 3 * hparams.n_embd], ["N", hparams.n_embd]
    programs: list[dict[str, Any]] = [{"file": FIRST, "inputs": [n_embd], "outputs": [width]}]
    programs += [
        {
            "file": litert_conversion.between(layer),
            "inputs": [n_embd, n_embd],
            "outputs": [n_embd, width],
        }
        for layer in range(1, hparams.n_layer)
    ]
    programs.append({"file": LAST, "inputs": [n_embd, n_embd], "outputs": [n_embd]})
    rows = litert_conversion.HEAD_ROWS
    programs += [
        {
            "file": litert_conversion.head(part),
            "inputs": [n_embd],
            "outputs": [["N", min(rows, hparams.n_vocab - part * rows)]],
        }
        for part in range(litert_conversion.head_parts(hparams))
    ]
    return {
        "format": litert_conversion.VERSION,
        "hparams": vars(hparams),
        "quantize": quantize,
        "embeddings": {"tokens": TOKENS, "positions": POSITIONS},
        "programs": programs,
    }


_README = """\
# GPT-2 as LiteRT programs

`model.json` lists the programs with the shapes of their inputs and outputs; N is the number of
tokens of a call and may change from call to call (resize the inputs, then allocate the tensors).
They need a LiteRT interpreter (Python: `ai-edge-litert`, or `tf.lite.Interpreter` of TensorFlow).

For tokens t at positions p:

1. `x = tokens.npy[t] + positions.npy[p]`, float32 [N, n_embd].
2. `first.tflite`: x -> queries, keys and values side by side, [N, 3 n_embd].
3. Attention of n_head heads: each head has a slice of n_embd / n_head columns of the queries, of
   the keys and of the values; scores are divided by sqrt(n_embd / n_head), a token attends to
   itself and to the tokens before it (keep their keys and values), and the heads' outputs are put
   side by side, [N, n_embd].
4. `between-01.tflite` and so on: x and the attention -> the next x, and queries, keys and values
   of the next layer. Repeat from 3.
5. `last.tflite`: x and the attention of the last layer -> the normalized output, [N, n_embd].
6. `head-00.tflite` and so on: that output of the last token -> logits of 8,192 tokens each.

A program with two inputs has x first; outputs are in the order of `model.json`.
"""
