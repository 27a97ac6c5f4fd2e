"""Texts to be scored: their tokens, and how many words and bytes those stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpt2.data import text
from gpt2.data.documents import UTF_8, Reading
from gpt2.errors import UserError
from gpt2.tokenizer import Tokenizer


@dataclass(frozen=True)
class ScoredText:
    """A text as tokens, with the sizes that its nats are divided by.

    Attributes:
        tokens: ids, int32 [T + 1]: T of them are predicted, the first one is not.
        words: between white space, in the original text.
        size: of the original text, in bytes of UTF-8; marks between documents are not counted.
    """

    tokens: np.ndarray
    words: int
    size: int

    @property
    def predicted(self) -> int:
        """Tokens that are predicted."""
        return len(self.tokens) - 1


def read_text(
    path: str,
    tokenizer: Tokenizer,
    n_vocab: int,
    reading: Reading = UTF_8,
    progress: Callable[[int], object] = lambda size: None,
) -> ScoredText:
    """The documents of a file, folder or pattern as one text, `<|endoftext|>` between them.

    It begins with that token, too, so that every token of the text is predicted; where the
    vocabulary has none, the first token of the text is not.

    Args:
        path: text, records or tokens, as training takes them.
        progress: called with the size in bytes of what has been read.

    Raises:
        UserError: there is no text, less than two tokens of it, or what `text.read_parts` refuses.
    """
    files = text.find_files(path)
    chunks = list(text.read_chunks(files, tokenizer, n_vocab, reading=reading, progress=progress))
    if not chunks:
        raise UserError(f"{path} holds no text.")
    tokens = np.concatenate(chunks).astype(np.int32)
    mark = tokenizer.endoftext
    if mark is not None and tokens[-1] == mark:  # it closes the last document
        tokens = tokens[:-1]
    check_length(tokens, path)
    original = tokenizer.decode_bytes(tokens[tokens != mark].tolist())
    words = len(tokenizer.decode(tokens.tolist()).replace("<|endoftext|>", " ").split())
    start = [] if mark is None else [mark]
    return ScoredText(np.concatenate([start, tokens]).astype(np.int32), words, len(original))


def check_length(tokens: np.ndarray, name: str) -> None:
    """Find out whether there are tokens enough for one to predict the other.

    Raises:
        UserError: there are less than two.
    """
    if len(tokens) < 2:
        raise UserError(f"{name} is shorter than two tokens: there is nothing to predict in it.")
