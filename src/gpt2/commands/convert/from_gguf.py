"""`convert from_gguf`: the GPT-2 in a GGUF file as a model folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.convert.shared import OverwriteOptions, TargetOptions, new_model_folder
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.signals import load_tensorflow
from gpt2.commands.terminal import shown
from gpt2.interop.gguf import open_gguf
from gpt2.interop.weights import write_model


@dataclasses.dataclass(frozen=True)
class FileOptions:
    """The file to read."""

    file: str = setting(help="GGUF file", metavar="FILE.gguf", positional=True)


def run(values: Values) -> None:
    """Check the file, then write its model."""
    folder = new_model_folder(values)
    model = open_gguf(Path(values.file))
    load_tensorflow()
    write_model(folder, model, values.overwrite)
    print(f"Wrote {shown(folder)}, a model of {model.hparams.parameters:,} parameters")


COMMAND = Command(
    summary="Convert a GGUF file (f32, f16, bf16 or q8_0) to a model folder.",
    groups={
        "models": [
            *options_of(FileOptions),
            *options_of(TargetOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(OverwriteOptions),
        ],
    },
    run=run,
)
