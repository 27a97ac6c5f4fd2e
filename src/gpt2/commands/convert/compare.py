"""`convert compare`: whether two models have the same weights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpt2.checkpoint.resolve import find_model
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.convert.info import PrintOptions
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import notice, print_table
from gpt2.files import to_json
from gpt2.interop.gguf import open_gguf
from gpt2.interop.inspection import TensorDifference, differences
from gpt2.interop.weights import PortableModel, open_model_folder


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """The two models."""

    first: str = setting(help="model, run, path, or .gguf file", metavar="MODEL_A", positional=True)
    second: str = setting(
        help="model, run, path, or .gguf file", metavar="MODEL_B", positional=True
    )


def run(values: Values) -> None:
    """Print which tensors differ, and by how much."""
    first, second = (_open(name, values.models_dir) for name in (values.first, values.second))
    names = first.hparams.tensor_shapes().keys() | second.hparams.tensor_shapes().keys()
    with tqdm(total=len(names), unit="tensor", leave=False) as bar:
        found = differences(first, second, bar.update)
    same_vocabulary = (first.vocabulary, first.merges) == (second.vocabulary, second.merges)
    result: dict[str, Any] = {
        "same_weights": not any(each.largest for each in found),
        "same_hparams": first.hparams == second.hparams,
        "same_vocabulary": same_vocabulary,
        "largest_difference": max(each.largest for each in found),
        "tensors": [dataclasses.asdict(each) for each in found],
    }
    if values.json:
        print(to_json(result, indent=1))
    else:
        _print(result, found)


def _open(name: str, models_dir: str | None) -> PortableModel:
    if name.lower().endswith(".gguf"):
        return open_gguf(Path(name))
    return open_model_folder(find_model(name, models_dir, notice))


def _print(result: dict[str, Any], found: list[TensorDifference]) -> None:
    different = [each for each in found if each.largest]
    if different:
        rows = [
            (each.name, *map(_shape, each.shapes), _difference(each.largest)) for each in different
        ]
        print_table(["tensor", "shape in A", "shape in B", "largest difference"], rows)
        print(f"{len(different)} of {len(found)} tensors differ")
    else:
        print(f"Same weights: {len(found)} tensors are equal")
    for name in ("hparams", "vocabulary"):
        print(f"{name}: {'same' if result[f'same_{name}'] else 'different'}")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape))


def _difference(largest: float) -> str:
    return "-" if math.isinf(largest) else f"{largest:.3g}"


COMMAND = Command(
    summary="Compare the weights of two models.",
    groups={
        "models": [
            *options_of(CompareOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(PrintOptions),
        ],
    },
    run=run,
)
