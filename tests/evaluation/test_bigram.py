"""The bigram model's probabilities by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt2.evaluation import bigram
from gpt2.evaluation.bigram import AddK, BigramModel, Counts, Interpolated

# The pairs are 01 twice, 10 twice and 02 once. So 0 stood first three times, followed by two kinds
# of token, 1 twice, followed by one, and 2 and 3 never. The tokens themselves occur 3, 2, 1 and 0
# times; with one added to each, of ten: 0.4, 0.3, 0.2, 0.1.
TOKENS = np.array([0, 1, 0, 1, 0, 2])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_probabilities_by_hand(dtype: type) -> None:
    model = Interpolated(Counts([TOKENS.astype(dtype)], 4))
    expected = [
        # After 0 the pairs weigh 3 / (3 + 2): 0.6 * count / 3 + 0.4 * p(b).
        [0.16, 0.6 * 2 / 3 + 0.12, 0.6 * 1 / 3 + 0.08, 0.04],
        # After 1 they weigh 2 / (2 + 1): 2/3 * count / 2 + 1/3 * p(b).
        [2 / 3 + 0.4 / 3, 0.1, 0.2 / 3, 0.1 / 3],
        [0.4, 0.3, 0.2, 0.1],
        [0.4, 0.3, 0.2, 0.1],
    ]
    before, after = np.divmod(np.arange(16), 4)
    ours = model.probabilities(before.astype(dtype), after.astype(dtype)).reshape(4, 4)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_the_nats_of_a_text_by_hand() -> None:
    model = Interpolated(Counts([TOKENS], 4))
    # 0 after 2, then 1 after 0, then 3 after 1.
    expected = -math.log(0.4) - math.log(0.52) - math.log(0.1 / 3)
    assert model.negative_log_likelihood(np.array([2, 0, 1, 3])) == pytest.approx(expected)
    assert model.negative_log_likelihood(np.array([2])) == 0


@pytest.mark.parametrize("kind", [Interpolated, AddK])
def test_probabilities_sum_to_one_after_every_token(kind: type[BigramModel]) -> None:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    n_vocab = 300
    # A third of the vocabulary is never seen, and some tokens only at the very end.
    tokens = np.append(random.integers(0, 200, 1000), 250)
    model = kind(Counts([tokens], n_vocab))
    before, after = np.divmod(np.arange(n_vocab * n_vocab), n_vocab)
    sums = model.probabilities(before, after).reshape(n_vocab, n_vocab).sum(axis=1)
    np.testing.assert_allclose(sums, 1, rtol=1e-9)


def test_a_vocabulary_of_gpt2s_size_does_not_overflow() -> None:
    # 50256 * 50257 is more than 32 bits hold.
    model = Interpolated(Counts([np.array([50256, 50256, 50255], np.int32)], 50257))
    last = np.array([50256], np.uint16)
    # Two pairs of two kinds: half of 1/2 and half of the token alone, 3 of 50260.
    assert model.probabilities(last, last)[0] == pytest.approx(0.25 + 0.5 * 3 / 50260)


def test_a_text_of_one_token_has_no_pairs_but_makes_a_model() -> None:
    model = Interpolated(Counts([np.array([1])], 3))
    ours = model.probabilities(np.array([1, 1]), np.array([1, 2]))
    np.testing.assert_allclose(ours, [2 / 4, 1 / 4])


def test_counts_do_not_depend_on_how_the_text_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigram, "BLOCK", 7)
    tokens = np.random.default_rng(1).integers(0, 20, 200)
    whole = Counts([tokens], 20)
    parts = Counts(np.split(tokens, [3, 3, 60, 61, 190]), 20)
    before, after = np.divmod(np.arange(400), 20)
    expected = [np.sum((tokens[:-1] == a) & (tokens[1:] == b)) for a, b in np.ndindex(20, 20)]
    for counts in (whole, parts):
        np.testing.assert_array_equal(counts.of(before, after), expected)
        np.testing.assert_array_equal(counts.singles, np.bincount(tokens))
        np.testing.assert_array_equal(counts.firsts, np.bincount(tokens[:-1], minlength=20))


def test_adding_k_by_hand() -> None:
    model = AddK(Counts([TOKENS], 4), k=0.5)
    # After 0, which stood first three times: 1 twice, 2 once, of 3 + 4 * 0.5.
    ours = model.probabilities(np.array([0, 0, 0, 3]), np.array([1, 2, 3, 1]))
    np.testing.assert_allclose(ours, [2.5 / 5, 1.5 / 5, 0.5 / 5, 0.5 / 2])


def test_k_is_the_one_that_predicts_each_pair_best_from_the_others() -> None:
    tokens = np.random.default_rng(2).zipf(1.5, 300) % 30
    counts = Counts([tokens], 30)

    def left_out(k: float) -> float:
        total = 0.0
        for place in range(1, len(tokens)):
            a, b = tokens[place - 1 : place + 1]
            pairs = [p for p in range(1, len(tokens)) if p != place and tokens[p - 1] == a]
            same = sum(tokens[p] == b for p in pairs)
            total -= math.log((same + k) / (len(pairs) + 30 * k))
        return total

    best = AddK(counts).k
    assert best == min(bigram.ADDED, key=left_out)
    assert min(bigram.ADDED) < best < max(bigram.ADDED)


def test_a_sample_is_drawn_by_the_probabilities() -> None:
    model = Interpolated(Counts([TOKENS], 4))
    random = np.random.default_rng(3)
    drawn = [model.sample(0, 1, random)[0] for _ in range(4000)]
    # The first row of the probabilities above.
    np.testing.assert_allclose(
        np.bincount(drawn, minlength=4) / 4000, [0.16, 0.52, 0.28, 0.04], atol=0.03
    )
    assert len(model.sample(0, 25, random)) == 25
    # After 3 every token is drawn, in the end 3 itself.
    assert 3 not in model.sample(0, 1000, random, end=3)
