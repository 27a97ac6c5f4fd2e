"""What the heads look at, against PyTorch's attention probabilities."""

from __future__ import annotations

import numpy as np

from gpt2.evaluation.attention import attention
from tests.golden_model import Golden


def test_attention_is_that_of_the_independent_implementation(golden: Golden) -> None:
    weights = golden.tensors("weights")
    for row in range(2):
        found = attention(weights, golden.hparams, golden.tokens[0][row].tolist())
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, golden.arrays["attention"][:, row], atol=1e-6)


def test_attention_of_a_beginning_is_the_beginning_of_the_attention(golden: Golden) -> None:
    tokens = golden.tokens[0][0].tolist()
    for length in (1, 5):
        found = attention(golden.tensors("weights"), golden.hparams, tokens[:length])
        expected = golden.arrays["attention"][:, 0, :, :length, :length]
        np.testing.assert_allclose(found, expected, atol=1e-6)
