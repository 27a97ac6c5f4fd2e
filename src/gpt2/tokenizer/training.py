"""Learning a vocabulary from text: which neighbours are joined, and in which order.

    "aaabdaaabac"  ->  merges  a a,  a b,  aa ab

All words start as single bytes. The pair of neighbours that is met most often becomes a merge and
is joined everywhere; then the next, until there are tokens enough (Sennrich et al. 2016,
https://arxiv.org/abs/1508.07909, algorithm 1).
"""

from __future__ import annotations

import functools
import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from gpt2.errors import UserError
from gpt2.processes import map_in_order
from gpt2.tokenizer.vocabulary import (
    CHARACTER_OF_BYTE,
    ENDOFTEXT,
    check_special_tokens,
    spelled,
)
from gpt2.tokenizer.words import check_characters, words

Pair = tuple[str, str]

# Characters whose words are counted at a time, and how often this process does that by itself
# before others are started.
_TASK = 2**22
_ALONE = 2


def train_vocabulary(
    texts: Iterable[str],
    n_vocab: int,
    *,
    min_frequency: int = 2,
    special_tokens: Sequence[str] = (),
    workers: int = 1,
) -> tuple[dict[str, int], list[Pair]]:
    """Learn a vocabulary of `n_vocab` tokens from texts, each a whole document or whole words.

    The tokens are, in the order of their ids: the 256 bytes, what each merge makes, `<|endoftext|>`
    and the other special tokens, which in a text only separate. Among pairs met equally often, the
    one that comes first in the order of its two tokens as strings is merged first; so the result
    depends on how often each word occurs and on nothing else. There are fewer than `n_vocab` tokens
    if no pair is left that occurs often enough.

    Args:
        min_frequency: how often a pair has to occur to be merged. One that is met only once in the
            whole text tells nothing about the next text.
        special_tokens: more tokens of the form `<|name|>`; see `vocabulary.special_tokens`.
        workers: processes that share in counting the words, if there are many.

    Returns:
        The id of each token and the merges, first to be applied first: what `Tokenizer` takes.

    Raises:
        UserError: `n_vocab` is too small for the bytes and the special tokens, one of those cannot
            be, or a text holds half a character.
    """
    vocabulary = {character: number for number, character in enumerate(CHARACTER_OF_BYTE.values())}
    special = [ENDOFTEXT, *check_special_tokens(special_tokens, {ENDOFTEXT})]
    fewest_tokens = len(vocabulary) + len(special)
    if n_vocab < fewest_tokens:
        raise UserError(
            f"A vocabulary of {n_vocab} tokens is too small: the 256 bytes and "
            f"{', '.join(special) if len(special) < 4 else 'the special tokens'} "
            f"make {fewest_tokens}; ask for at least as many."
        )
    if min_frequency < 1:
        raise UserError(
            f"min_frequency should be a whole number of at least 1, not {min_frequency}."
        )
    merges = []
    pairs = _Pairs(_count_words(texts, special, workers), min_frequency)
    while len(vocabulary) < n_vocab - len(special) and (pair := pairs.most_frequent()):
        pairs.join(pair)
        merges.append(pair)
        # Always a new token: the bytes between two boundaries that last are joined in the same
        # way everywhere, so no second pair can make the same token.
        vocabulary["".join(pair)] = len(vocabulary)
    for name in special:
        vocabulary[spelled(name)] = len(vocabulary)
    return vocabulary, merges


def _count_words(texts: Iterable[str], special: Sequence[str], workers: int) -> Counter[str]:
    count = functools.partial(_words_of, re.compile("|".join(map(re.escape, special))))
    counts: Counter[str] = Counter()
    for some in map_in_order(count, _tasks(texts), workers, _ALONE):
        counts.update(some)
    return counts


def _tasks(texts: Iterable[str]) -> Iterator[list[str]]:
    task: list[str] = []
    size = 0
    for text in texts:
        task.append(text)
        size += len(text)
        if size >= _TASK:
            yield task
            task, size = [], 0
    yield task


def _words_of(special: re.Pattern[str], texts: list[str]) -> Counter[str]:
    """How often each word occurs in some texts."""
    counts: Counter[str] = Counter()
    for text in texts:
        check_characters(text)
        for piece in special.split(text):
            for some_words in words(piece):
                counts.update(some_words)
    return counts


class _Pairs:
    """All pairs of neighbours in a set of words: how often and where each occurs.

    Joining a pair changes the counts of the pairs around it only, so a merge costs the time of
    its own occurrences, not that of the text. The words lie one after the other in one list, in
    which a merge leaves gaps, and a chain of neighbours leads across the gaps.
    """

    def __init__(self, word_counts: Counter[str], fewest: int):
        self.fewest = fewest  # times that a pair has to occur
        self.tokens: list[str] = [""]  # an empty token before and after each word
        self.counts_of_words: list[int] = [0]  # at each place, how often its word occurs
        for word, count in word_counts.items():
            self.tokens += [*spelled(word), ""]
            self.counts_of_words += [count] * (len(self.tokens) - len(self.counts_of_words))
        self.following = list(range(1, len(self.tokens) + 1))
        self.previous = list(range(-1, len(self.tokens) - 1))
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        self.places: defaultdict[Pair, list[int]] = defaultdict(list)  # of the left token
        for left, pair in enumerate(pairwise(self.tokens)):
            if all(pair):
                self.counts[pair] += self.counts_of_words[left]
                self.places[pair].append(left)
        # Most frequent first, then in the order of the strings. The counts are those of when a pair
        # was put in; they only fall afterwards, and are corrected when their turn comes.
        self.queue: list[tuple[int, Pair]] = []
        for pair in self.counts:
            self._put_in(pair)

    def _put_in(self, pair: Pair) -> None:
        if self.counts[pair] >= self.fewest:
            heapq.heappush(self.queue, (-self.counts[pair], pair))

    def most_frequent(self) -> Pair | None:
        """Take out the pair that is met most often; None if only rare ones are left."""
        while self.queue:
            negative_count, pair = heapq.heappop(self.queue)
            if self.counts[pair] == -negative_count:
                return pair
            self._put_in(pair)
        return None

    def join(self, pair: Pair) -> None:
        """Make one token of the pair, everywhere, in each word from left to right."""
        first, second = pair
        joined = first + second
        tokens, following, previous = self.tokens, self.following, self.previous
        made = set()
        for left in sorted(self.places.pop(pair)):
            right = following[left]
            if tokens[left] != first or tokens[right] != second:
                continue  # a merge meanwhile took one of the two away
            before, after = previous[left], following[right]
            count = self.counts_of_words[left]
            tokens[left], tokens[right] = joined, ""
            following[left], previous[after] = after, left
            if tokens[before]:
                self.counts[tokens[before], first] -= count
                new_pair = (tokens[before], joined)
                self.counts[new_pair] += count
                self.places[new_pair].append(before)
                made.add(new_pair)
            if tokens[after]:
                self.counts[second, tokens[after]] -= count
                new_pair = (joined, tokens[after])
                self.counts[new_pair] += count
                self.places[new_pair].append(left)
                made.add(new_pair)
        del self.counts[pair]
        for new_pair in made:
            self._put_in(new_pair)
