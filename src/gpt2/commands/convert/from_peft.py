"""`convert from_peft`: a LoRA adapter of PEFT, merged into its base model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gpt2.checkpoint.resolve import find_model
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
from gpt2.errors import UserError, quoted
from gpt2.interop import model_card, peft
from gpt2.interop.weights import open_model_folder


@dataclasses.dataclass(frozen=True)
class FromPeftOptions:
    """What from_peft takes besides the new model."""

    adapter: str = setting(
        help="folder with adapter_config.json and adapter_model.safetensors",
        metavar="DIR",
        positional=True,
    )
    base: str | None = setting(
        None,
        "model that the adapter was trained for (default: the released model that it names)",
        metavar="MODEL",
    )


def run(values: Values) -> None:
    """Read the adapter, and write the base model with it added."""
    folder = new_model_folder(values)
    path = Path(values.adapter)
    base = find_model(values.base or _released_base(path), values.models_dir, notice)
    adapter = peft.open_adapter(path, base.hparams)
    write_new_model(folder, adapter.apply(open_model_folder(base)), values)


def _released_base(path: Path) -> str:
    name = peft.base_name(path)
    if name and (released := model_card.released_name(name)):
        return released
    found = f"the base model {quoted(name)}" if name else "no base model"
    raise UserError(
        f"{path / peft.CONFIG} names {found}. Set base to a model here; from_hf converts one."
    )


COMMAND = Command(
    summary="Merge a LoRA adapter of PEFT into its base model.",
    details="""\
from_peft adapter/ models/poet                  for gpt2, gpt2-medium, ... of the hub
from_peft adapter/ models/poet --base mine      for another model

The new model is the base model with the updates added; every command takes it.""",
    groups={
        "model": options_of(FromPeftOptions),
        "output": [
            *options_of(TargetOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(OverwriteOptions),
        ],
    },
    run=run,
)
