"""`convert to_gguf`: a model as a GGUF file for llama.cpp, Ollama and LM Studio."""

from __future__ import annotations

import dataclasses

from tqdm import tqdm

from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.convert.shared import (
    OverwriteOptions,
    SourceOptions,
    model_name,
    open_source,
)
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import shown
from gpt2.errors import UserError, quoted
from gpt2.files import check_writable
from gpt2.interop import gguf
from gpt2.interop.weights import open_model_folder


@dataclasses.dataclass(frozen=True)
class GgufOptions:
    """The file to write."""

    out: str = setting(help="file to write", metavar="OUT.gguf", positional=True)
    type: str = setting(
        "f16",
        "type of the matrices; the others stay f32 (q8_0 and q4_0 are quantized in blocks of 32)",
        choices=gguf.TYPES,
    )


def check(values: Values) -> None:
    """Check the ending: programs find GGUF files by it, and no file of a model has it."""
    if not values.out.lower().endswith(".gguf"):
        raise UsageError(f"the name of the file must end in .gguf, not {quoted(values.out)}")


def run(values: Values) -> None:
    """Write the file."""
    path = check_writable(values.out)
    if path.exists() and not values.overwrite:
        raise UserError(f"{path}: exists already. Use another name or --overwrite.")
    gguf.load_package()
    source = open_source(values)
    model = open_model_folder(source)
    total = len(model.hparams.tensor_shapes())
    with tqdm(total=total, unit="tensor") as bar:
        gguf.write_gguf(path, model, values.type, model_name(source), bar.update)
    size = path.stat().st_size
    print(f"Wrote {shown(path)}, {size:,} bytes, {values.type}")


COMMAND = Command(
    summary="Convert a model to GGUF for llama.cpp, Ollama and LM Studio.",
    groups={
        "model and output": [
            *options_of(SourceOptions),
            *options_of(GgufOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(OverwriteOptions),
        ],
    },
    run=run,
    check=check,
)
