"""Which engine runs a model, and in which precision."""

from __future__ import annotations

import dataclasses

from gpt2.checks import check_fields, setting
from gpt2.errors import UserError


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """Which engine generates text, and whether its weights are quantized."""

    engine: str = setting(
        "auto",
        "litert (CPU; converts the model once), tensorflow (any device), numpy (small models), or "
        "auto",
        choices=("auto", "tensorflow", "litert", "numpy"),
    )
    quantize: str = setting(
        "none",
        "weight quantization (litert only); int8 is faster with a quarter of the memory and "
        "slightly less exact, int4 goes further on large models",
        choices=("none", "int8", "int4"),
    )
    kv_cache: str = setting(
        "float32",
        "keys and values in decoding (litert only); int8 is fast in long texts, a little less "
        "exact, and needs numba",
        choices=("float32", "int8"),
    )
    speculate: bool = setting(
        False,
        "guess tokens from repetitions in the text and verify them together (litert, batch size "
        "1): faster where text repeats, the same text",
    )
    draft_text: str = setting(
        "",
        "text or dataset of which the model repeats passages, such as its training text: speculate "
        "guesses from it, too",
        metavar="PATH",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        without_litert = self.engine not in ("auto", "litert")
        for name, default in (("quantize", "none"), ("kv_cache", "float32")):
            value = getattr(self, name)
            if without_litert and value != default:
                raise UserError(
                    f"{name} {value} is not available with engine {self.engine}. Use engine litert "
                    "or auto."
                )
        if self.draft_text and not self.speculate:
            raise UserError(
                "draft_text is a text to guess from, which needs speculate. Add it, or omit "
                "draft_text."
            )
        if without_litert and self.speculate:
            raise UserError(
                f"speculate is not available with engine {self.engine}, which may round the "
                "logits of several tokens differently. Use engine litert or auto."
            )
