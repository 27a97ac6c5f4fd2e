"""GPT-2's byte-level byte-pair encoding at work: text to token ids and back.

A text is cut into words (words.py), the bytes of each word are joined into tokens (merging.py), and
the vocabulary knows the tokens' ids (vocabulary.py).
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from gpt2.errors import UserError
from gpt2.tokenizer.merging import Merges, Spans
from gpt2.tokenizer.vocabulary import (
    ENCODER_FILE,
    ENDOFTEXT,
    MERGES_FILE,
    read_encoder,
    read_merges,
    special_tokens,
    token_bytes,
)
from gpt2.tokenizer.words import check_characters, words

# Stands in decoded text for what no token and no UTF-8 is known for.
_UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()

# Stands behind the words of each text, and its id behind their ids.
_END = ""
_END_ID = -1

# Words that are looked up at a time, at least.
_BATCH = 2**16


class Tokenizer:
    """A vocabulary at work; several threads may use one.

    Attributes:
        vocabulary: id of each token, tokens spelled as in `encoder.json`.
        merges: pairs of tokens that are joined, first to be joined first.
        endoftext: id of the token between two documents, or None if the vocabulary has none.
        special: id of each special token, see `special_tokens`.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]):
        self.vocabulary = dict(vocabulary)
        self.merges = list(merges)
        self.endoftext = self.vocabulary.get(ENDOFTEXT)
        self.special = special_tokens(self.vocabulary)
        self._memory = _WordMemory({**self.special, _END: _END_ID}, self.encode_pieces)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return Tokenizer, (self.vocabulary, self.merges)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `encoder.json` and `vocab.bpe` of a model's folder.

        Raises:
            UserError: one of them is missing or broken.
        """
        folder = Path(folder)
        return cls(read_encoder(folder / ENCODER_FILE), read_merges(folder / MERGES_FILE))

    def encode(self, text: str, *, legacy_endoftext: bool = False) -> list[int]:
        """The ids of `text`: "Hello world" -> [15496, 995] with GPT-2's own vocabulary.

        `<|endoftext|>` in the text, or another special token, becomes the one token of that name.
        With `legacy_endoftext`, or if the vocabulary has no such token, it is text like any other,
        as it was in 2019.

        Raises:
            UserError: the text holds half a character, or a piece that the vocabulary lacks.
        """
        return self.encode_array(text, legacy_endoftext=legacy_endoftext).tolist()

    def encode_array(self, text: str, *, legacy_endoftext: bool = False) -> np.ndarray:
        """As `encode`, in less time and memory for long texts: int32 [T]."""
        return self.encode_arrays([text], legacy_endoftext=legacy_endoftext)[0]

    def encode_arrays(
        self, texts: Iterable[str], *, legacy_endoftext: bool = False
    ) -> list[np.ndarray]:
        """As `encode_array` for each of some texts, in less time if they are short."""
        found = [np.empty(0, np.int32)]
        with self._lock:
            for some_words in self._batches(texts, legacy_endoftext):
                found.append(self._memory.ids(some_words))
        ids = np.concatenate(found)
        ends = np.flatnonzero(ids == _END_ID).tolist()
        return [ids[start + 1 : end] for start, end in pairwise([-1, *ends])]

    def encode_pieces(self, pieces: Sequence[bytes]) -> Spans:
        """The ids of each piece, a part of a word whose bytes need not be whole characters.

        Raises:
            UserError: the vocabulary lacks a token that a piece needs.
        """
        # As in the original, merges apply whether or not the vocabulary has what they make; only
        # the last result is looked up.
        joined = self._merges.join(pieces)
        ids = self._ids[joined.numbers]
        if (ids < 0).any():
            in_order = joined.take(np.arange(len(pieces)))
            place = int(np.argmax(self._ids[in_order] < 0))
            piece = int(np.searchsorted(np.cumsum(joined.lengths), place, side="right"))
            raise UserError(
                f"The vocabulary has no token {_shortened(self._merges.tokens[in_order[place]])}, "
                f"which the word {_shortened(pieces[piece].decode(errors='replace'))} needs; use "
                f"the {ENCODER_FILE} and {MERGES_FILE} that belong together, or a vocabulary "
                "learnt from such text."
            )
        return joined._replace(numbers=ids)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of these ids; part of a character at either end stays as it is."""
        return b"".join(self._bytes.get(number, _UNKNOWN) for number in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; U+FFFD for ids without a token and for bytes that are no UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    @functools.cached_property
    def _bytes(self) -> dict[int, bytes]:
        return {number: token_bytes(token) for token, number in self.vocabulary.items()}

    @functools.cached_property
    def _merges(self) -> Merges:
        return Merges(self.merges)

    @functools.cached_property
    def _ids(self) -> np.ndarray:
        """The id of each symbol, -1 where the vocabulary lacks the token; int32 [symbols]."""
        return np.array([self.vocabulary.get(token, -1) for token in self._merges.tokens], np.int32)

    def _batches(self, texts: Iterable[str], legacy_endoftext: bool) -> Iterator[list[str]]:
        """The words of the texts, special tokens among them, a long list of them at a time.

        Behind each text comes `_END`.
        """
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


class _WordMemory(dict[str, int]):
    """The words met, each with a number, and the ids of each number's word.

    Text repeats its words, so this is where the speed comes from. It stays within some 30 MB: when
    it is full it starts afresh, which costs little as the frequent words are back at once.
    """

    most_words = 2**17
    most_characters = 2**22

    def __init__(self, known: Mapping[str, int], encode_pieces: Callable[[list[bytes]], Spans]):
        super().__init__()
        self.known = known
        self.encode_pieces = encode_pieces
        self.begin()

    def begin(self) -> None:
        """Know what no words are, and none of those."""
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
        """The ids of these words, int32 [T]."""
        # An exception in the middle of the work leaves words behind whose ids are not known.
        if self.new or len(self) > self.most_words or self.characters > self.most_characters:
            self.begin()
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
