"""The fast forward pass against the reference, function by function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import forward, model


def normal(*shape: int, seed: int = 1, scale: float = 1.0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32))


def value_and_gradients(
    function: Callable[..., tf.Tensor], *arguments: tf.Tensor
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the value and the gradients of a weighted sum, computed in a graph as in training."""

    @tf.function
    def both(*arguments: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = tf.cast(function(*arguments), tf.float32)
            total = tf.reduce_sum(result * _weights(result))
        return result, tape.gradient(total, arguments)

    value, gradients = both(*arguments)
    return value.numpy(), [gradient.numpy() for gradient in gradients]


def _weights(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.cos(tf.range(tf.size(x), dtype=tf.float32)), tf.shape(x))


def assert_same(
    found: Callable[..., tf.Tensor], wanted: Callable[..., tf.Tensor], *arguments: tf.Tensor
) -> None:
    value, gradients = value_and_gradients(found, *arguments)
    expected, expected_gradients = value_and_gradients(wanted, *arguments)
    np.testing.assert_allclose(value, expected, atol=2e-6, rtol=1e-5)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5, rtol=1e-5)


def test_gelu_equals_the_reference() -> None:
    assert_same(forward.gelu, model.gelu, normal(7, 12, scale=3))


def test_layer_norm_equals_the_reference() -> None:
    assert_same(
        forward.layer_norm,
        lambda x, g, b: model.layer_norm({"n/g": g, "n/b": b}, "n", x),
        normal(7, 12, scale=5) + 3,
        normal(12, seed=2),
        normal(12, seed=3),
    )


def test_linear_equals_the_reference() -> None:
    assert_same(
        forward.linear,
        lambda x, w, b: model.linear({"n/w": w, "n/b": b}, "n", x),
        normal(7, 12),
        normal(1, 12, 5, seed=2),
        normal(5, seed=3),
    )


@pytest.mark.parametrize("length", [1, 8, 9, 16, 21])
def test_sliced_attention_is_the_reference(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr(forward, "ATTENTION_ROWS", 8)
    assert_same(
        forward.causal_attention,
        lambda q, k, v: model.causal_attention(0, q, k, v),
        *(normal(2, 3, length, 4, seed=seed) for seed in range(3)),
    )


SEGMENTS = {
    21: [[0] * 5 + [1] * 9 + [2] + [3] * 6, [0] * 9 + [1] * 9 + [-1] * 3],
    16: [[0] * 8 + [1] * 8, [0] + [1] * 9 + [2] * 6],
    5: [[0, 1, 1, 2, 3], [0] * 5],
}


@pytest.mark.parametrize("length", SEGMENTS)
@pytest.mark.parametrize(("reach", "bands"), [(9, True), (9, False), (20, False), (None, True)])
def test_attention_in_segments_equals_that_of_each_segment(
    monkeypatch: pytest.MonkeyPatch, length: int, reach: int | None, bands: bool
) -> None:
    monkeypatch.setattr(forward, "ATTENTION_ROWS", 8)
    monkeypatch.setattr(forward, "band_rows", lambda reach: reach - 1 if bands else None)
    segments = np.array(SEGMENTS[length], np.int32)
    same = segments[:, None, :, None] == segments[:, None, None, :]
    visible = same & np.tri(length, dtype=bool)
    assert_same(
        lambda q, k, v: forward.causal_attention(q, k, v, segments=segments, reach=reach),
        lambda q, k, v: model.scaled_dot_product(q, k, v, tf.constant(visible)),
        *(normal(2, 3, length, 4, seed=seed) for seed in range(3)),
    )


def test_keys_out_of_reach_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "ATTENTION_ROWS", 8)
    shapes: list[tuple[int, ...]] = []
    softmax = forward._segment_softmax

    def seen(scores: tf.Tensor, *segments: tf.Tensor) -> tf.Tensor:
        shapes.append(tuple(scores.shape[2:]))
        return softmax(scores, *segments)

    monkeypatch.setattr(forward, "_segment_softmax", seen)
    arrays = [normal(1, 1, 32, 4) for _ in range(3)]
    segments = np.arange(32)[None] // 4
    for rows in (None, 4):
        monkeypatch.setattr(forward, "band_rows", lambda reach, rows=rows: rows)
        forward.causal_attention(*arrays, segments=segments, reach=4)
    assert shapes == [(8, 8), (8, 11), (8, 11), (8, 11), (8, 4, 8)]


@pytest.mark.parametrize("length", [32, 30])  # whole blocks, and the last one in part
def test_the_gradient_in_blocks_avoids_the_slow_gradient_of_indexing(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(forward, "band_rows", lambda reach: reach)

    def gradients(*arrays: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            segments = np.arange(length)[None] // 4
            attended = forward.causal_attention(*arrays, segments=segments, reach=4)
        return tape.gradient(attended, arrays)

    arrays = [normal(1, 1, length, 4) for _ in range(3)]
    traced = tf.function(gradients).get_concrete_function(*arrays).graph
    kinds = {operation.type for operation in traced.get_operations()}
    assert "BatchMatMulV2" in kinds and "StridedSliceGrad" not in kinds


def test_attention_of_unknown_length_equals_the_reference() -> None:
    query, key, value = (normal(2, 3, 9, 4, seed=seed) for seed in range(3))
    unknown = tf.TensorSpec([2, 3, None, 4])
    found = tf.function(forward.causal_attention, input_signature=[unknown] * 3)
    np.testing.assert_allclose(
        found(query, key, value), model.causal_attention(0, query, key, value), atol=1e-6
    )


def plain_cross_entropy(x: tf.Tensor, embeddings: tf.Tensor, targets: np.ndarray) -> tf.Tensor:
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=targets[targets >= 0],
        logits=tf.matmul(x, embeddings, transpose_b=True)[targets >= 0],
    )
    return tf.reduce_mean(nats)


@pytest.mark.parametrize("rows", [1, 8, 9, 30])
def test_sliced_cross_entropy_equals_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(forward, "LOSS_ROWS", 8)
    targets = np.random.default_rng(rows).integers(0, 50, rows).astype(np.int32)
    assert_same(
        lambda x, table: forward.cross_entropy(x, table, targets, tf.float32),
        lambda x, table: plain_cross_entropy(x, table, targets),
        normal(rows, 12),
        normal(50, 12, seed=2),
    )


def test_padding_targets_are_ignored() -> None:
    targets = np.array([3, -1, 0, 49, -1, -1], np.int32)
    x, table = normal(6, 12), normal(50, 12, seed=2)
    assert_same(
        lambda x, table: forward.cross_entropy(x, table, targets, tf.float32),
        lambda x, table: plain_cross_entropy(x, table, targets),
        x,
        table,
    )
    nothing = np.full(6, -1, np.int32)
    assert float(forward.cross_entropy(x, table, nothing, tf.float32)) == 0


@pytest.mark.parametrize("rows", [5, 16, 40])
def test_cross_entropy_of_an_unknown_number_of_rows(rows: int) -> None:
    targets = np.random.default_rng(rows).integers(0, 50, rows).astype(np.int32)
    x, table = normal(rows, 12), normal(50, 12, seed=2)

    @tf.function(input_signature=[tf.TensorSpec([None, 12]), tf.TensorSpec([None], tf.int32)])
    def gradient(x: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = forward.cross_entropy(x, table, targets, tf.float32)
        return tape.gradient(loss, x)

    _, (expected, _) = value_and_gradients(
        lambda x, table: forward.cross_entropy(x, table, targets, tf.float32), x, table
    )
    np.testing.assert_allclose(gradient(x, targets), expected, atol=1e-6)


def test_the_loss_without_gradient_is_the_same() -> None:
    targets = np.arange(9, dtype=np.int32)
    x, table = normal(9, 12), normal(50, 12, seed=2)
    losses = [
        float(forward.cross_entropy(x, table, targets, tf.float32, gradient))
        for gradient in (True, False)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.bfloat16, 0.02), (tf.float16, 0.003)])
def test_shifted_logits_lose_no_accuracy_in_16_bits(dtype: tf.DType, tolerance: float) -> None:
    # Logits of the released models are near -100, where neighboring bfloat16 numbers are 0.5 apart.
    x = tf.concat([normal(40, 31), tf.fill([40, 1], 8.0)], 1)
    table = tf.concat([normal(500, 31, seed=2, scale=0.4), tf.fill([500, 1], -12.5)], 1)
    targets = np.random.default_rng(3).integers(0, 500, 40).astype(np.int32)
    exact = float(plain_cross_entropy(x, table, targets))
    found = float(forward.cross_entropy(x, table, targets, dtype))
    assert found == pytest.approx(exact, abs=tolerance)


def test_embeddings_get_the_gradients_of_both_uses() -> None:
    tokens = np.array([2, 0, 2, 4], np.int32)

    def found(table: tf.Tensor) -> tf.Tensor:
        rows, again = forward.embed(tokens, table)
        return tf.matmul(rows, again, transpose_b=True)

    def wanted(table: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.gather(table, tokens), table, transpose_b=True)

    assert_same(found, wanted, normal(5, 3))


def test_dropout_keeps_the_mean_and_drops_the_given_share() -> None:
    dropped = forward.dropout(tf.ones([400, 500]), 0.1, tf.constant([1, 2])).numpy()
    # The standard deviation of the share over 200,000 draws is 0.0007.
    assert (dropped == 0).mean() == pytest.approx(0.1, abs=0.004)
    assert dropped.mean() == pytest.approx(1, abs=0.004)
    assert np.unique(dropped) == pytest.approx([0, 1 / 0.9])


def test_dropout_depends_on_the_seed_and_masks_value_and_gradient_alike() -> None:
    seeds = [tf.constant([1, 2]), tf.constant([1, 2]), tf.constant([1, 3])]
    x = normal(20, 30)
    found = [value_and_gradients(lambda x, s=s: forward.dropout(x, 0.5, s), x) for s in seeds]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert (found[0][0] != found[2][0]).any()
    np.testing.assert_array_equal(found[0][0] == 0, found[0][1][0] == 0)


def test_attention_with_dropout_has_the_gradient_of_its_mask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "ATTENTION_ROWS", 4)
    seed = tf.constant([5, 6])
    query, key, value = (normal(1, 2, 6, 3, seed=number) for number in range(3))

    def total(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        attended = forward.causal_attention(query, key, value, 0.3, seed)
        return tf.reduce_sum(attended * _weights(attended))

    _, gradients = value_and_gradients(
        lambda q, k, v: forward.causal_attention(q, k, v, 0.3, seed), query, key, value
    )
    # Finite differences along a random direction of each argument.
    arguments = [query, key, value]
    for number, gradient in enumerate(gradients):
        direction = normal(*arguments[number].shape, seed=9)
        step = 1e-2
        ends = []
        for sign in (1, -1):
            moved = list(arguments)
            moved[number] = moved[number] + sign * step * direction
            ends.append(float(total(*moved)))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(tf.reduce_sum(gradient * direction)) == pytest.approx(slope, abs=2e-3)


def test_gradient_checkpointing_keeps_the_gradients() -> None:
    def function(x: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        return tf.tanh(tf.matmul(tf.tanh(x), matrix))

    assert_same(
        forward.gradient_checkpointed(function), function, normal(4, 5), normal(5, 6, seed=2)
    )
