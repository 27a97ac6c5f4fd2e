"""`convert to_savedmodel`: a model for TensorFlow alone, and for TensorFlow Serving."""

from __future__ import annotations

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
from gpt2.interop.weights import SAVED_MODEL_FILES, open_model_folder


def run(values: Values) -> None:
    """Write the SavedModel."""
    path = new_folder(values.out, SAVED_MODEL_FILES, values)
    model = open_model_folder(open_source(values))
    load_tensorflow()
    from gpt2.interop.saved_model import write_saved_model

    write_saved_model(path, model, values.overwrite)
    print(f"Wrote {shown(path)} with the signatures prefill, decode and generate")


COMMAND = Command(
    summary="Convert a model to a TensorFlow SavedModel, also for TensorFlow Serving.",
    details="""\
convert to_savedmodel run1 serving/1

Signatures: prefill, decode, and generate, which takes token ids and returns ids and text.""",
    groups={
        "model and output": [
            *options_of(SourceOptions),
            *options_of(FolderOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(OverwriteOptions),
        ],
    },
    run=run,
)
