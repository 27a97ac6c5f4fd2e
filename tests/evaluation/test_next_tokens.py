"""The next token's probabilities along a text, against softmaxes written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt2.evaluation.next_tokens import next_tokens, probabilities
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.sampling import SamplingSettings
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer
from tests.golden_model import Golden

# Scores whose softmax is 0.5, 0.25, 0.15, 0.1, in another order.
SHARES = {2: 0.5, 0: 0.25, 3: 0.15, 1: 0.1}
LOGITS = np.array([math.log(SHARES[token]) + 3 for token in range(4)], np.float32)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {2: 0.5, 0: 0.25, 3: 0.15, 1: 0.1}),
        ({"top_k": 2}, {2: 2 / 3, 0: 1 / 3}),
        ({"top_p": 0.8}, {2: 0.5 / 0.9, 0: 0.25 / 0.9, 3: 0.15 / 0.9}),
        ({"temperature": 0}, {2: 1}),
        # At temperature 0.5 the probabilities are squared.
        ({"temperature": 0.5}, {n: share**2 / 0.345 for n, share in SHARES.items()}),
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.9}, {2: 0.8, 0: 0.2}),
    ],
)
def test_probabilities_by_hand(settings: dict, expected: dict[int, float]) -> None:
    found = probabilities(LOGITS, SamplingSettings(**settings))
    np.testing.assert_allclose(found, [expected.get(n, 0) for n in range(4)], atol=1e-7)


@pytest.fixture
def model(golden: Golden) -> LanguageModel:
    """The golden model with a vocabulary of as many tokens."""
    hparams: HParams = golden.hparams
    tokenizer = Tokenizer({chr(33 + n): n for n in range(hparams.n_vocab)}, [])
    return LanguageModel(TensorFlowEngine(golden.tensors("weights"), hparams), hparams, tokenizer)


def test_each_step_has_the_probabilities_of_the_independent_implementation(
    golden: Golden, model: LanguageModel
) -> None:
    tokens = golden.tokens[0][0].tolist()
    scores = golden.arrays["logits"][0].astype(np.float64)
    steps = list(next_tokens(model, tokens, SamplingSettings(top_k=1), last=17))
    assert [step.token for step in steps] == [*tokens, None]
    assert [step.context for step in steps] == [tuple(tokens[:n]) for n in range(17)]
    for place, step in enumerate(steps[1:]):
        expected = np.exp(scores[place]) / np.exp(scores[place]).sum()
        np.testing.assert_allclose(step.before, expected, atol=1e-6)
        assert step.after[expected.argmax()] == 1 and step.after.sum() == 1
        order = sorted(range(len(expected)), key=lambda token: -expected[token])
        assert step.likeliest(5).tolist() == order[:5]
        assert step.rank(order[7]) == 8


def test_only_the_last_steps_are_taken_and_long_texts_slide_through_the_window(
    golden: Golden, model: LanguageModel
) -> None:
    tokens = golden.tokens[0].ravel().tolist()  # twice the window
    steps = list(next_tokens(model, tokens, SamplingSettings(), last=2))
    assert [step.token for step in steps] == [tokens[-1], None]
    scores = golden.arrays["logits"][0 + 1, -1].astype(np.float64)
    expected = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(steps[1].before, expected, atol=1e-6)
