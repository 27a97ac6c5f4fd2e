"""OpenAI's module of 2019, for programs that import it from `src/`: `encoder.get_encoder("117M")`.

New programs use `gpt2.load(MODEL).encode(text)` or `gpt2.tokenizer.Tokenizer`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from gpt2.checkpoint.resolve import find_folder
from gpt2.tokenizer import Tokenizer
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE


class Encoder:
    """GPT-2's byte pair encoding with the attributes of 2019; `<|endoftext|>` is ordinary text."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.encoder = dict(tokenizer.vocabulary)
        self.decoder = {number: token for token, number in self.encoder.items()}
        self.bpe_ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
        self.byte_encoder = dict(CHARACTER_OF_BYTE)
        self.byte_decoder = {character: byte for byte, character in self.byte_encoder.items()}

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, as in 2019."""
        return self._tokenizer.encode(text, legacy_endoftext=True)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode(tokens)


def get_encoder(
    model_name: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None
) -> Encoder:
    """Return the encoder of a model under `models/` (or `models_dir`), of a run, or of a path.

    Raises:
        gpt2.errors.UserError: no model has this name, or its vocabulary is missing or damaged.
    """
    return Encoder(find_folder(model_name, models_dir).tokenizer())
