"""Bytes per token on held-out text: how well a vocabulary compresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gpt2.tokenizer.bpe import Tokenizer
from gpt2.tokenizer.words import last_seam

_SHARE = 20  # one character in 20 is held out
_MOST = 2_000_000  # characters held out at most
_LEAST = 1000  # characters held out of one text at least, so that the figure means something


def hold_out(texts: Iterable[str], kept: list[str]) -> Iterator[str]:
    """Yield the texts without a small held-out part, which is appended to `kept`."""
    seen = size = 0
    for text in texts:
        seen += len(text)
        wanted = min(seen // _SHARE, _MOST) - size
        if wanted >= min(len(text), _LEAST):
            start = last_seam(text[:-wanted])
            if start or wanted >= len(text):
                kept.append(text[start:])
                size += len(text) - start
                text = text[:start]
        if text:
            yield text


def bytes_per_token(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """Return the mean number of UTF-8 bytes per token; 0 without text.

    Raises:
        UserError: the vocabulary lacks a token that the texts need.
    """
    size = tokens = 0
    for text in texts:
        size += len(text.encode())
        tokens += len(tokenizer.encode_array(text))
    return size / max(tokens, 1)
