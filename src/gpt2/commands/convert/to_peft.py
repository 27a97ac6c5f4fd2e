"""`convert to_peft`: the LoRA updates of a run as an adapter of PEFT."""

from __future__ import annotations

import dataclasses

from gpt2.checkpoint.resolve import find_model
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
from gpt2.commands.terminal import notice, shown
from gpt2.interop import model_card, peft
from gpt2.training.resume import DEFAULT_MODEL


@dataclasses.dataclass(frozen=True)
class ToPeftOptions:
    """What to_peft takes besides the run and the folder."""

    base: str | None = setting(
        None,
        "model that the run was trained from (default: the recorded --model_name)",
        metavar="MODEL",
    )


def run(values: Values) -> None:
    """Check the adapter against its base model, and write it."""
    out = new_folder(values.out, peft.FILES, values)
    model = open_source(values)
    adapter = peft.trained_adapter(model)
    name = values.base or model_card.run_facts(model).base or DEFAULT_MODEL
    base = find_model(name, values.models_dir, notice)
    peft.check_base(adapter, base, model)
    peft.write(out, adapter, model_card.hub_name(name), values.overwrite)
    parameters = sum(a.size + b.size for a, b in adapter.factors.values())
    print(f"Wrote {shown(out)}, a LoRA adapter of {parameters:,} parameters for {shown(base.path)}")


COMMAND = Command(
    summary="Write the LoRA updates of a run as an adapter for transformers and PEFT.",
    details="""\
to_peft run1 adapter/                 a run that was trained with --lora_rank
to_peft run1 adapter/ --base mine     if the model it was trained from has another name now

The adapter is checked: with the base model, it is the model of the run.""",
    groups={
        "model": [
            *options_of(SourceOptions),
            *options_of(ToPeftOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
        ],
        "output": [*options_of(FolderOptions), *options_of(OverwriteOptions)],
    },
    run=run,
)
