"""`convert to_litert`: a model as LiteRT programs."""

from __future__ import annotations

import dataclasses

from tqdm import tqdm

from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.convert.shared import (
    FolderOptions,
    OverwriteOptions,
    SourceOptions,
    new_folder,
    open_source,
)
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.signals import load_tensorflow
from gpt2.commands.terminal import shown
from gpt2.interop import litert
from gpt2.interop.weights import open_model_folder


@dataclasses.dataclass(frozen=True)
class LitertOptions:
    """How the weights are stored."""

    quantize: str = setting(
        "none",
        "none for float32 weights, int8 for weights quantized per column",
        choices=litert.QUANTIZATIONS,
    )


def run(values: Values) -> None:
    """Convert the model and write the folder."""
    model = open_model_folder(open_source(values))
    path = new_folder(values.out, litert.file_names(model.hparams), values)
    load_tensorflow()
    with tqdm(unit="program") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        litert.write_litert(path, model, values.quantize, values.overwrite, progress)
    print(f"Wrote {shown(path)}; its README.md says how to run the programs")


COMMAND = Command(
    summary="Convert a model to LiteRT programs for phones and other small devices.",
    groups={
        "model and output": [
            *options_of(SourceOptions),
            *options_of(FolderOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(LitertOptions),
            *options_of(OverwriteOptions),
        ],
    },
    run=run,
)
