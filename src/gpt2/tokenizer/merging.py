"""Byte-pair encoding: merging the bytes of words into tokens.

Every word starts as single bytes. In each round, the adjacent pair with the lowest rank in the list
of merges is merged everywhere in the word, until no adjacent pair is in the list:

    " lower"  ->  Ġ l o w e r  ->  Ġ l o w er  ->  Ġl o w er  ->  Ġl ow er  ->  Ġl ower  ->  Ġlower

(Ġ is how a space is written; see vocabulary.py.) Source: Sennrich et al. 2016,
https://arxiv.org/abs/1508.07909; on bytes: section 2.2 of the GPT-2 paper.

This module represents tokens by numbers, called symbols: 0 to 255 are the bytes, 256 is the end of
a word, and the tokens of the merges follow.
"""

from __future__ import annotations

import functools
import heapq
import operator
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, count, pairwise
from typing import NamedTuple

import numpy as np

from gpt2.tokenizer.vocabulary import BYTE_OF_CHARACTER

_END = 256
_GAP = -1  # marks a symbol that a merge has removed

# Words of up to this many bytes are merged in one batch, in time quadratic in their length. Longer
# ones (white space, base64) are merged one by one in nearly linear time.
_LONGEST = 128


class Spans(NamedTuple):
    """Lists of numbers, stored in one array.

    Attributes:
        numbers: the numbers of all lists, int32 [S].
        starts: start of each list in `numbers`, int64 [W].
        lengths: length of each list, int64 [W].
    """

    numbers: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def take(self, which: np.ndarray) -> np.ndarray:
        """Return the numbers of the lists with these indices, concatenated."""
        lengths = self.lengths[which]
        offsets = self.starts[which] - np.cumsum(lengths) + lengths
        return self.numbers[np.arange(lengths.sum()) + np.repeat(offsets, lengths)]

    def extended(self, others: Spans) -> Spans:
        """Return these lists followed by the others."""
        return Spans(
            np.concatenate([self.numbers, others.numbers]),
            np.concatenate([self.starts, others.starts + len(self.numbers)]),
            np.concatenate([self.lengths, others.lengths]),
        )


# Indices of finished words, the number of symbols of each, and the symbols.
_Found = tuple[np.ndarray, np.ndarray, np.ndarray]


class Merges:
    """Applies a list of merges to words.

    Attributes:
        tokens: the token of each symbol, spelled as in `encoder.json`.
    """

    def __init__(self, merges: Sequence[tuple[str, str]]):
        characters = sorted(BYTE_OF_CHARACTER, key=BYTE_OF_CHARACTER.__getitem__)
        lefts, rights = [left for left, _ in merges], [right for _, right in merges]
        made = map(operator.add, lefts, rights)
        # Numbers each token at its first occurrence, in one pass over all of them.
        symbols: defaultdict[str, int] = defaultdict(count().__next__)
        tokens = chain(characters, [""], lefts, rights, made)
        numbers = np.fromiter(map(symbols.__getitem__, tokens), np.int64)
        self.tokens = list(symbols)
        # The symbols of each merge, by rank.
        self._left, self._right, self._made = np.split(numbers[_END + 1 :], 3)
        self._made = self._made.astype(np.int32)
        self._none = len(merges)  # rank of pairs that are not merges
        keys = self._keys_of(self._left, self._right)
        # If a pair is listed twice, its last rank counts, as in OpenAI's code. The sentinel at the
        # end keeps the results of searchsorted within the array.
        keys, backwards = np.unique(keys[::-1], return_index=True)
        self._keys = np.append(keys, np.iinfo(np.int64).max)
        self._ranks = np.append(self._none - 1 - backwards, self._none).astype(np.int32)
        symbol = np.arange(_END + 1)
        self._ranks_of_bytes = self._ranks_of(symbol[:, None], symbol)

    def join(self, words: Sequence[bytes]) -> Spans:
        """Return the symbols of each word after all merges; no word may be empty."""
        sizes = np.fromiter(map(len, words), np.int64, len(words))
        starts, lengths = np.empty_like(sizes), np.empty_like(sizes)
        found, total = [], 0
        for which, counts, symbols in chain(
            self._join_long(words, np.flatnonzero(sizes > _LONGEST)),
            self._join_short(words, np.flatnonzero(sizes <= _LONGEST)),
        ):
            starts[which] = total + np.cumsum(counts) - counts
            lengths[which] = counts
            found.append(symbols)
            total += len(symbols)
        return Spans(np.concatenate([np.empty(0, np.int32), *found]), starts, lengths)

    def _keys_of(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return left * np.int64(len(self.tokens)) + right

    def _ranks_of(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        keys = self._keys_of(left, right)
        places = np.searchsorted(self._keys, keys)
        return np.where(self._keys[places] == keys, self._ranks[places], self._none)

    def _join_short(self, words: Sequence[bytes], which: np.ndarray) -> Iterator[_Found]:
        """Merge all words at once; each round applies the lowest-ranked merge of each word."""
        if not len(which):
            return
        data = b"\0".join([words[number] for number in which.tolist()]) + b"\0"
        symbols = np.frombuffer(data, np.uint8).astype(np.int32)  # [S], of all words
        lengths = np.array([len(words[number]) + 1 for number in which.tolist()])  # [W]
        symbols[np.cumsum(lengths) - 1] = _END
        # Rank of each symbol with the next one.
        ranks = np.append(self._ranks_of_bytes[symbols[:-1], symbols[1:]], self._none)  # [S]
        while True:
            starts = np.cumsum(lengths) - lengths
            first = np.minimum.reduceat(ranks, starts)  # [W]
            done = first == self._none
            if done.any():
                left_out = np.repeat(done, lengths)
                ended = symbols[left_out]
                yield which[done], lengths[done] - 1, ended[ended != _END]
                if done.all():
                    return
                which, first, lengths = which[~done], first[~done], lengths[~done]
                symbols, ranks = symbols[~left_out], ranks[~left_out]
                starts = np.cumsum(lengths) - lengths
            merged = np.flatnonzero(ranks == np.repeat(first, lengths))
            merged = merged[_every_other(merged)]
            symbols[merged] = self._made[ranks[merged]]
            kept = np.ones(len(symbols), bool)
            kept[merged + 1] = False
            lengths -= np.add.reduceat(~kept, starts, dtype=lengths.dtype)
            symbols, ranks = symbols[kept], ranks[kept]
            merged -= np.arange(len(merged))  # positions after the removal
            for left in (merged, merged[merged > 0] - 1):
                ranks[left] = self._ranks_of(symbols[left], symbols[left + 1])

    def _join_long(self, words: Sequence[bytes], which: np.ndarray) -> Iterator[_Found]:
        for number in which.tolist():
            symbols = self._join_word(words[number])
            yield np.array([number]), np.array([len(symbols)]), np.array(symbols, np.int32)

    @functools.cached_property
    def _rank_of_pair(self) -> dict[tuple[int, int], int]:
        pairs = zip(self._left.tolist(), self._right.tolist(), strict=True)
        return {pair: rank for rank, pair in enumerate(pairs)}

    def _join_word(self, word: bytes) -> list[int]:
        """Return the symbols of one word.

        Takes nearly linear time, because words of a million letters exist (white space, base64,
        Chinese): merges leave gaps in the list, a linked list skips the gaps, and a priority queue
        holds the ranks whose positions are known.
        """
        symbols, ranks, end = list(word), self._rank_of_pair, len(word)
        following = list(range(1, end + 1))  # position of the next symbol; `end` after the last
        previous = list(range(-1, end - 1))  # position of the previous one; -1 before the first
        places = defaultdict(list)  # rank of a merge -> positions of its left symbol
        for place, pair in enumerate(pairwise(symbols)):
            if pair in ranks:
                places[ranks[pair]].append(place)
        queue = sorted(places)
        while queue:
            rank = heapq.heappop(queue)
            first, second, joined = (
                int(by_rank[rank]) for by_rank in (self._left, self._right, self._made)
            )
            # From left to right, and all positions before the next merge: "aaa" becomes "aa a".
            for left in sorted(places.pop(rank)):
                right = following[left]
                if symbols[left] != first or symbols[right] != second:
                    continue  # an earlier merge removed one of the two
                after = following[right]
                symbols[left], symbols[right] = joined, _GAP
                following[left] = after
                if after < end:
                    previous[after] = left
                for start, stop in ((previous[left], left), (left, after)):
                    if start < 0 or stop == end:
                        continue
                    new_rank = ranks.get((symbols[start], symbols[stop]))
                    if new_rank is not None:
                        if new_rank not in places:
                            heapq.heappush(queue, new_rank)
                        places[new_rank].append(start)
        return [symbol for symbol in symbols if symbol != _GAP]


def _every_other(places: np.ndarray) -> np.ndarray:
    """Return a mask of the 1st, 3rd, ... of adjacent positions: "aaaa" is "aa aa", not "a aa a"."""
    order = np.arange(len(places))
    first = np.diff(places, prepend=-2) > 1
    return (order - np.maximum.accumulate(np.where(first, order, 0))) % 2 == 0
