"""Reader of TensorFlow 1 checkpoints of GPT-2 by programs that are based on OpenAI's code.

All of them give the weights OpenAI's names; they differ in what else they store:

    openai/gpt-2, nshepperd, gpt-2-simple   the weights alone, float32
    shawwn/gpt-2 (TPU)                      also float16 or bfloat16, without hparams.json
    ConnorJL/GPT2                           also global_step and the optimizer's slots, bfloat16
    other forks                             no scope `model/`, or one of their own around it;
                                            matrices without the leading dimension of 1

gpt2-ml trains a Grover (Zellers et al. 2019), whose layer normalizations lie elsewhere: it has no
equivalent in this format and is refused by name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from gpt2.checkpoint import bundle
from gpt2.checkpoint.bundle import WEIGHTS
from gpt2.checkpoint.folder import HPARAMS_FILE, find_checkpoint
from gpt2.checkpoint.index import Entry
from gpt2.errors import UserError, in_short
from gpt2.hparams import HParams
from gpt2.interop.weights import PortableModel
from gpt2.tokenizer import Tokenizer

HEAD_SIZE = 64  # of all released models, and of nearly every other one
_FLOATS = ("float32", "float16", "bfloat16", "float64")
# A tensor of each other kind of checkpoint that people take for GPT-2's.
_OTHERS = {
    r"newslm/|.*/LayerNorm_mlp_ln0/": "a Grover, as gpt2-ml trains; its layer "
    "normalization differs from GPT-2's, so it cannot be converted",
    r"bert/": "a BERT checkpoint",
    r"_CHECKPOINTABLE_OBJECT_GRAPH|.*/\.ATTRIBUTES/": "an object-based checkpoint of TensorFlow 2 "
    "(tf.train.Checkpoint), not one of TensorFlow 1",
    r".*/(SelfAttention|EncDecAttention)/": "a T5 or Mesh-TensorFlow checkpoint",
    r"gpt2?/h\d+/attn/[qkvo]|.*attn/compute_output_bias": "a GPT-Neo checkpoint",
}


@dataclasses.dataclass(frozen=True)
class Tf1Checkpoint:
    """A checkpoint whose names and shapes are those of a GPT-2.

    Attributes:
        prefix: of its files.
        hparams: from its shapes, and heads from `hparams.json` or as given.
        heads: where the number of heads comes from, for a notice; empty for `hparams.json`.
        left_out: names of tensors that are not weights.
        read: see `PortableModel`.
    """

    prefix: Path
    hparams: HParams
    heads: str
    left_out: list[str]
    read: Callable[[str], np.ndarray]

    def with_vocabulary(self, tokenizer: Tokenizer) -> PortableModel:
        """Return the model with this vocabulary, which may be smaller than the embedding.

        Raises:
            UserError: it has an id beyond the embedding.
        """
        model = PortableModel(self.hparams, tokenizer.vocabulary, tokenizer.merges, self.read)
        model.check_vocabulary()
        return model


def open_tf1(path: Path, n_head: int | None = None) -> Tf1Checkpoint:
    """Return the checkpoint of a folder, prefix or `.index` file, without reading its weights.

    Args:
        n_head: number of attention heads, which no tensor's shape shows; the default is that of
            the `hparams.json` beside the checkpoint, or else n_embd / 64.

    Raises:
        UserError: there is no checkpoint or it is not a GPT-2; a tensor is missing or has another
            shape than its neighbors; the number of heads is unknown or not possible.
    """
    prefix = find_checkpoint(path)
    entries, read = bundle.any_tensor_reader(prefix)
    scope = _scope(prefix, entries)
    hparams, heads = _hparams(prefix, entries, scope, n_head)
    shapes = hparams.tensor_shapes()
    stored = {name: scope + name.removeprefix(WEIGHTS) for name in shapes}
    _check(prefix, entries, stored, scope, hparams)

    def read_weight(name: str) -> np.ndarray:
        values = read(stored[name]).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise UserError(
                f"{prefix}: tensor {stored[name]} contains NaN or infinite values, as after a "
                "training that diverged. Use an earlier checkpoint."
            )
        return values.reshape(shapes[name])

    left_out = sorted(set(entries) - set(stored.values()))
    return Tf1Checkpoint(prefix, hparams, heads, left_out, read_weight)


def _scope(prefix: Path, entries: Mapping[str, Entry]) -> str:
    """Return what comes before `wte` in the names of a GPT-2: `model/` in OpenAI's."""
    scopes = [name.removesuffix("wte") for name in entries if re.search(r"(^|/)wte$", name)]
    scopes = [scope for scope in scopes if f"{scope}wpe" in entries]
    if WEIGHTS in scopes:
        return WEIGHTS
    if len(scopes) == 1:
        return scopes[0]
    for pattern, kind in _OTHERS.items():
        if any(re.match(pattern, name) for name in entries):
            raise UserError(f"{prefix}: {kind}. Give a GPT-2 based on OpenAI's code.")
    if scopes:
        raise UserError(
            f"{prefix}: several models ({in_short(', '.join(scopes))}). Give a checkpoint of one."
        )
    raise UserError(
        f"{prefix}: not a GPT-2 based on OpenAI's code (it has no tensors wte and wpe). "
        f"It holds {in_short(', '.join(list(entries)[:4]))}."
    )


def _hparams(
    prefix: Path, entries: Mapping[str, Entry], scope: str, n_head: int | None
) -> tuple[HParams, str]:
    """Return the sizes, and where the number of heads comes from."""
    wte, wpe = entries[f"{scope}wte"].shape, entries[f"{scope}wpe"].shape
    if len(wte) != 2 or len(wpe) != 2 or wte[1] != wpe[1]:
        raise UserError(
            f"{prefix}: {scope}wte has shape {list(wte)} and {scope}wpe {list(wpe)}; expected "
            "[n_vocab, n_embd] and [n_ctx, n_embd]. This is not a GPT-2."
        )
    layers = {name[len(scope) :].split("/")[0] for name in entries if name.startswith(f"{scope}h")}
    n_layer = len([layer for layer in layers if re.fullmatch(r"h\d{1,4}", layer)])
    n_embd, heads = wte[1], ""
    path = prefix.parent / HPARAMS_FILE
    if n_head is None and path.is_file():
        n_head = HParams.load(path).n_head
    elif n_head is None:
        if not n_embd or n_embd % HEAD_SIZE:
            raise UserError(
                f"{prefix}: there is no {HPARAMS_FILE} beside it, and n_embd ({n_embd}) is not a "
                f"multiple of {HEAD_SIZE}, the usual head size. Set n_head to the number of "
                "attention heads."
            )
        n_head = n_embd // HEAD_SIZE
        heads = f"n_head {n_head} assumed: n_embd {n_embd} / {HEAD_SIZE}"
    else:
        heads = f"n_head {n_head} as given"
    hparams = HParams(wte[0], wpe[0], n_embd, n_head, n_layer)
    try:
        hparams.check()
    except UserError as error:
        raise UserError(f"{prefix}: {error}") from error
    if path.is_file():
        _compare(prefix, path, hparams)
    return hparams, heads


def _compare(prefix: Path, path: Path, hparams: HParams) -> None:
    """Check the shapes against an `hparams.json`, which may be another model's."""
    claimed = HParams.load(path)
    for name, tensor in {"n_vocab": "wte", "n_ctx": "wpe", "n_embd": "wte", "n_layer": ""}.items():
        found, said = getattr(hparams, name), getattr(claimed, name)
        if found != said:
            where = f"{tensor} has {name} {found}" if tensor else f"it has {found} layers"
            raise UserError(
                f"{prefix}: {where}, but {path} says {said}. Correct or remove {path.name}."
            )


def _check(
    prefix: Path,
    entries: Mapping[str, Entry],
    stored: Mapping[str, str],
    scope: str,
    hparams: HParams,
) -> None:
    """Check that every weight is there, with the shape that the others imply."""
    for name, shape in hparams.tensor_shapes().items():
        entry = entries.get(stored[name])
        if entry is None:
            raise UserError(
                f"{prefix}: missing tensor {stored[name]}; the checkpoint is incomplete or not a "
                "GPT-2. Copy or download it again."
            )
        if entry.shape not in (shape, shape[-2:]):  # forks leave out the leading dimension of 1
            raise UserError(
                f"{prefix}: tensor {stored[name]} has shape {list(entry.shape)}; expected "
                f"{list(shape)} in a model of hidden size {hparams.n_embd}. This is another kind "
                "of model."
            )
        if entry.dtype not in _FLOATS:
            raise UserError(
                f"{prefix}: tensor {stored[name]} is {entry.dtype}; expected one of "
                f"{', '.join(_FLOATS)}."
            )
    known = set(stored.values())
    blocks = re.compile(re.escape(scope) + r"(h\d+|ln_f|wte|wpe)(/|$)")
    for name in entries:
        if blocks.match(name) and name not in known and not _is_slot(name, known):
            raise UserError(
                f"{prefix}: unexpected tensor {name}, which GPT-2 does not have. This is another "
                "kind of model."
            )


def _is_slot(name: str, weights: set[str]) -> bool:
    """Return whether a tensor is an optimizer slot, such as model/wte/Adam or model/wte/adam_m."""
    return name.rpartition("/")[0] in weights
