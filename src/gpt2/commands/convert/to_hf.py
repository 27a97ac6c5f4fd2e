"""`convert to_hf`: a model in the files of transformers."""

from __future__ import annotations

import dataclasses

from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.convert.shared import (
    OverwriteOptions,
    SourceOptions,
    model_name,
    new_folder,
    open_source,
)
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import shown
from gpt2.errors import escaped
from gpt2.interop import hub, model_card, to_huggingface
from gpt2.interop.weights import open_model_folder


@dataclasses.dataclass(frozen=True)
class ToHfOptions:
    """What to_hf takes besides the model."""

    out: str = setting(help="folder to write", metavar="OUT", positional=True)
    dtype: str = setting("fp32", "type of the weights", choices=tuple(to_huggingface.DTYPES))
    push: str | None = setting(
        None,
        "also upload the folder to the Hugging Face hub under this name (needs huggingface_hub)",
        metavar="OWNER/NAME",
    )


def check(values: Values) -> None:
    """Check the name on the hub."""
    if values.push is not None and not hub.is_name(values.push):
        raise UsageError("--push needs a name on the hub, such as OWNER/NAME")


def run(values: Values) -> None:
    """Write the folder, and upload it if asked to."""
    out = new_folder(values.out, to_huggingface.FILES, values)
    if values.push:
        hub.check_installed()
    model = open_source(values)
    source = open_model_folder(model)
    name = (values.push or model_name(model)).rpartition("/")[2]
    card = model_card.model_card(name, model, model_card.run_facts(model))
    to_huggingface.write(out, source, card, values.dtype, values.overwrite)
    parameters = source.hparams.parameters
    print(f"Wrote {shown(out)}, a model of {parameters:,} parameters in {values.dtype}")
    if values.push:
        print("Uploaded it to", escaped(hub.push(out, values.push)))
    print(f"Fill in the license in {shown(out / to_huggingface.CARD)}")


COMMAND = Command(
    summary="Write a model for transformers: weights, configuration, tokenizer, model card.",
    details="""\
to_hf run1 out/                       transformers' AutoModelForCausalLM and AutoTokenizer load it
to_hf run1/best out/ --dtype fp16     half the size, rounded""",
    groups={
        "model": [*options_of(SourceOptions), *options_of(inputs.ModelOptions, "models_dir")],
        "output": [*options_of(ToHfOptions), *options_of(OverwriteOptions)],
    },
    run=run,
    check=check,
)
