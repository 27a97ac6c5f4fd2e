"""`convert from_tf1`: a TensorFlow 1 checkpoint of another program as a model folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.resolve import find_folder, released_model
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.convert.shared import (
    OverwriteOptions,
    TargetOptions,
    new_model_folder,
    write_new_model,
)
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import notice, shown
from gpt2.errors import UserError, in_short
from gpt2.hparams import HParams
from gpt2.interop.tf1 import Tf1Checkpoint, open_tf1
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE, Tokenizer
from gpt2.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Tf1Options:
    """What from_tf1 takes besides the model to write."""

    path: str = setting(
        help="checkpoint: folder, .index file, or its path without the ending",
        metavar="PATH",
        positional=True,
    )
    vocabulary: str | None = setting(
        None,
        "model whose vocabulary to use (default: the one beside the checkpoint, or GPT-2's for "
        "50,257 tokens if a released model is there)",
        metavar="MODEL",
    )


def run(values: Values) -> None:
    """Check the checkpoint, then copy its weights into a new model folder."""
    folder = new_model_folder(values)
    checkpoint = open_tf1(Path(values.path), values.n_head)
    if folder.exists() and folder.samefile(checkpoint.prefix.parent):
        raise UserError(f"{folder}: holds the checkpoint to convert. Give the model another name.")
    model = checkpoint.with_vocabulary(_tokenizer(values, checkpoint))
    if checkpoint.heads:
        notice(checkpoint.heads)
    if len(model.vocabulary) < model.hparams.n_vocab:
        notice(
            f"The vocabulary has {len(model.vocabulary):,} tokens for {model.hparams.n_vocab:,} "
            "embeddings; the others are never produced by encoding text."
        )
    write_new_model(folder, model, values)
    if checkpoint.left_out:
        count = len(checkpoint.left_out)
        print(f"Left out {count} tensors that are not weights:")
        print(f"  {in_short(', '.join(checkpoint.left_out))}")


def _tokenizer(values: Values, checkpoint: Tf1Checkpoint) -> Tokenizer:
    """Return the vocabulary that was given, lies beside the checkpoint, or is GPT-2's."""
    if values.vocabulary:
        return find_folder(values.vocabulary, values.models_dir, notice).tokenizer()
    beside = checkpoint.prefix.parent
    if (beside / ENCODER_FILE).is_file() or (beside / MERGES_FILE).is_file():
        return ModelFolder(beside).tokenizer()
    released = released_model(Workspace.find(values.models_dir))
    if released and checkpoint.hparams.n_vocab == HParams().n_vocab:
        notice(f"Using the vocabulary of {shown(released.path)}.")
        return released.tokenizer()
    raise UserError(
        f"{beside}: there is no {ENCODER_FILE}. Copy {ENCODER_FILE} and {MERGES_FILE} there from "
        "the model that this one was trained from, or give a model that has them with --vocabulary."
    )


COMMAND = Command(
    summary="Convert a TensorFlow 1 checkpoint to a model folder.",
    details="""\
convert from_tf1 checkpoint/run1 models/mine

Reads what nshepperd/gpt-2, gpt-2-simple, shawwn/gpt-2, ConnorJL/GPT2 and other programs based on
OpenAI's code have saved. Step counters and optimizer slots are left out.""",
    groups={
        "models": [
            *options_of(Tf1Options, "path"),
            *options_of(TargetOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(OverwriteOptions),
        ],
        "if it cannot be found beside the checkpoint": [
            *options_of(HParams, "n_head", n_head=None),
            *options_of(Tf1Options, "vocabulary"),
        ],
    },
    run=run,
)
