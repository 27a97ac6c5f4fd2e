"""The training loss: whole passes against the reference model, and each compute setting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import forward, model
from gpt2.data.datasets import DocumentSet, collect
from gpt2.data.samplers import Batch, DocumentSampler
from gpt2.data.tokenization import TokenizedDocument
from gpt2.forward import ComputeSettings
from gpt2.hparams import HParams
from gpt2.training.loss import next_token_loss
from tests.golden_model import Golden

SEED = tf.constant([3, 4], tf.int64)


def loss_and_gradients(
    golden: Golden,
    settings: ComputeSettings,
    seed: tf.Tensor | None = None,
    batch: Batch | None = None,
) -> tuple[float, dict[str, np.ndarray]]:
    weights = {name: tf.constant(array) for name, array in golden.tensors("weights").items()}

    @tf.function
    def both() -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = next_token_loss(
                weights, golden.hparams, batch or golden.batches[0], settings, seed
            )
        return value, tape.gradient(value, weights)

    value, gradients = both()
    return float(value), {n: tf.convert_to_tensor(g).numpy() for n, g in gradients.items()}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_are_those_of_the_independent_implementation(
    golden: Golden, checkpointing: bool
) -> None:
    # The weights are tensors here and variables in training; both must get gradients.
    found, gradients = loss_and_gradients(
        golden, ComputeSettings(gradient_checkpointing=checkpointing)
    )
    assert found == pytest.approx(float(golden.arrays["loss"]), rel=1e-5)
    for name, expected in golden.tensors("gradients").items():
        np.testing.assert_allclose(gradients[name], expected, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
    ("precision", "of_loss", "of_gradients"), [("bfloat16", 2e-3, 0.03), ("float16", 3e-4, 0.004)]
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_16_bit_results_are_close_to_float32(
    golden: Golden, precision: str, of_loss: float, of_gradients: float, checkpointing: bool
) -> None:
    settings = ComputeSettings(precision=precision, gradient_checkpointing=checkpointing)
    found, gradients = loss_and_gradients(golden, settings)
    assert found == pytest.approx(float(golden.arrays["loss"]), rel=of_loss)
    for name, expected in golden.tensors("gradients").items():
        gradient = gradients[name]
        assert gradient.dtype == np.float32
        if name.endswith("c_attn/b"):  # the exact gradient of the keys' bias is 0
            width = golden.hparams.n_embd
            gradient, expected = (
                np.delete(a, slice(width, 2 * width)) for a in (gradient, expected)
            )
        error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
        assert error < of_gradients, name


def test_the_loss_equals_that_of_the_reference_at_any_length() -> None:
    hparams = HParams(n_vocab=90, n_ctx=20, n_embd=12, n_head=3, n_layer=2)
    weights = model.initial_weights(hparams, seed=1)
    tokens = np.random.default_rng(2).integers(0, 90, (3, 18)).astype(np.int32)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2)
    def found(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return next_token_loss(
            weights, hparams, Batch(inputs, targets), ComputeSettings(gradient=False)
        )

    for length in (1, 7, 17):
        inputs, targets = tokens[:, :length], tokens[:, 1 : length + 1]
        logits = model.logits(weights, hparams, inputs)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
        assert float(found(inputs, targets)) == pytest.approx(float(tf.reduce_mean(nats)), rel=1e-5)


def test_padding_changes_nothing(golden: Golden) -> None:
    weights = golden.tensors("weights")
    batch = golden.tokens[0].astype(np.int32)
    padded = np.concatenate([batch, np.full_like(batch[:, :3], -1)], axis=1)
    losses = [
        float(next_token_loss(weights, golden.hparams, Batch.of_rows(b)))
        for b in (batch, padded[:, : golden.hparams.n_ctx + 1])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


LENGTHS = [[3, 5, 2, 6], [14], [1, 1, 9, 3], [16]]  # of examples, in rows of 16


def packed_and_padded(golden: Golden) -> tuple[Batch, Batch]:
    """The same examples in a packed batch, and each in a row of its own."""
    random = np.random.default_rng(5)
    size = golden.hparams.n_ctx
    padded = np.full((sum(map(len, LENGTHS)), size + 1), -1, np.int32)
    fields = [np.full((len(LENGTHS), size), -1, np.int32) for _ in range(4)]
    examples = iter(padded)
    for *arrays, lengths in zip(*fields, LENGTHS, strict=True):
        begin = 0
        for number, length in enumerate(lengths):
            tokens = random.integers(0, golden.hparams.n_vocab, length + 1)
            next(examples)[: length + 1] = tokens
            values = tokens[:-1], tokens[1:], np.arange(length), number
            for array, value in zip(arrays, values, strict=True):
                array[begin : begin + length] = value
            begin += length
    fields[2] = np.maximum(fields[2], 0)
    return Batch(*fields, reach=16), Batch.of_rows(padded)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_packed_examples_have_the_loss_and_gradients_of_padded_ones(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, precision: str, checkpointing: bool
) -> None:
    monkeypatch.setattr(forward, "ATTENTION_ROWS", 4)
    settings = ComputeSettings(precision=precision, gradient_checkpointing=checkpointing)
    (found, gradients), (wanted, expected) = (
        loss_and_gradients(golden, settings, batch=batch) for batch in packed_and_padded(golden)
    )
    exact = precision == "float32"
    assert found == pytest.approx(wanted, rel=1e-6 if exact else 1e-3)
    for name, gradient in gradients.items():
        tolerance = 1e-6 if exact else 0.02 * np.abs(expected[name]).max() + 1e-4
        np.testing.assert_allclose(gradient, expected[name], atol=tolerance, err_msg=name)


def test_the_examples_of_a_packed_batch_are_those_that_were_packed(golden: Golden) -> None:
    packed, padded = packed_and_padded(golden)
    for found, expected in zip(packed.examples(), padded.examples(), strict=True):
        length = found.inputs.shape[1]
        assert found.inputs.tolist() == expected.inputs[:, :length].tolist()
        assert found.targets.tolist() == expected.targets[:, :length].tolist()
        assert found.target_count == expected.target_count == length


def test_dropout_depends_on_the_seed_with_gradient_checkpointing_too(
    golden: Golden,
) -> None:
    kept = loss_and_gradients(golden, ComputeSettings(dropout=0.2), SEED)
    again = loss_and_gradients(
        golden, ComputeSettings(dropout=0.2, gradient_checkpointing=True), SEED
    )
    other = loss_and_gradients(golden, ComputeSettings(dropout=0.2), SEED + 1)
    assert kept[0] == again[0] != other[0]
    for name, gradient in kept[1].items():
        np.testing.assert_allclose(gradient, again[1][name], atol=1e-6, err_msg=name)


def test_each_use_of_dropout_has_its_own_seed(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = forward.dropout

    def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
        seen.append(tuple(seed.numpy()))
        return original(x, rate, seed)

    monkeypatch.setattr(forward, "dropout", dropout)
    next_token_loss(
        golden.tensors("weights"),
        golden.hparams,
        golden.batches[0],
        ComputeSettings(dropout=0.1),
        SEED,
    )
    # The embeddings; in each layer the attention probabilities, attention output and MLP output.
    assert len(seen) == len(set(seen)) == 1 + 3 * golden.hparams.n_layer


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_logits_of_a_whole_batch_never_exist_at_once(checkpointing: bool) -> None:
    # One row more than a slice, and a vocabulary that is larger than every other size.
    rows = forward.LOSS_ROWS + 1
    hparams = HParams(n_vocab=5000, n_ctx=rows, n_embd=8, n_head=2, n_layer=1)
    weights = model.initial_weights(hparams, seed=1)

    @tf.function
    def gradients(inputs: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = {name: tf.convert_to_tensor(array) for name, array in weights.items()}
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            settings = ComputeSettings(gradient_checkpointing=checkpointing)
            value = next_token_loss(tensors, hparams, Batch(inputs, targets), settings)
        return tape.gradient(value, tensors)

    spec = tf.TensorSpec([1, rows], tf.int32)
    graph = gradients.get_concrete_function(spec, spec).graph
    sizes = [
        math.prod(tensor.shape)
        for part in (graph, *(f.graph for f in graph._functions.values() if hasattr(f, "graph")))
        for operation in part.get_operations()
        for tensor in operation.outputs
        if tensor.shape.is_fully_defined()
    ]
    half = -(-rows // 2) * hparams.n_vocab
    assert half in sizes, "the slices have another size than this test expects"
    assert max(sizes) < rows * hparams.n_vocab


def test_hardware_precision_follows_the_hardware() -> None:
    assert forward._cpu_precision("flags\t\t: fpu avx2 avx512f avx512_bf16 clzero\n") == "bfloat16"
    assert forward._cpu_precision("flags\t\t: fpu avx2 avx512f avx512_vnni\n") == "float32"
    assert forward._cpu_precision("") == "float32"
    assert forward._gpu_precision((8, 0)) == "bfloat16"
    assert forward._gpu_precision((7, 5)) == "float16"
    assert forward._gpu_precision((6, 1)) == "float32"
    assert forward.hardware_precision() in ("bfloat16", "float16", "float32")


# --- the loss on completions ---


@pytest.fixture
def pairs(golden: Golden) -> DocumentSet:
    """Examples of the golden batches' tokens; which of them are completions is random."""
    random = np.random.default_rng(5)
    rows = golden.tokens[:3].reshape(6, -1)
    lengths = (16, 9, 13, 2, 5, 16)
    return collect(
        (
            TokenizedDocument(
                row[:length].astype(np.uint16), "a.jsonl", random.random(length) < 0.4
            )
            for row, length in zip(rows, lengths, strict=True)
        ),
        endoftext=0,
        masked=True,
    )


def test_the_loss_on_completions_is_that_of_a_direct_computation(
    golden: Golden, pairs: DocumentSet
) -> None:
    # Each document by itself, <|endoftext|> first, with the reference model and without masks: the
    # loss of every token, of which those of completions are averaged.
    weights = {name: tf.constant(array) for name, array in golden.tensors("weights").items()}
    with tf.GradientTape() as tape:
        tape.watch(weights)
        nats = []
        for number, begin, end in pairs.places.tolist():
            tokens = [0, *pairs.chunks[number][begin:end].tolist()]
            scores = model.logits(weights, golden.hparams, tf.constant([tokens[:16]]))[0]
            log_probabilities = tf.nn.log_softmax(scores)
            for place in range(1, len(tokens)):
                if pairs.masks[number][begin + place - 1]:
                    nats.append(-log_probabilities[place - 1, tokens[place]])
        expected = tf.add_n(nats) / len(nats)
    expected_gradients = tape.gradient(expected, weights)

    batch = DocumentSampler(pairs, golden.hparams.n_ctx, seed=1).batch(0, 6)
    assert batch.target_count == len(nats) == np.count_nonzero(pairs.masks[0])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        found = next_token_loss(weights, golden.hparams, batch)
    gradients = tape.gradient(found, weights)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(
            gradient, tf.convert_to_tensor(expected_gradients[name]), atol=3e-6, err_msg=name
        )


def test_masked_targets_leave_the_loss_of_the_independent_implementation(golden: Golden) -> None:
    # PyTorch's logits of the first batch, in float64 from here.
    logits = golden.arrays["logits"].astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows = golden.tokens[0]
    masks = np.random.default_rng(7).random(rows.shape) < 0.5
    documents = collect(
        (TokenizedDocument(row, "a.jsonl", mask) for row, mask in zip(rows, masks, strict=True)),
        masked=True,
    )
    expected = -np.mean(
        [
            log_probabilities[row, place - 1, rows[row, place]]
            for row, place in np.argwhere(masks)
            if place > 0
        ]
    )
    weights = {name: tf.constant(array) for name, array in golden.tensors("weights").items()}
    batch = DocumentSampler(documents, golden.hparams.n_ctx, seed=0).batch(0, 2)
    found = next_token_loss(weights, golden.hparams, batch)
    assert float(found) == pytest.approx(expected, rel=1e-5)
