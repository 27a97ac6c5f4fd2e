"""`convert from_gguf`: the GPT-2 in a GGUF file as a model folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.convert.shared import (
    OverwriteOptions,
    TargetOptions,
    new_model_folder,
    write_new_model,
)
from gpt2.commands.flags import Command, Values, options_of
from gpt2.interop.gguf import open_gguf


@dataclasses.dataclass(frozen=True)
class FileOptions:
    """The file to read."""

    file: str = setting(help="GGUF file", metavar="FILE.gguf", positional=True)


def run(values: Values) -> None:
    """Check the file, then write its model."""
    folder = new_model_folder(values)
    model = open_gguf(Path(values.file))
    write_new_model(folder, model, values)


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
