"""GPT-2's byte-level BPE tokenizer: text to token ids and back.

Text is split into words (words.py), the bytes of each word are merged into tokens (merging.py), and
each token is looked up in the vocabulary (vocabulary.py).
"""

from __future__ import annotations

import functools
import numbers
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np

from gpt2.errors import UserError, quoted
from gpt2.tokenizer.merging import Merges, Spans
from gpt2.tokenizer.vocabulary import (
    ENCODER_FILE,
    ENDOFTEXT,
    MERGES_FILE,
    read_vocabulary,
    special_tokens,
    token_bytes,
)
from gpt2.tokenizer.words import check_characters, words

# Replaces unknown ids and invalid UTF-8 in decoded text.
_UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()

# Appended to the words of each text, and its id to their ids, to separate the texts of a batch.
_END = ""
_END_ID = -1

# Minimum number of words looked up at a time.
_BATCH = 2**16


class Tokenizer:
    """Encodes and decodes text with one vocabulary; safe to share among threads.

    Attributes:
        vocabulary: id of each token, tokens spelled as in `encoder.json`.
        merges: pairs of tokens to merge, in order of priority.
        endoftext: id of `<|endoftext|>`, or None if the vocabulary does not have it.
        special: id of each special token; see `special_tokens`.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]):
        self.vocabulary = dict(vocabulary)
        self.merges = list(merges)
        self.endoftext = self.vocabulary.get(ENDOFTEXT)
        self.special = special_tokens(self.vocabulary)
        self._cache = _WordCache({**self.special, _END: _END_ID}, self.encode_pieces)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # With the words encoded so far, which a worker process then need not merge again.
        with self._lock:
            return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Return the tokenizer of a model folder, read from its `encoder.json` and `vocab.bpe`.

        Raises:
            UserError: one of the files is missing or invalid, or they do not belong together.
        """
        if not isinstance(folder, str | os.PathLike):
            raise UserError(f"folder must be a path, not {quoted(folder)}.")
        return cls(*read_vocabulary(Path(folder)))

    def encode(self, text: str, *, legacy_endoftext: bool = False) -> list[int]:
        """Return the token ids of `text`.

        Args:
            text: any text; special tokens in it, such as `<|endoftext|>`, become one token each.
            legacy_endoftext: encode `<|endoftext|>` as ordinary text, as in 2019. The same happens
                if the vocabulary does not have the token.

        Raises:
            UserError: the text contains a lone surrogate or needs a token the vocabulary lacks.

        Example:
            >>> tokenizer.encode("Hello world")  # GPT-2's vocabulary
            [15496, 995]
        """
        return self.encode_array(text, legacy_endoftext=legacy_endoftext).tolist()

    def encode_array(self, text: str, *, legacy_endoftext: bool = False) -> np.ndarray:
        """Return the token ids as an int32 array, shape [T]; faster than `encode` for long text."""
        return self.encode_arrays([text], legacy_endoftext=legacy_endoftext)[0]

    def encode_arrays(
        self, texts: Iterable[str], *, legacy_endoftext: bool = False
    ) -> list[np.ndarray]:
        """Return the token ids of each text; faster than `encode_array` for many short texts."""
        found = [np.empty(0, np.int32)]
        with self._lock:
            for some_words in self._batches(texts, legacy_endoftext):
                found.append(self._cache.ids(some_words))
        ids = np.concatenate(found)
        ends = np.flatnonzero(ids == _END_ID).tolist()
        return [ids[start + 1 : end] for start, end in pairwise([-1, *ends])]

    def encode_pieces(self, pieces: Sequence[bytes]) -> Spans:
        """Return the token ids of each piece, a byte string without word boundaries.

        Args:
            pieces: bytes of a word or of a part of it, not necessarily whole characters.

        Raises:
            UserError: the vocabulary lacks a token that a piece needs.
        """
        # As in OpenAI's code, merges apply even if the merged token is not in the vocabulary; only
        # the final tokens are looked up.
        joined = self._merges.join(pieces)
        ids = self._ids[joined.numbers]
        if (ids < 0).any():
            in_order = joined.take(np.arange(len(pieces)))
            place = int(np.argmax(self._ids[in_order] < 0))
            piece = int(np.searchsorted(np.cumsum(joined.lengths), place, side="right"))
            raise UserError(
                f"The vocabulary has no token {_shortened(self._merges.tokens[in_order[place]])}, "
                f"which the word {_shortened(pieces[piece].decode(errors='replace'))} needs. Use "
                f"{ENCODER_FILE} and {MERGES_FILE} of the same model, or train a vocabulary on "
                "this kind of text."
            )
        return joined._replace(numbers=ids)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of these ids; incomplete characters at either end are kept.

        Raises:
            UserError: they are not whole numbers.
        """
        ids = list(ids) if isinstance(ids, Iterable) else [ids]
        for kind in set(map(type, ids)):
            if not issubclass(kind, numbers.Integral):
                example = next(number for number in ids if type(number) is kind)
                raise UserError(f"ids must be a list of token ids, not of {quoted(example)}.")
        return b"".join(map(self._bytes.__getitem__, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of these ids, with U+FFFD for unknown ids and invalid UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    @functools.cached_property
    def _bytes(self) -> _TokenBytes:
        return _TokenBytes({number: token for token, number in self.vocabulary.items()})

    @functools.cached_property
    def _merges(self) -> Merges:
        return Merges(self.merges)

    @functools.cached_property
    def _ids(self) -> np.ndarray:
        """Return the id of each symbol, -1 if the vocabulary lacks the token; int32 [symbols]."""
        return np.fromiter(map(self.vocabulary.get, self._merges.tokens, repeat(-1)), np.int32)

    def _batches(self, texts: Iterable[str], legacy_endoftext: bool) -> Iterator[list[str]]:
        """Yield the words and special tokens of the texts in long lists, `_END` after each text."""
        special = [name for name in self.special if not (legacy_endoftext and name == ENDOFTEXT)]
        names = re.compile("(" + "|".join(map(re.escape, special)) + ")")
        batch: list[str] = []
        for text in texts:
            check_characters(text)
            for number, piece in enumerate(names.split(text) if special else [text]):
                for some_words in [[piece]] if number % 2 else words(piece):
                    batch += some_words
                    if len(batch) >= _BATCH:
                        yield batch
                        batch = []
            batch.append(_END)
        yield batch


class _TokenBytes(dict[int, bytes]):
    """Bytes of each id, found at its first use: those of all of GPT-2's tokens take 0.1 s."""

    def __init__(self, tokens: dict[int, str]):
        super().__init__()
        self.tokens = tokens

    def __missing__(self, number: int) -> bytes:
        if number not in self.tokens:
            return _UNKNOWN
        content = self[number] = token_bytes(self.tokens[number])
        return content


class _WordCache(dict[str, int]):
    """Cache of encoded words: maps each word to a number, and each number to token ids.

    Text repeats its words, so most lookups hit. A full cache (about 30 MB) is cleared, which costs
    little because frequent words return at once.
    """

    most_words = 2**17
    most_characters = 2**22

    def __init__(self, known: Mapping[str, int], encode_pieces: Callable[[list[bytes]], Spans]):
        super().__init__()
        self.known = known
        self.encode_pieces = encode_pieces
        self.reset()

    def reset(self) -> None:
        """Forget all words except the special tokens."""
        self.clear()
        self.update(zip(self.known, range(len(self.known)), strict=True))
        self.characters = 0
        self.new: list[str] = []
        self.spans = Spans(
            np.fromiter(self.known.values(), np.int32),
            np.arange(len(self.known)),
            np.ones(len(self.known), np.int64),
        )

    def __missing__(self, word: str) -> int:
        self.new.append(word)
        number = self[word] = len(self)
        return number

    def ids(self, words: list[str]) -> np.ndarray:
        """Return the token ids of these words, int32 [T]."""
        # An exception during the last call leaves new words without ids.
        if self.new or len(self) > self.most_words or self.characters > self.most_characters:
            self.reset()
        numbers = np.fromiter(map(self.__getitem__, words), np.int64, len(words))
        if self.new:
            self.spans = self.spans.extended(
                self.encode_pieces([word.encode() for word in self.new])
            )
            self.characters += sum(map(len, self.new))
            self.new = []
        return self.spans.take(numbers)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
