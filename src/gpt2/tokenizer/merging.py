"""Byte-pair encoding: joining the bytes of words into tokens.

Every word starts as its single bytes. Then, again and again, the neighbours that stand first in the
list of merges are joined wherever they meet in the word, until no neighbours are in the list:

    " lower"  ->  Ġ l o w e r  ->  Ġ l o w er  ->  Ġl o w er  ->  Ġl ow er  ->  Ġl ower  ->  Ġlower

(Ġ is how a space is written, see vocabulary.py.) The idea is from Sennrich et al. 2016,
https://arxiv.org/abs/1508.07909; doing it on bytes from section 2.2 of GPT-2's paper.

In here a token is a number, its symbol: bytes are their own symbols, and 256 stands for the end of
a word; what the merges join and make is numbered on from there.
"""

from __future__ import annotations

import functools
import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from gpt2.tokenizer.vocabulary import BYTE_OF_CHARACTER

_END = 256
_GAP = -1  # where a merge has taken a symbol away

# Words of up to this many bytes are joined together. The time that takes grows with the square of
# a word's length, which the longer ones (white space, base64) would come to feel.
_LONGEST = 128


class Spans(NamedTuple):
    """Lists of numbers, laid one after the other.

    Attributes:
        numbers: those of all lists, int32 [S].
        starts: where each list begins in it, int64 [W].
        lengths: how many numbers each has, int64 [W].
    """

    numbers: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def take(self, which: np.ndarray) -> np.ndarray:
        """The numbers of some lists, in the order asked for."""
        lengths = self.lengths[which]
        offsets = self.starts[which] - np.cumsum(lengths) + lengths
        return self.numbers[np.arange(lengths.sum()) + np.repeat(offsets, lengths)]

    def extended(self, others: Spans) -> Spans:
        """These lists and then the others."""
        return Spans(
            np.concatenate([self.numbers, others.numbers]),
            np.concatenate([self.starts, others.starts + len(self.numbers)]),
            np.concatenate([self.lengths, others.lengths]),
        )


# Which words are finished, how many symbols each of them has, and the symbols.
_Found = tuple[np.ndarray, np.ndarray, np.ndarray]


class Merges:
    """A list of merges at work.

    Attributes:
        tokens: the token of each symbol, spelled as in `encoder.json`.
    """

    def __init__(self, merges: Sequence[tuple[str, str]]):
        symbols = {character: byte[0] for character, byte in BYTE_OF_CHARACTER.items()}
        symbols[""] = _END
        pairs, made = [], []
        for left, right in merges:
            pairs.append(tuple(symbols.setdefault(token, len(symbols)) for token in (left, right)))
            made.append(symbols.setdefault(left + right, len(symbols)))
        self.tokens = sorted(symbols, key=symbols.__getitem__)
        self._pairs = pairs  # symbols, by rank
        self._made = np.array(made, np.int32)  # symbol, by rank
        self._none = len(merges)  # the rank of what is no merge
        keys = self._keys_of(*np.array(pairs, np.int64).reshape(-1, 2).T)
        # Of a pair that is listed twice the last one counts, as in the original. After the keys
        # comes one that no pair has: what is looked for may lie behind all others.
        keys, backwards = np.unique(keys[::-1], return_index=True)
        self._keys = np.append(keys, np.iinfo(np.int64).max)
        self._ranks = np.append(self._none - 1 - backwards, self._none).astype(np.int32)
        symbol = np.arange(_END + 1)
        self._ranks_of_bytes = self._ranks_of(symbol[:, None], symbol)

    def join(self, words: Sequence[bytes]) -> Spans:
        """The symbols of each word, none of which is empty, when all merges have been applied."""
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
        """Join in all words at once: in each round, each word's first merge in the list."""
        if not len(which):
            return
        data = b"\0".join([words[number] for number in which.tolist()]) + b"\0"
        symbols = np.frombuffer(data, np.uint8).astype(np.int32)  # [S], of all words
        lengths = np.array([len(words[number]) + 1 for number in which.tolist()])  # [W]
        symbols[np.cumsum(lengths) - 1] = _END
        # Of each symbol with the one behind it.
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
            merged -= np.arange(len(merged))  # where they are now
            for left in (merged, merged[merged > 0] - 1):
                ranks[left] = self._ranks_of(symbols[left], symbols[left + 1])

    def _join_long(self, words: Sequence[bytes], which: np.ndarray) -> Iterator[_Found]:
        for number in which.tolist():
            symbols = self._join_word(words[number])
            yield np.array([number]), np.array([len(symbols)]), np.array(symbols, np.int32)

    @functools.cached_property
    def _rank_of_pair(self) -> dict[tuple[int, int], int]:
        return {pair: rank for rank, pair in enumerate(self._pairs)}

    def _join_word(self, word: bytes) -> list[int]:
        """Join in one word.

        The time grows with the word's length and hardly more, as words of a million letters exist
        (white space, base64, Chinese). So a merge leaves gaps in the list instead of moving what
        follows, neighbours are kept as a chain across the gaps, and it is remembered at which
        places each merge awaits its turn.
        """
        symbols, ranks, end = list(word), self._rank_of_pair, len(word)
        following = list(range(1, end + 1))  # place of the next symbol; `end` after the last
        previous = list(range(-1, end - 1))  # place of the one before; -1 before the first
        places = defaultdict(list)  # rank of a merge -> places of its left symbol
        for place, pair in enumerate(pairwise(symbols)):
            if pair in ranks:
                places[ranks[pair]].append(place)
        queue = sorted(places)
        while queue:
            rank = heapq.heappop(queue)
            first, second = self._pairs[rank]
            joined = int(self._made[rank])
            # From left to right, all places before any other merge: "aaa" becomes "aa a".
            for left in sorted(places.pop(rank)):
                right = following[left]
                if symbols[left] != first or symbols[right] != second:
                    continue  # a merge meanwhile took one of the two away
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
    """Of adjacent places the first, third, ...: "aaaa" is "aa aa", not "a aa a"."""
    order = np.arange(len(places))
    first = np.diff(places, prepend=-2) > 1
    return (order - np.maximum.accumulate(np.where(first, order, 0))) % 2 == 0
