"""How varied samples are: among each other, each within itself, and against the training text.

All is counted in words, the same for all vocabularies. No TensorFlow is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import regex

REPEATED = 4  # words of the n-grams that count as repetitions
COPIED = 8  # words of the n-grams that count as copied from the training text
BLEU_ORDER = 4  # words of the longest n-grams that self-BLEU compares
_ABSENT = 0.1  # stands for no match at all of an order; Chen and Cherry 2014, smoothing method 1

# A special token; a character of a script that puts no space between words; letters, digits and
# what belongs to them; or any other mark by itself.
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?V1)<\|\w+\|>|[[{_SPACELESS}]--\p{{M}}]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}\p{{M}}]--[{_SPACELESS}]]+(?:['\u2019][\p{{L}}\p{{M}}]+)*|\S"
)
_ASCII_WORD = re.compile(r"<\|\w+\|>|[A-Za-z0-9]+(?:'[A-Za-z]+)*|\S")  # the same, faster


@dataclass(frozen=True)
class Diversity:
    """What `measure` finds; None is what cannot be told of these samples.

    Attributes:
        samples: how many there are.
        empty: how many of them have no word; nothing else counts those.
        length: words of a sample, the mean.
        distinct_1, distinct_2, distinct_3: see `distinct`.
        self_bleu: see `self_bleu`.
        repetition_4: see `repetition`.
        longest_repeated_span: see `longest_repeated_span`; the mean of the samples.
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
    """Every measure of each group of samples.

    Args:
        training: the training text, in parts that cut no word, which is read once for all groups;
            None leaves `copied_8` out.
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
    """The words of a text, with the case they are written in.

    Runs of letters and digits; every other mark is a word by itself, as is every character of
    Chinese, Japanese, Thai, Lao, Khmer and Burmese; white space is none.
    """
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


def number_words(text: str, numbers: dict[str, int]) -> np.ndarray:
    """A number for each word of a text, int64 [words]; words that are new get a new one."""
    words = split_words(text)
    return np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int64)


@dataclass(frozen=True)
class NGrams:
    """The n-grams of some samples, of which none reaches across two.

    Attributes:
        numbers: int64 [n-grams], from 0; equal ones have the same.
        owners: the sample that each is from, int64 [n-grams].
    """

    numbers: np.ndarray
    owners: np.ndarray


def ngrams(samples: Sequence[np.ndarray], n: int) -> NGrams:
    """Every n-gram of the samples, each sample int64 [words]."""
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
    """Numbers for pairs of numbers, from 0; equal pairs have the same."""
    pairs = first * (second.max(initial=0) + 1) + second
    return np.unique(pairs, return_inverse=True)[1]


class Counted(NamedTuple):
    """The different n-grams of each sample, and how often it has them: int64 [different]."""

    numbers: np.ndarray
    owners: np.ndarray
    counts: np.ndarray


def _counted(found: NGrams, samples: int) -> Counted:
    both, counts = np.unique(found.numbers * samples + found.owners, return_counts=True)
    return Counted(*np.divmod(both, max(samples, 1)), counts)


def distinct(samples: Sequence[np.ndarray], n: int) -> float | None:
    """distinct-n: different n-grams of all samples together, as a share of all their n-grams.

    0 is the same over and over, 1 has no n-gram twice. It falls as there is more text: compare
    equal amounts. Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation
    Models", where the share is that of all words.
    """
    numbers = ngrams(samples, n).numbers
    return len(np.unique(numbers)) / len(numbers) if len(numbers) else None


def repetition(samples: Sequence[np.ndarray], n: int) -> float | None:
    """rep-n: the share of a sample's n-grams that it has said before, the mean of the samples.

    0 repeats nothing, near 1 is a loop. Welleck et al. 2020, "Neural Text Generation with
    Unlikelihood Training", there seq-rep-n.
    """
    found = ngrams(samples, n)
    in_all = np.bincount(found.owners, minlength=len(samples))
    different = np.bincount(_counted(found, len(samples)).owners, minlength=len(samples))
    have = in_all > 0
    return float(np.mean(1 - different[have] / in_all[have])) if have.any() else None


def longest_repeated_span(words: np.ndarray) -> int:
    """Words of the longest sequence that comes twice in a sample, int64 [words].

    The two may overlap: nine times the same word is a sequence of eight, twice.
    """
    # Numbers for the sequences of 1, 2, 4, ... words that begin at each place, while some repeat.
    sizes = [words]
    while _repeats(sizes[-1]):
        size = 2 ** (len(sizes) - 1)
        sizes.append(_pairs(sizes[-1][:-size], sizes[-1][size:]))
    # The length in binary digits, the highest first: whatever repeats has a start that repeats.
    longest, numbers = 0, np.zeros(len(words) + 1, np.int64)
    for power in reversed(range(len(sizes) - 1)):
        longer = sizes[power][longest:]
        longer = _pairs(numbers[: len(longer)], longer)
        if _repeats(longer):
            longest, numbers = longest + 2**power, longer
    return longest


def _repeats(numbers: np.ndarray) -> bool:
    return len(np.unique(numbers)) < len(numbers)


def self_bleu(samples: Sequence[np.ndarray]) -> float | None:
    """Self-BLEU: the BLEU of each sample against all the others as references, the mean.

    0 when no sample has a word of another, 1 when all are alike; None for less than two samples.
    Zhu et al. 2018, "Texygen: A Benchmarking Platform for Text Generation Models". BLEU as in
    Papineni et al. 2002, of n-grams up to 4 (or as many words as the sample has), smoothed where
    nothing matches by method 1 of Chen and Cherry 2014. It is exact, not of some pairs: of how
    often the others have an n-gram only the highest number counts, which one sort finds for all
    samples.
    """
    if len(samples) < 2:
        return None
    lengths = np.array([len(sample) for sample in samples])
    logarithms = np.zeros(len(samples))  # of the precisions, summed
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
    """How many n-grams of each sample another one has, as often as that one has them: [samples]."""
    numbers, owners, counts = _counted(found, samples)
    # Of each n-gram, the sample first that has it most often.
    order = np.lexsort((-counts, numbers))
    numbers, owners, counts = numbers[order], owners[order], counts[order]
    first = np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)]
    has_second = np.append(~first[1:], False)[: len(numbers)] & first
    second = np.where(has_second, np.append(counts[1:], 0)[: len(numbers)], 0)
    most = counts[first][np.cumsum(first) - 1]
    in_another = np.where(first, second, most)
    return np.bincount(owners, weights=np.minimum(counts, in_another), minlength=samples)


def _closest_other(lengths: np.ndarray) -> np.ndarray:
    """The length of another sample that is nearest to each one's own, the shorter of two."""
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
    """The share of each group's n-grams that are in the training text, word for word.

    McCoy et al. 2023, "How Much Do Language Models Copy From Their Training Data?": one minus their
    n-gram novelty. The training text is read once and may be of any size: in memory are the
    samples' n-grams, as hashes of 64 bits, and a part of it.

    Args:
        groups: samples, each int64 [words].
        numbers: of the samples' words, from `number_words`.
        training: the training text, in parts that cut no word.
    """
    none = np.empty(0, np.uint64)
    hashes_of = [
        np.concatenate([none, *(_hashes(sample, n) for sample in group)]) for group in groups
    ]
    wanted, places_of = np.unique(np.concatenate([none, *hashes_of]), return_inverse=True)
    found = np.zeros(len(wanted), bool)
    sieve = np.zeros(1 << 24, bool)  # by the first 24 bits, since most n-grams are in no sample
    sieve[wanted >> np.uint64(40)] = True
    before = np.empty(0, np.int64)
    for part in training:
        words = np.fromiter(map(numbers.get, split_words(part), repeat(-1)), np.int64)
        words = np.append(before, words)
        before = words[len(words) - min(n - 1, len(words)) :]
        hashes = _hashes(words, n)
        # In their order the search for them finds its way in the processor's cache.
        hashes = np.sort(hashes[sieve[hashes >> np.uint64(40)]])
        places = np.searchsorted(wanted, hashes) % max(len(wanted), 1)
        found[places[wanted[places] == hashes]] = True
    ends = np.cumsum([len(hashes) for hashes in hashes_of])[:-1]
    return [float(here.mean()) if len(here) else None for here in np.split(found[places_of], ends)]


def _hashes(words: np.ndarray, n: int) -> np.ndarray:
    """A hash of each n-gram that has no unknown word (-1): uint64 [n-grams]."""
    size = max(len(words) - n + 1, 0)
    hashes = np.zeros(size, np.uint64)
    known = np.ones(size, bool)
    for place in range(n):
        here = words[place : place + size]
        hashes = _mixed(hashes ^ here.astype(np.uint64))
        known &= here >= 0
    return hashes[known]


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits in which each bit hangs on all; equal ones only of equal ones.

    The finalizer of SplitMix64: Steele et al. 2014, "Fast Splittable Pseudorandom Number
    Generators", with Stafford's constants (variant 13).
    """
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
