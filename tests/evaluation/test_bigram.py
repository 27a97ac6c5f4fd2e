"""The bigram model's probabilities by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt2.evaluation.bigram import BigramModel

# The pairs are 01 twice, 10 twice and 02 once. So 0 stood first three times, followed by two kinds
# of token, 1 twice, followed by one, and 2 and 3 never. The tokens themselves occur 3, 2, 1 and 0
# times; with one added to each, of ten: 0.4, 0.3, 0.2, 0.1.
TOKENS = np.array([0, 1, 0, 1, 0, 2])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_probabilities_by_hand(dtype: type) -> None:
    model = BigramModel(TOKENS.astype(dtype), 4)
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
    model = BigramModel(TOKENS, 4)
    # 0 after 2, then 1 after 0, then 3 after 1.
    expected = -math.log(0.4) - math.log(0.52) - math.log(0.1 / 3)
    assert model.negative_log_likelihood(np.array([2, 0, 1, 3])) == pytest.approx(expected)
    assert model.negative_log_likelihood(np.array([2])) == 0


def test_probabilities_sum_to_one_after_every_token() -> None:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    n_vocab = 300
    # A third of the vocabulary is never seen, and some tokens only at the very end.
    tokens = np.append(random.integers(0, 200, 1000), 250)
    model = BigramModel(tokens, n_vocab)
    before, after = np.divmod(np.arange(n_vocab * n_vocab), n_vocab)
    sums = model.probabilities(before, after).reshape(n_vocab, n_vocab).sum(axis=1)
    np.testing.assert_allclose(sums, 1, rtol=1e-9)


def test_a_vocabulary_of_gpt2s_size_does_not_overflow() -> None:
    # 50256 * 50257 is more than 32 bits hold.
    model = BigramModel(np.array([50256, 50256, 50255], np.int32), 50257)
    last = np.array([50256], np.uint16)
    # Two pairs of two kinds: half of 1/2 and half of the token alone, 3 of 50260.
    assert model.probabilities(last, last)[0] == pytest.approx(0.25 + 0.5 * 3 / 50260)


def test_a_text_of_one_token_has_no_pairs_but_makes_a_model() -> None:
    model = BigramModel(np.array([1]), 3)
    ours = model.probabilities(np.array([1, 1]), np.array([1, 2]))
    np.testing.assert_allclose(ours, [2 / 4, 1 / 4])
