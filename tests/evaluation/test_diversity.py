"""Each measure by hand, self-BLEU against sacrebleu, and all against slow ones on random texts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
import sacrebleu

from gpt2.evaluation import diversity
from gpt2.evaluation.diversity import measure, number_words, split_words


def numbered(*texts: str) -> tuple[list[np.ndarray], dict[str, int]]:
    """The samples as the measures take them, and the numbers of their words."""
    numbers: dict[str, int] = {}
    return [number_words(text, numbers) for text in texts], numbers


def copied(samples: list[np.ndarray], numbers: dict[str, int], training: list[str], n: int):
    """The share of one group."""
    [share] = diversity.copied([samples], numbers, training, n)
    return share


def random_texts(count: int, longest: int, words: int) -> list[str]:
    """Texts of few different words, so that much repeats; the seed is printed."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest + 1, count)
    return [" ".join(f"w{n}" for n in random.integers(0, words, length)) for length in lengths]


def all_ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I'll pay  $20.\n", ["I'll", "pay", "$", "20", "."]),
        ("Don\u2019t naïve", ["Don\u2019t", "naïve"]),
        ("e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}", ["e\u0301te\u0301"]),
        ("我爱GPT2。", ["我", "爱", "GPT2", "。"]),
        ("ひらカナ", ["ひ", "ら", "カ", "ナ"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("end<|endoftext|>Start", ["end", "<|endoftext|>", "Start"]),
        (" \t\n", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_a_text_of_ascii_has_the_same_words_by_the_pattern_for_all_texts() -> None:
    text = "It's 'quoted' a_b <|pad|> 3rd x-1, don't' <|not a token|> e.g. C'est"
    assert text.isascii()
    assert split_words(text + " é")[:-1] == split_words(text)


def test_distinct_by_hand() -> None:
    # a b a b and a b c: seven words of 3 kinds; ab ba ab, ab bc: five pairs of 3 kinds;
    # aba bab abc: three of three. None reaches from one sample into the next.
    samples, _ = numbered("a b a b", "a b c")
    assert diversity.distinct(samples, 1) == pytest.approx(3 / 7)
    assert diversity.distinct(samples, 2) == pytest.approx(3 / 5)
    assert diversity.distinct(samples, 3) == 1
    assert diversity.distinct(samples, 5) is None


def test_repetition_by_hand() -> None:
    # Pairs of "a b a b": ab ba ab, two kinds of three. Pairs of "a b c": two of two. The ab that
    # both have is no repetition. "c" has no pair and does not count.
    samples, _ = numbered("a b a b", "a b c", "c")
    assert diversity.repetition(samples, 2) == pytest.approx((1 / 3 + 0) / 2)
    assert diversity.repetition(samples, 5) is None


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("", 0),
        ("a", 0),
        ("a b c", 0),
        ("a b a c", 1),
        ("a b c x a b c y b c", 3),
        ("a a", 1),
        ("ha ha ha ha ha ha ha ha ha", 8),
        ("a b a b a b a", 5),
        ("x a b c d e f g y a b c d e f g z", 7),
    ],
)
def test_longest_repeated_span_by_hand(text: str, longest: int) -> None:
    [words], _ = numbered(text)
    assert diversity.longest_repeated_span(words) == longest


def test_self_bleu_by_hand() -> None:
    # Of each sample five words are four the other's, as are its four pairs three, and so on.
    samples, _ = numbered("a b c d x", "a b c d y")
    expected = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    assert diversity.self_bleu(samples) == pytest.approx(expected)
    # The first is all in the second, but shorter: exp(1 - 6 / 5). The other way five words of six
    # match, four pairs of five, three of four, two of three.
    samples, _ = numbered("a b c d e", "a b c d e f")
    second = (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** (1 / 4)
    assert diversity.self_bleu(samples) == pytest.approx((math.exp(-1 / 5) + second) / 2)


def test_self_bleu_at_its_ends() -> None:
    assert diversity.self_bleu(numbered("a b c d e")[0]) is None
    assert diversity.self_bleu([]) is None
    assert diversity.self_bleu(numbered(*["a b c d e"] * 3)[0]) == pytest.approx(1)
    assert diversity.self_bleu(numbered("a b c d e", "f g h i j")[0]) == 0


@pytest.mark.parametrize(("count", "longest", "words"), [(2, 3, 2), (12, 30, 4), (30, 12, 40)])
def test_self_bleu_is_sacrebleus_mean_against_all_others(
    count: int, longest: int, words: int
) -> None:
    texts = random_texts(count, longest, words)
    bleu = sacrebleu.metrics.BLEU(
        tokenize="none", smooth_method="floor", smooth_value=0.1, effective_order=True
    )
    expected = [
        bleu.sentence_score(text, texts[:place] + texts[place + 1 :]).score / 100
        for place, text in enumerate(texts)
    ]
    assert diversity.self_bleu(numbered(*texts)[0]) == pytest.approx(np.mean(expected), rel=1e-9)


def test_copied_by_hand() -> None:
    # Of a b c x y only "a b c" is in the training text; "b c x" would be across the words between.
    samples, numbers = numbered("a b c x y", "q r")
    assert copied(samples, numbers, ["z a b c, x y"], 3) == pytest.approx(1 / 3)
    assert copied(samples, numbers, ["nothing of it"], 3) == 0
    assert copied(samples, numbers, [], 3) == 0
    assert copied(samples, numbers, ["z a b c"], 6) is None
    # What comes twice counts twice: of a b, b a, a b, b c all but one is there.
    samples, numbers = numbered("a b a b c")
    assert copied(samples, numbers, ["c a b a"], 2) == pytest.approx(3 / 4)


def test_what_is_copied_is_found_across_the_parts_of_the_training_text() -> None:
    samples, numbers = numbered("a b c d e")
    for parts in (["a b c d e"], ["a b", " c ", "d e"], ["a", "", " b c d", " e f"]):
        assert copied(samples, numbers, parts, 4) == 1
    assert copied(samples, numbers, ["a b c", " unknown ", "d e"], 4) == 0


@pytest.mark.parametrize("words", [2, 5, 40])
def test_the_others_are_what_counting_one_by_one_gives(words: int) -> None:
    texts = random_texts(20, 40, words)
    training = random_texts(5, 200, words)
    samples, numbers = numbered(*texts)
    for n in range(1, 5):
        found = [all_ngrams(text, n) for text in texts]
        joined = [ngram for ngrams in found for ngram in ngrams]
        known = set(all_ngrams(" ".join(training), n))
        shares = [1 - len(set(ngrams)) / len(ngrams) for ngrams in found if ngrams]
        assert diversity.distinct(samples, n) == len(set(joined)) / len(joined)
        assert diversity.repetition(samples, n) == pytest.approx(np.mean(shares))
        share = sum(ngram in known for ngram in joined) / len(joined)
        parts = [f"{text} " for text in training]
        assert copied(samples, numbers, parts, n) == pytest.approx(share)
    for text, sample in zip(texts, samples, strict=True):
        longest = max(
            (n for n in range(1, 41) if max(Counter(all_ngrams(text, n)).values(), default=0) > 1),
            default=0,
        )
        assert diversity.longest_repeated_span(sample) == longest


def test_all_measures_together() -> None:
    # Two words of four, one pair of three, no more; and two words of three, one pair of two, but
    # that one is shorter than the other sample.
    bleus = (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1) ** (1 / 4), (2 / 3 * 1 / 2 * 0.1) ** (1 / 3)
    [found] = measure([["a b a b", "", "a b c", "\n"]], training=["a b c"])
    assert asdict(found) == {
        "samples": 4,
        "empty": 2,
        "length": 3.5,
        "distinct_1": pytest.approx(3 / 7),
        "distinct_2": pytest.approx(3 / 5),
        "distinct_3": 1,
        "self_bleu": pytest.approx((bleus[0] + bleus[1] * math.exp(1 - 4 / 3)) / 2),
        "repetition_4": 0,
        "longest_repeated_span": 1,
        "copied_8": None,  # there is no sequence of eight words to look for
    }


def test_groups_are_measured_apart_and_the_training_text_is_read_once() -> None:
    eight = "a b c d e f g h"
    groups = [[f"{eight} x", "q"], [], ["x"], [eight, "h g f e d c b a"]]
    training = iter([f"z {eight}"])
    found = measure(groups, training)
    assert [one.copied_8 for one in found] == [1 / 2, None, None, 1 / 2]
    assert found == [
        replace(alone, copied_8=one.copied_8)
        for one, group in zip(found, groups, strict=True)
        for alone in measure([group])
    ]


@pytest.mark.parametrize("samples", [[], ["", " \n"]])
def test_without_words_nothing_is_told(samples: list[str]) -> None:
    [found] = map(asdict, measure([samples], training=["some text"]))
    assert (found.pop("samples"), found.pop("empty")) == (len(samples), len(samples))
    assert set(found.values()) == {None}


def test_hashes_keep_apart_what_differs_in_one_word_or_in_the_order() -> None:
    # Eight words of two kinds: 256 sequences, among them the likes of abab and baba.
    sequences = np.array([[bits >> place & 1 for place in range(8)] for bits in range(256)])
    hashes = np.concatenate([diversity._hashes(sequence, 8) for sequence in sequences])
    assert len(np.unique(hashes)) == 256
