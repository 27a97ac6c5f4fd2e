"""GPT-2's byte-level byte-pair encoding: text to token ids and back.

Every word starts as its single bytes. Then, again and again, the neighbours that stand first in the
list of merges are joined wherever they meet in the word, until no neighbours are in the list:

    " lower"  ->  Ġ l o w e r  ->  Ġ l o w er  ->  Ġl o w er  ->  Ġl ow er  ->  Ġl ower  ->  Ġlower

(Ġ is how a space is written, see vocabulary.py.) What is left are the word's tokens, and the
vocabulary knows their ids. The idea is from Sennrich et al. 2016, https://arxiv.org/abs/1508.07909;
doing it on bytes from section 2.2 of GPT-2's paper.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path

from gpt2.errors import UserError
from gpt2.tokenizer.vocabulary import (
    ENCODER_FILE,
    ENDOFTEXT,
    MERGES_FILE,
    read_encoder,
    read_merges,
    spelled,
    token_bytes,
)
from gpt2.tokenizer.words import check_characters, words

# Stands in decoded text for what no token and no UTF-8 is known for.
_UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()


class Tokenizer:
    """A vocabulary at work.

    Attributes:
        vocabulary: id of each token, tokens spelled as in `encoder.json`.
        merges: pairs of tokens that are joined, first to be joined first.
        endoftext: id of the token between two documents, or None if the vocabulary has none.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]):
        self.vocabulary = dict(vocabulary)
        self.merges = list(merges)
        self.endoftext = self.vocabulary.get(ENDOFTEXT)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._bytes = {number: token_bytes(token) for token, number in self.vocabulary.items()}
        self._ids_of_word = _WordMemory(self._encode_word)

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

        `<|endoftext|>` in the text becomes the one token of that name. With `legacy_endoftext`, or
        if the vocabulary has no such token, it is text like any other, as it was in 2019.

        Raises:
            UserError: the text holds half a character, or a piece that the vocabulary lacks.
        """
        check_characters(text)
        if legacy_endoftext or self.endoftext is None:
            return self._encode_ordinary(text)
        first, *others = text.split(ENDOFTEXT)
        ids = self._encode_ordinary(first)
        for document in others:
            ids.append(self.endoftext)
            ids += self._encode_ordinary(document)
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of these ids; part of a character at either end stays as it is."""
        return b"".join(self._bytes.get(number, _UNKNOWN) for number in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; U+FFFD for ids without a token and for bytes that are no UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def _encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        for some_words in words(text):
            ids += chain.from_iterable(map(self._ids_of_word.__getitem__, some_words))
        return ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        # As in the original, merges apply whether or not the vocabulary has what they make; only
        # the last result is looked up.
        tokens = self._merge(list(spelled(word)))
        try:
            return tuple([self.vocabulary[token] for token in tokens])
        except KeyError as error:
            raise UserError(
                f"The vocabulary has no token {_shortened(error.args[0])}, which the word "
                f"{_shortened(word)} needs; use the {ENCODER_FILE} and {MERGES_FILE} that belong "
                "together, or a vocabulary learnt from such text."
            ) from None

    def _merge(self, tokens: list[str]) -> list[str]:
        """Apply the merges to the bytes of one word.

        The time grows with the word's length and hardly more, as words of a million letters exist
        (white space, base64, Chinese). So a merge leaves gaps in the list instead of moving what
        follows, neighbours are kept as a chain across the gaps, and it is remembered at which
        places each merge awaits its turn.
        """
        ranks, end = self._ranks, len(tokens)
        following = list(range(1, end + 1))  # place of the next token; `end` after the last
        previous = list(range(-1, end - 1))  # place of the one before; -1 before the first
        places = defaultdict(list)  # rank of a merge -> places of its left token
        for place, pair in enumerate(pairwise(tokens)):
            if pair in ranks:
                places[ranks[pair]].append(place)
        queue = sorted(places)
        while queue:
            rank = heapq.heappop(queue)
            first, second = self.merges[rank]
            joined = first + second
            # From left to right, all places before any other merge: "aaa" becomes "aa a".
            for left in sorted(places.pop(rank)):
                right = following[left]
                if tokens[left] != first or tokens[right] != second:
                    continue  # a merge meanwhile took one of the two away
                after = following[right]
                tokens[left], tokens[right] = joined, ""
                following[left] = after
                if after < end:
                    previous[after] = left
                for start, stop in ((previous[left], left), (left, after)):
                    if start < 0 or stop == end:
                        continue
                    new_rank = ranks.get((tokens[start], tokens[stop]))
                    if new_rank is not None:
                        if new_rank not in places:
                            heapq.heappush(queue, new_rank)
                        places[new_rank].append(start)
        return [token for token in tokens if token]


class _WordMemory(dict[str, tuple[int, ...]]):
    """The ids of the words met, each worked out when it is looked up for the first time.

    Text repeats its words, so this is where the speed comes from. It stays within some 20 MB for
    English: long words, which seldom come back, are not kept, and when it is full it starts
    afresh, which costs little as the frequent words are back at once.
    """

    most_words = 2**17
    longest_word = 32  # characters

    def __init__(self, encode_word: Callable[[str], tuple[int, ...]]):
        super().__init__()
        self.encode_word = encode_word

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self.encode_word(word)
        if len(word) <= self.longest_word:
            if len(self) >= self.most_words:
                self.clear()
            self[word] = ids
        return ids


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
