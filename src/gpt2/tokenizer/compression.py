"""How much text a token holds: what a vocabulary is judged by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gpt2.tokenizer.bpe import Tokenizer
from gpt2.tokenizer.words import last_seam

# One character in so many is kept, but no more in all than so many, and none from a text that would
# leave too few of them to tell something.
_SHARE = 20
_MOST = 2_000_000
_LEAST = 1000


def hold_out(texts: Iterable[str], kept: list[str]) -> Iterator[str]:
    """Yield the texts but for a small part of them, which goes into `kept`.

    What is judged by the kept part has then been learnt from other text.
    """
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
    """Bytes of the texts for each token they become; 0 if there is no text.

    Raises:
        UserError: the vocabulary lacks a token that they need.
    """
    size = tokens = 0
    for text in texts:
        size += len(text.encode())
        tokens += len(tokenizer.encode_array(text))
    return size / max(tokens, 1)
