"""`convert info`: sizes, tensors and vocabulary of a model, and where it can be loaded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from gpt2.checkpoint import bundle
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.convert.shared import SourceOptions, open_source
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import print_table, print_values
from gpt2.files import to_json
from gpt2.interop.inspection import describe, loaders


@dataclasses.dataclass(frozen=True)
class PrintOptions:
    """In which form the result is printed."""

    json: bool = setting(False, "print JSON instead of a table")


def run(values: Values) -> None:
    """Print the description of the model."""
    model = open_source(values)
    total = len(bundle.read_index(model.checkpoint))
    with tqdm(total=total, unit="tensor", leave=False) as bar:
        found = describe(model, bar.update)
    found["loads_in"] = loaders(found)
    if values.json:
        print(to_json(found, indent=1))
    else:
        _print(found)


def _print(found: Mapping[str, Any]) -> None:
    vocabulary = found["vocabulary"]
    print_values(
        {
            "checkpoint": found["checkpoint"],
            "sha256 of the index": found["fingerprint"],
            "released model": found["released"] or "no, or not known by its hash",
            "step": "-" if found["step"] is None else found["step"],
            **found["hparams"],
            "parameters": found["parameters"],
            "bytes": found["bytes"],
            "types": ", ".join(found["dtypes"]),
            "vocabulary": f"{vocabulary['tokens']:,} tokens, {vocabulary['merges']:,} merges"
            + (", GPT-2's" if vocabulary["is_gpt2"] else ""),
            "special tokens": ", ".join(vocabulary["special_tokens"]) or "-",
        }
    )
    print()
    print_table(
        ["tensor", "shape", "type", "numbers", "sha256"],
        [
            (
                tensor["name"],
                "x".join(map(str, tensor["shape"])) or "scalar",
                tensor["dtype"],
                f"{math.prod(tensor['shape']):,}",
                tensor["sha256"][:16],
            )
            for tensor in found["tensors"]
        ],
    )
    print()
    print_values({f"loads in {name}": how for name, how in found["loads_in"].items()})


COMMAND = Command(
    summary="Show sizes, tensors and vocabulary of a model, and where it can be loaded.",
    groups={
        "model": [
            *options_of(SourceOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(PrintOptions),
        ],
    },
    run=run,
)
