"""Each token but the first is predicted once, from what stands before it in its window."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.evaluation import perplexity
from gpt2.evaluation.perplexity import bits_per_byte, negative_log_likelihood
from tests.golden_model import Golden


def test_a_single_window_costs_the_loss_of_the_independent_implementation(golden: Golden) -> None:
    # The golden loss is the mean over two rows of 16 tokens, 15 of which are predicted.
    weights = golden.tensors("weights")
    nats = [negative_log_likelihood(weights, golden.hparams, row) for row in golden.tokens[0]]
    assert sum(nats) / 30 == pytest.approx(float(golden.arrays["loss"]), rel=1e-5)


@pytest.mark.parametrize("length", [2, 16, 17, 18, 33, 37])
def test_the_sum_is_that_of_each_token_predicted_by_itself(golden: Golden, length: int) -> None:
    tokens = golden.tokens.ravel()[:length]
    weights, window = golden.tensors("weights"), golden.hparams.n_ctx
    expected = 0.0
    for place in range(1, length):
        # Windows of n_ctx inputs follow one another: token 17 is the first of the second window,
        # and predicted from token 16 alone.
        start = (place - 1) // window * window
        before = tf.constant(tokens[None, start:place], tf.int32)
        scores = model.logits(weights, golden.hparams, before).numpy()[0, -1].astype(np.float64)
        expected += math.log(np.exp(scores).sum()) - scores[tokens[place]]
    assert negative_log_likelihood(weights, golden.hparams, tokens) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize(("length", "windows"), [(2, 1), (17, 1), (18, 2), (33, 2), (34, 3)])
def test_progress_counts_the_windows(golden: Golden, length: int, windows: int) -> None:
    seen = []

    def progress(given):
        seen.append(len(given))
        return given

    tokens = golden.tokens.ravel()[:length]
    negative_log_likelihood(golden.tensors("weights"), golden.hparams, tokens, progress)
    assert seen == [windows]


def test_small_token_types_are_taken(golden: Golden) -> None:
    weights, tokens = golden.tensors("weights"), golden.tokens.ravel()[:40]
    expected = negative_log_likelihood(weights, golden.hparams, tokens)
    assert negative_log_likelihood(weights, golden.hparams, tokens.astype(np.uint16)) == expected


def test_the_graph_does_not_hold_copies_of_the_weights(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays would be copied into it at each use, gigabytes of a large model."""
    used = []

    def watched(logits: Callable) -> Callable:
        def call(weights: model.Weights, *rest: object) -> tf.Tensor:
            used.extend(weights.values())
            return logits(weights, *rest)

        return call

    monkeypatch.setattr(perplexity.model, "logits", watched(model.logits))
    negative_log_likelihood(golden.tensors("weights"), golden.hparams, golden.tokens[0, 0])
    assert used
    assert all(tf.is_tensor(weight) for weight in used)


def test_bits_per_byte_by_hand() -> None:
    # 8 nats times ln 2 are 8 bits, for 4 bytes.
    assert bits_per_byte(8 * math.log(2), 4) == pytest.approx(2)
    # One token of three bytes, guessed among 64 equally likely: 6 bits.
    assert bits_per_byte(math.log(64), 3) == pytest.approx(2)
