"""The five numbers that define a GPT-2, and the tensors they imply."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from gpt2 import files
from gpt2.checks import check_fields, setting
from gpt2.errors import UserError

# Layers and hidden size of the released models, under their present names.
RELEASED = {
    (12, 768): "124M",
    (24, 1024): "355M",
    (36, 1280): "774M",
    (48, 1600): "1558M",
}
# Parameters; the ranges below allow more, but memory for such a model is never asked for.
MOST_PARAMETERS = 10**12


@dataclasses.dataclass(frozen=True)
class HParams:
    """Sizes of a model, named as in `hparams.json`; the defaults are those of GPT-2 124M."""

    n_vocab: int = setting(50257, "vocabulary size (tokens)", low=1, high=2**24)  # V
    n_ctx: int = setting(1024, "context window (tokens)", low=1, high=2**20)
    n_embd: int = setting(768, "hidden size", low=1, high=2**16)  # C
    n_head: int = setting(12, "attention heads; must divide n_embd", low=1, high=2**16)  # H
    n_layer: int = setting(12, "layers", low=1, high=1000)  # L

    @classmethod
    def load(cls, path: Path) -> HParams:
        """Read an `hparams.json`; numbers it leaves out keep their defaults.

        Raises:
            UserError: the file is not a JSON object, or see `check`.
        """
        given = files.read_json_object(path)
        names = [field.name for field in dataclasses.fields(cls)]
        hparams = cls(**{name: given[name] for name in names if name in given})
        try:
            hparams.check()
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        return hparams

    def check(self) -> None:
        """Check that the numbers can be those of a model, before any memory is allocated.

        Raises:
            UserError: a number is not a whole number or out of range, the heads do not divide the
                hidden size, or the model would have more than `MOST_PARAMETERS` parameters.
        """
        check_fields(self)
        if self.n_embd % self.n_head:
            raise UserError(f"n_embd ({self.n_embd}) must be divisible by n_head ({self.n_head}).")
        if self.parameters > MOST_PARAMETERS:
            raise UserError(
                f"n_embd ({self.n_embd}) and n_layer ({self.n_layer}) make a model of "
                f"{self.parameters:,} parameters; the limit is {MOST_PARAMETERS:,}."
            )

    def save(self, path: Path) -> None:
        """Write an `hparams.json` in OpenAI's format."""
        numbers = {name: int(number) for name, number in dataclasses.asdict(self).items()}
        files.write_text(path, json.dumps(numbers, indent=2) + "\n")

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each of the 4 + 12 L tensors by OpenAI's name, sorted by name.

        Matrices have a leading dimension of 1, since OpenAI's code applied them as convolutions of
        width one; old readers expect it.
        """
        width = self.n_embd
        block = {
            "attn/c_attn/b": (3 * width,),
            "attn/c_attn/w": (1, width, 3 * width),
            "attn/c_proj/b": (width,),
            "attn/c_proj/w": (1, width, width),
            "ln_1/b": (width,),
            "ln_1/g": (width,),
            "ln_2/b": (width,),
            "ln_2/g": (width,),
            "mlp/c_fc/b": (4 * width,),
            "mlp/c_fc/w": (1, width, 4 * width),
            "mlp/c_proj/b": (width,),
            "mlp/c_proj/w": (1, 4 * width, width),
        }
        shapes = {
            f"model/h{layer}/{name}": shape
            for layer in range(self.n_layer)
            for name, shape in block.items()
        }
        shapes["model/ln_f/b"] = (width,)
        shapes["model/ln_f/g"] = (width,)
        shapes["model/wpe"] = (self.n_ctx, width)
        shapes["model/wte"] = (self.n_vocab, width)
        return dict(sorted(shapes.items()))

    @property
    def parameters(self) -> int:
        """The number of parameters of the model."""
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())
