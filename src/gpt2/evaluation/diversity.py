"""Diversity of samples: between samples, within a sample, and against the training text.

Everything is counted in words, so that it is comparable across vocabularies. Samples are arrays of
word numbers, int64 [words] each. TensorFlow is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import regex

REPEATED = 4  # order of the n-grams that are checked for repetition
COPIED = 8  # order of the n-grams that are looked up in the training text
BLEU_ORDER = 4  # highest order of the n-grams in self-BLEU
_ABSENT = 0.1  # replaces 0 matches of an order; Chen and Cherry 2014, smoothing method 1

# A special token; a character of a script without spaces between words; a run of letters, digits
# and combining marks; or any other character by itself.
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?V1)<\|\w+\|>|[[{_SPACELESS}]--\p{{M}}]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}\p{{M}}]--[{_SPACELESS}]]+(?:['\u2019][\p{{L}}\p{{M}}]+)*|\S"
)
_ASCII_WORD = re.compile(r"<\|\w+\|>|[A-Za-z0-9]+(?:'[A-Za-z]+)*|\S")  # the same, faster


@dataclass(frozen=True)
class Diversity:
    """The diversity of some samples; None where a measure is undefined for them.

    Attributes:
        samples: number of samples.
        empty: number of samples without a word, which all other measures leave out.
        length: mean number of words.
        distinct_1, distinct_2, distinct_3: see `distinct`.
        self_bleu: see `self_bleu`.
        repetition_4: see `repetition`.
        longest_repeated_span: see `longest_repeated_span`; the mean over samples.
        copied_8: see `copied`.
    """

    samples: int
    empty: int
    length: float | None
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    self_bleu: float | None
    repetition_4: float | None
    longest_repeated_span: float | None
    copied_8: float | None


def measure(
    groups: Sequence[Sequence[str]], training: Iterable[str] | None = None
) -> list[Diversity]:
    """Return all measures of each group of samples.

    Args:
        groups: the texts of the samples.
        training: the training text in parts that split no word, read once for all groups; None
            to leave out `copied_8`.
    """
    numbers: dict[str, int] = {}
    numbered = [[number_words(sample, numbers) for sample in group] for group in groups]
    full = [[words for words in group if len(words)] for group in numbered]
    shares: list[float | None] = [None] * len(full)
    if training is not None:
        shares = copied(full, numbers, training, COPIED)
    return [
        _measure_group(samples, len(group), share)
        for group, samples, share in zip(groups, full, shares, strict=True)
    ]


def _measure_group(samples: list[np.ndarray], count: int, copied_8: float | None) -> Diversity:
    spans = [longest_repeated_span(words) for words in samples]
    return Diversity(
        samples=count,
        empty=count - len(samples),
        length=float(np.mean([len(words) for words in samples])) if samples else None,
        distinct_1=distinct(samples, 1),
        distinct_2=distinct(samples, 2),
        distinct_3=distinct(samples, 3),
        self_bleu=self_bleu(samples),
        repetition_4=repetition(samples, REPEATED),
        longest_repeated_span=float(np.mean(spans)) if spans else None,
        copied_8=copied_8,
    )


def split_words(text: str) -> list[str]:
    """Return the words of a text, case-sensitive.

    A word is a run of letters and digits, a single other character except white space, or a single
    character of Chinese, Japanese, Thai, Lao, Khmer or Burmese.

    Example:
        >>> split_words("It isn't, is it?")
        ['It', "isn't", ',', 'is', 'it', '?']
    """
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


def number_words(text: str, numbers: dict[str, int]) -> np.ndarray:
    """Return the number of each word of a text, int64 [words]; new words are added to `numbers`.

    Example:
        >>> number_words("a b a", {})
        array([0, 1, 0])
    """
    words = split_words(text)
    return np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int64)


@dataclass(frozen=True)
class NGrams:
    """The n-grams of some samples.

    Attributes:
        numbers: int64 [n-grams], from 0; equal n-grams have equal numbers.
        owners: index of the sample that each is from, int64 [n-grams].
    """

    numbers: np.ndarray
    owners: np.ndarray


def ngrams(samples: Sequence[np.ndarray], n: int) -> NGrams:
    """Return all n-grams of the samples; none spans two samples."""
    if not samples:
        return NGrams(np.empty(0, np.int64), np.empty(0, np.int64))
    words = np.concatenate(samples)
    owners = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
    numbers = words
    for size in range(1, n):
        numbers = _pairs(numbers[: len(words) - size], words[size:])
    whole = owners[: len(numbers)] == owners[n - 1 :]
    return NGrams(numbers[whole], owners[: len(numbers)][whole])


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return a number from 0 for each pair; equal pairs have equal numbers: int64 [N] each."""
    pairs = first * (second.max(initial=0) + 1) + second
    return np.unique(pairs, return_inverse=True)[1]


class Counted(NamedTuple):
    """The distinct n-grams of each sample and their counts: int64 [distinct n-grams] each."""

    numbers: np.ndarray
    owners: np.ndarray
    counts: np.ndarray


def _counted(found: NGrams, samples: int) -> Counted:
    """Return the distinct n-grams of each of `samples` samples, ordered by their numbers."""
    both, counts = np.unique(found.numbers * samples + found.owners, return_counts=True)
    return Counted(*np.divmod(both, max(samples, 1)), counts)


def distinct(samples: Sequence[np.ndarray], n: int) -> float | None:
    """Return distinct-n: the number of distinct n-grams of all samples, divided by that of all.

    From 0 (constant repetition) to 1 (no n-gram occurs twice); None if there is no n-gram. It falls
    with the amount of text, so compare equal amounts.

    Source: Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation
    Models", which divides by the number of words.
    """
    numbers = ngrams(samples, n).numbers
    return len(np.unique(numbers)) / len(numbers) if len(numbers) else None


def repetition(samples: Sequence[np.ndarray], n: int) -> float | None:
    """Return seq-rep-n: the share of repeated n-grams within a sample, the mean over samples.

    From 0 (no repetition) to nearly 1 (a loop); None if there is no n-gram.

    Source: Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training".
    """
    found = ngrams(samples, n)
    in_all = np.bincount(found.owners, minlength=len(samples))
    different = np.bincount(_counted(found, len(samples)).owners, minlength=len(samples))
    have = in_all > 0
    return float(np.mean(1 - different[have] / in_all[have])) if have.any() else None


def longest_repeated_span(words: np.ndarray) -> int:
    """Return the length of the longest sequence that occurs twice in a sample, in words.

    The occurrences may overlap: nine times the same word has a span of eight.
    """
    # Number the sequences of 1, 2, 4, ... words that begin at each place, while some repeat.
    sizes = [words]
    while _repeats(sizes[-1]):
        size = 2 ** (len(sizes) - 1)
        sizes.append(_pairs(sizes[-1][:-size], sizes[-1][size:]))
    # Find the length bit by bit, highest first; every prefix of a repeated sequence repeats, too.
    longest, numbers = 0, np.zeros(len(words) + 1, np.int64)
    for power in reversed(range(len(sizes) - 1)):
        longer = sizes[power][longest:]
        longer = _pairs(numbers[: len(longer)], longer)
        if _repeats(longer):
            longest, numbers = longest + 2**power, longer
    return longest


def _repeats(numbers: np.ndarray) -> bool:
    """Return whether a number occurs twice."""
    return len(np.unique(numbers)) < len(numbers)


def self_bleu(samples: Sequence[np.ndarray]) -> float | None:
    """Return self-BLEU: the BLEU of each sample with all others as references, the mean.

    From 0 (no words in common) to 1 (identical samples); None for fewer than two samples. BLEU uses
    n-grams up to order 4, or the length of a shorter sample, with smoothing method 1 where an order
    has no match. The result is exact rather than estimated from some pairs: only the highest count
    of an n-gram among the other samples matters, and one sort finds it for all samples.

    Source: Zhu et al. 2018, "Texygen: A Benchmarking Platform for Text Generation Models";
    Papineni et al. 2002; Chen and Cherry 2014.
    """
    if len(samples) < 2:
        return None
    lengths = np.array([len(sample) for sample in samples])
    logarithms = np.zeros(len(samples))  # sums of the logarithms of the precisions
    orders = np.minimum(lengths, BLEU_ORDER)
    matched = np.zeros(len(samples), bool)
    for n in range(1, BLEU_ORDER + 1):
        correct = _clipped(ngrams(samples, n), len(samples))
        matched |= correct > 0
        precision = np.maximum(correct, _ABSENT) / np.maximum(lengths - n + 1, 1)
        logarithms += np.where(n <= orders, np.log(precision), 0)
    references = _closest_other(lengths)
    brevity = np.exp(np.minimum(0, 1 - references / lengths))
    scores = np.where(matched, brevity * np.exp(logarithms / orders), 0)
    return float(scores.mean())


def _clipped(found: NGrams, samples: int) -> np.ndarray:
    """Return the clipped n-gram matches of each sample with the others, float64 [samples]."""
    numbers, owners, counts = _counted(found, samples)
    # Order by n-gram, and for each n-gram by count, descending.
    order = np.lexsort((-counts, numbers))
    numbers, owners, counts = numbers[order], owners[order], counts[order]
    first = np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)]
    has_second = np.append(~first[1:], False)[: len(numbers)] & first
    second = np.where(has_second, np.append(counts[1:], 0)[: len(numbers)], 0)
    most = counts[first][np.cumsum(first) - 1]
    in_another = np.where(first, second, most)
    return np.bincount(owners, weights=np.minimum(counts, in_another), minlength=samples)


def _closest_other(lengths: np.ndarray) -> np.ndarray:
    """Return for each sample the length of another that is closest to its own: [samples].

    Of two equally close lengths it is the shorter one.
    """
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order].astype(float)
    shorter = np.append(-np.inf, ordered[:-1])
    longer = np.append(ordered[1:], np.inf)
    closest = np.empty(len(lengths))
    closest[order] = np.where(longer - ordered < ordered - shorter, longer, shorter)
    return closest


def copied(
    groups: Sequence[Sequence[np.ndarray]],
    numbers: dict[str, int],
    training: Iterable[str],
    n: int,
) -> list[float | None]:
    """Return the share of each group's n-grams that occur verbatim in the training text.

    None for a group without n-grams. The training text is streamed and may have any size: memory
    holds a 64-bit hash of each n-gram of the samples, and one part of the training text.

    Args:
        groups: the samples of each group.
        numbers: the numbers of their words, from `number_words`.
        training: the training text in parts that split no word.

    Source: McCoy et al. 2023, "How Much Do Language Models Copy From Their Training Data?"; this is
    one minus their n-gram novelty.
    """
    none = np.empty(0, np.uint64)
    hashes_of = [
        np.concatenate([none, *(_hashes(sample, n) for sample in group)]) for group in groups
    ]
    wanted, places_of = np.unique(np.concatenate([none, *hashes_of]), return_inverse=True)
    found = np.zeros(len(wanted), bool)
    sieve = np.zeros(1 << 24, bool)  # on the first 24 bits; it rejects most n-grams quickly
    sieve[wanted >> np.uint64(40)] = True
    before = np.empty(0, np.int64)
    for part in training:
        words = np.fromiter(map(numbers.get, split_words(part), repeat(-1)), np.int64)
        words = np.append(before, words)
        before = words[len(words) - min(n - 1, len(words)) :]
        hashes = _hashes(words, n)
        # Searching for sorted values is faster, because it uses the CPU cache better.
        hashes = np.sort(hashes[sieve[hashes >> np.uint64(40)]])
        places = np.searchsorted(wanted, hashes) % max(len(wanted), 1)
        found[places[wanted[places] == hashes]] = True
    ends = np.cumsum([len(hashes) for hashes in hashes_of])[:-1]
    return [float(here.mean()) if len(here) else None for here in np.split(found[places_of], ends)]


def _hashes(words: np.ndarray, n: int) -> np.ndarray:
    """Return a hash of each n-gram without unknown words (-1): [words] -> uint64 [n-grams]."""
    size = max(len(words) - n + 1, 0)
    hashes = np.zeros(size, np.uint64)
    known = np.ones(size, bool)
    for place in range(n):
        here = words[place : place + size]
        hashes = _mixed(hashes ^ here.astype(np.uint64))
        known &= here >= 0
    return hashes[known]


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Return 64-bit hashes of 64-bit integers, without collisions.

    Source: the finalizer of SplitMix64, Steele et al. 2014, "Fast Splittable Pseudorandom Number
    Generators", with Stafford's constants (variant 13).
    """
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
