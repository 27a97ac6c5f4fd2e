"""Train a BPE vocabulary on text.

    "aaabdaaabac"  ->  merges  a a,  a b,  aa ab

All words start as single bytes. The most frequent adjacent pair becomes a merge and is merged
everywhere; this repeats until the vocabulary is full. Source: Sennrich et al. 2016,
https://arxiv.org/abs/1508.07909, algorithm 1.
"""

from __future__ import annotations

import functools
import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from gpt2.checks import check_count
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

_TASK = 2**21  # characters whose words are counted in one task
_ALONE = 1  # tasks for which no worker processes are started; see `map_in_order`


def train_vocabulary(
    texts: Iterable[str],
    n_vocab: int,
    *,
    min_frequency: int = 2,
    special_tokens: Sequence[str] = (),
    workers: int = 1,
) -> tuple[dict[str, int], list[Pair]]:
    """Train a vocabulary of `n_vocab` tokens.

    The tokens are, by id: the 256 bytes, the token of each merge, `<|endoftext|>` and the other
    special tokens. Of pairs with equal counts, the first in string order is merged, so the result
    depends only on the word counts. The vocabulary is smaller than `n_vocab` if no pair is left
    with `min_frequency` occurrences.

    Args:
        texts: whole documents, or parts cut between words; special tokens in them are separators.
        n_vocab: vocabulary size, special tokens included.
        min_frequency: minimum number of occurrences of a merged pair (at least 1).
        special_tokens: further tokens of the form `<|name|>`; see `vocabulary.special_tokens`.
        workers: number of processes that count words, if there are many.

    Returns:
        The id of each token, and the merges in order of priority: the arguments of `Tokenizer`.

    Raises:
        UserError: `n_vocab` is too small for the bytes and the special tokens, a special token is
            invalid, or a text contains a lone surrogate.
    """
    vocabulary = {character: number for number, character in enumerate(CHARACTER_OF_BYTE.values())}
    special = [ENDOFTEXT, *check_special_tokens(special_tokens, {ENDOFTEXT})]
    fewest_tokens = len(vocabulary) + len(special)
    if n_vocab < fewest_tokens:
        raise UserError(
            f"A vocabulary of {n_vocab} tokens is too small: the 256 bytes and "
            f"{', '.join(special) if len(special) < 4 else 'the special tokens'} "
            f"make {fewest_tokens}. Set n_vocab to {fewest_tokens} or more."
        )
    check_count("min_frequency", min_frequency, 1)
    merges = []
    pairs = _Pairs(_count_words(texts, special, workers), min_frequency)
    while len(vocabulary) < n_vocab - len(special) and (pair := pairs.most_frequent()):
        pairs.join(pair)
        merges.append(pair)
        # Always a new token: the same bytes between the same boundaries are merged in the same way
        # everywhere, so no second pair can make the same token.
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
    """Return how often each word occurs in these texts."""
    counts: Counter[str] = Counter()
    for text in texts:
        check_characters(text)
        for piece in special.split(text):
            for some_words in words(piece):
                counts.update(some_words)
    return counts


class _Pairs:
    """Counts and positions of all adjacent pairs in a set of words.

    A merge changes only the counts of the pairs around it, so its cost depends on its own
    occurrences, not on the size of the text. All words lie in one list; merges leave gaps in it,
    and a linked list skips the gaps.
    """

    def __init__(self, word_counts: Counter[str], fewest: int):
        self.fewest = fewest  # minimum number of occurrences of a merged pair
        self.tokens: list[str] = [""]  # an empty token before and after each word
        self.counts_of_words: list[int] = [0]  # at each position, how often its word occurs
        for word, count in word_counts.items():
            self.tokens += [*spelled(word), ""]
            self.counts_of_words += [count] * (len(self.tokens) - len(self.counts_of_words))
        self.following = list(range(1, len(self.tokens) + 1))
        self.previous = list(range(-1, len(self.tokens) - 1))
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        self.places: defaultdict[Pair, list[int]] = defaultdict(list)  # positions of left tokens
        for left, pair in enumerate(pairwise(self.tokens)):
            if all(pair):
                self.counts[pair] += self.counts_of_words[left]
                self.places[pair].append(left)
        # Most frequent first, then in string order. Counts are those at the time of the push; they
        # can only fall afterwards, and are corrected when the pair is popped.
        self.queue: list[tuple[int, Pair]] = []
        for pair in self.counts:
            self._push(pair)

    def _push(self, pair: Pair) -> None:
        if self.counts[pair] >= self.fewest:
            heapq.heappush(self.queue, (-self.counts[pair], pair))

    def most_frequent(self) -> Pair | None:
        """Remove and return the most frequent pair; None if only rare pairs are left."""
        while self.queue:
            negative_count, pair = heapq.heappop(self.queue)
            if self.counts[pair] == -negative_count:
                return pair
            self._push(pair)
        return None

    def join(self, pair: Pair) -> None:
        """Merge the pair everywhere, in each word from left to right."""
        first, second = pair
        joined = first + second
        tokens, following, previous = self.tokens, self.following, self.previous
        made = set()
        for left in sorted(self.places.pop(pair)):
            right = following[left]
            if tokens[left] != first or tokens[right] != second:
                continue  # an earlier merge removed one of the two
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
            self._push(new_pair)
