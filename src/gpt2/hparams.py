"""The five numbers that make a GPT-2, and the tensors they imply."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from gpt2 import files
from gpt2.errors import UserError, quoted

# Layers and width of the released models, under their present names.
RELEASED = {
    (12, 768): "124M",
    (24, 1024): "355M",
    (36, 1280): "774M",
    (48, 1600): "1558M",
}


@dataclasses.dataclass(frozen=True)
class HParams:
    """Sizes of a model, named as in `hparams.json`; the defaults are GPT-2 124M's."""

    n_vocab: int = 50257  # V: tokens in the vocabulary
    n_ctx: int = 1024  # the window: most positions the model can look at
    n_embd: int = 768  # C: width of the residual stream
    n_head: int = 12  # H: attention heads, each n_embd / n_head wide
    n_layer: int = 12  # L: blocks

    @classmethod
    def load(cls, path: Path) -> HParams:
        """Read an `hparams.json`; numbers it leaves out keep their defaults.

        Raises:
            UserError: the file is no JSON object, or see `check`.
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
        """Find out whether the numbers can be a model's.

        Raises:
            UserError: one is not a positive whole number, or the heads do not divide the width.
        """
        for name, value in dataclasses.asdict(self).items():
            if type(value) is not int or not 0 < value < 2**31:
                raise UserError(f"{name} should be a positive whole number, not {quoted(value)}.")
        if self.n_embd % self.n_head:
            raise UserError(
                f"A width of {self.n_embd} cannot be shared out among {self.n_head} heads; n_embd "
                "should be a multiple of n_head."
            )

    def save(self, path: Path) -> None:
        """Write an `hparams.json` in OpenAI's form."""
        files.write_text(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each of the 4 + 12 L tensors, by OpenAI's name, in the order of the names.

        The 1 in front of the matrices is left over from their being convolutions of width one;
        old readers expect it.
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
        """How many numbers the model has."""
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())
