"""The reference forward pass against PyTorch's, and properties of GPT-2."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams
from tests.golden_model import Golden


def test_logits_are_those_of_the_independent_implementation(golden: Golden) -> None:
    logits = model.logits(
        golden.tensors("weights"), golden.hparams, tf.constant(golden.tokens[0], tf.int32)
    )
    np.testing.assert_allclose(logits, golden.arrays["logits"], atol=1e-5)


def test_attention_is_that_of_the_independent_implementation(golden: Golden) -> None:
    seen = {}

    def attend(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        # With the identity matrix as values, the output is the attention probabilities.
        length = key.shape[2]
        identity = tf.eye(length, batch_shape=key.shape[:2])
        seen[layer] = model.causal_attention(layer, query, key, identity)
        return model.causal_attention(layer, query, key, value)

    tokens = tf.constant(golden.tokens[0], tf.int32)
    model.hidden_states(
        golden.tensors("weights"), golden.hparams, tokens, tf.range(tokens.shape[1]), attend
    )
    for layer, expected in enumerate(golden.arrays["attention"]):
        np.testing.assert_allclose(seen[layer], expected, atol=1e-6)


def test_a_position_does_not_attend_to_later_tokens(golden: Golden) -> None:
    weights, tokens = golden.tensors("weights"), golden.tokens[0].copy()
    before = model.logits(weights, golden.hparams, tf.constant(tokens, tf.int32))
    tokens[:, 9:] = (tokens[:, 9:] + 1) % golden.hparams.n_vocab
    after = model.logits(weights, golden.hparams, tf.constant(tokens, tf.int32))
    np.testing.assert_allclose(before[:, :9], after[:, :9], atol=1e-6)
    assert np.abs(before[:, 9:] - after[:, 9:]).min(axis=(0, 2)).max() > 0


def test_gelu_is_the_tanh_approximation() -> None:
    # 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) at 1: 0.841192; the exact form has 0.841345.
    assert float(model.gelu(tf.constant(1.0))) == pytest.approx(0.841192, abs=1e-6)


def test_layer_norm_by_hand() -> None:
    # 1, 2, 3, 6: mean 3, variance 3.5.
    weights = {"n/g": tf.constant([1.0, 1, 1, 2]), "n/b": tf.constant([0.0, 0, 5, 0])}
    normed = model.layer_norm(weights, "n", tf.constant([[1.0, 2, 3, 6]]))
    scale = (3.5 + 1e-5) ** -0.5
    np.testing.assert_allclose(normed, [[-2 * scale, -scale, 5, 6 * scale]], rtol=1e-6)


def test_initial_weights_have_the_papers_deviations_and_depend_only_on_the_seed() -> None:
    hparams = HParams(n_vocab=500, n_ctx=400, n_embd=64, n_head=4, n_layer=8)
    weights = model.initial_weights(hparams, seed=3)
    assert {name: array.shape for name, array in weights.items()} == hparams.tensor_shapes()
    assert weights["model/wte"].std() == pytest.approx(0.02, rel=0.05)
    assert weights["model/wpe"].std() == pytest.approx(0.01, rel=0.05)
    assert weights["model/h0/mlp/c_fc/w"].std() == pytest.approx(0.02, rel=0.05)
    # 16 matrices write into the residual stream of 8 layers: 0.02 / sqrt(16).
    assert weights["model/h7/mlp/c_proj/w"].std() == pytest.approx(0.005, rel=0.05)
    again = model.initial_weights(hparams, seed=3)
    assert all((weights[name] == again[name]).all() for name in weights)
    assert (weights["model/wte"] != model.initial_weights(hparams, seed=4)["model/wte"]).any()
