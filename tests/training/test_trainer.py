"""Training steps against PyTorch's, and the settings that change them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import tensorflow as tf

from gpt2.data.datasets import documents_in
from gpt2.data.samplers import PADDING, Batch, DocumentSampler
from gpt2.errors import UserError
from gpt2.training.loss import LossScale
from gpt2.training.settings import OPTIMIZERS, TrainerSettings
from gpt2.training.trainer import StepResult, Trainer
from tests.golden_model import Golden
from tests.training.test_loss import packed_and_padded


def trainer(golden: Golden, **settings: object) -> Trainer:
    return Trainer(golden.tensors("weights"), golden.hparams, TrainerSettings(**settings), seed=0)


def assert_weights(trained: Trainer, expected: dict[str, np.ndarray], atol: float) -> None:
    width = trained.hparams.n_embd
    for name, variable in trained.weights.items():
        found, wanted, tolerance = variable.numpy(), expected[name], atol
        if name.endswith("c_attn/b"):
            # The keys' bias has no effect (softmax ignores a constant), so its gradient is rounding
            # noise, which Adam scales up to a full step. Adafactor clips a tensor's update as a
            # whole, so there the noise affects the rest of the tensor.
            found, wanted = (np.delete(array, slice(width, 2 * width)) for array in (found, wanted))
            if any(slot.startswith("adafactor/") for slot in trained.state()):
                tolerance = max(atol, 5e-4)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance, err_msg=name)


# The settings of each training in the golden files.
TRAININGS = {
    "adam": {"optimizer": "adam", "learning_rate": 1e-3},
    "sgd": {"optimizer": "sgd", "learning_rate": 1e-2},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1},
    "momentum": {"optimizer": "sgd", "learning_rate": 1e-2, "momentum": 0.9},
    "clipped": {"optimizer": "sgd", "learning_rate": 1e-2, "clip_norm": 1.0},
    "adafactor": {"optimizer": "adafactor", "learning_rate": 1e-3},
}


def copies(values: Mapping[str, np.ndarray | tf.Variable]) -> dict[str, np.ndarray]:
    return {name: tf.convert_to_tensor(value).numpy().copy() for name, value in values.items()}


def snapshot(trained: Trainer) -> dict[str, np.ndarray]:
    return copies({**trained.weights, **trained.state()})


def changed(trained: Trainer, golden: Golden) -> set[str]:
    """Names of the weights that differ from the initial weights of the golden trainings."""
    start = golden.tensors("weights")
    return {n for n, variable in trained.weights.items() if (variable.numpy() != start[n]).any()}


@pytest.mark.parametrize("kind", TRAININGS)
def test_ten_steps_are_those_of_the_independent_implementation(golden: Golden, kind: str) -> None:
    trained = trainer(golden, **TRAININGS[kind])
    results = [trained.step(step, [batch]) for step, batch in enumerate(golden.batches, start=1)]
    assert all(result.finite for result in results)
    losses = [result.loss for result in results]
    np.testing.assert_allclose(losses, golden.arrays[f"{kind}_losses"], rtol=1e-5)
    if f"{kind}_norms" in golden.arrays:
        norms = [result.gradient_norm for result in results]
        # The noise in the keys' bias affects Adafactor more; see above.
        rtol = 2e-4 if kind == "adafactor" else 2e-5
        np.testing.assert_allclose(norms, golden.arrays[f"{kind}_norms"], rtol=rtol)
    assert_weights(trained, golden.tensors(f"{kind}_weights"), atol=1e-5)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_gradient_checkpointing_changes_no_step(golden: Golden, kind: str) -> None:
    trained = trainer(golden, memory_saving_gradients=True, **TRAININGS[kind])
    losses = [trained.step(n, [batch]).loss for n, batch in enumerate(golden.batches, start=1)]
    np.testing.assert_allclose(losses, golden.arrays[f"{kind}_losses"], rtol=1e-5)
    assert_weights(trained, golden.tensors(f"{kind}_weights"), atol=1e-5)


def test_gradients_are_those_of_the_independent_implementation(golden: Golden) -> None:
    # One step of gradient descent at learning rate 1 subtracts the gradient.
    trained = trainer(golden, optimizer="sgd", learning_rate=1.0)
    result = trained.step(1, [golden.batches[0]])
    assert result.loss == pytest.approx(float(golden.arrays["loss"]), rel=1e-5)
    weights, gradients = golden.tensors("weights"), golden.tensors("gradients")
    norm = math.sqrt(sum(np.square(gradient, dtype=float).sum() for gradient in gradients.values()))
    assert result.gradient_norm == pytest.approx(norm, rel=1e-5)
    for name, variable in trained.weights.items():
        np.testing.assert_allclose(
            weights[name] - variable.numpy(), gradients[name], atol=2e-6, err_msg=name
        )


def test_the_step_uses_the_scheduled_learning_rate(golden: Golden) -> None:
    # The second of four warm-up steps has half the learning rate.
    trained = trainer(golden, optimizer="sgd", learning_rate=1.0, warmup_steps=4)
    assert trained.step(2, [golden.batches[0]]).learning_rate == 0.5
    weights, gradients = golden.tensors("weights"), golden.tensors("gradients")
    for name, variable in trained.weights.items():
        np.testing.assert_allclose(
            weights[name] - variable.numpy(), gradients[name] / 2, atol=2e-6, err_msg=name
        )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_is_decoupled_and_excludes_biases_and_gains(
    golden: Golden, optimizer: str
) -> None:
    settings = {"optimizer": optimizer, "learning_rate": 0.5}
    with_decay = trainer(golden, weight_decay=0.2, **settings)
    without = trainer(golden, weight_decay=0.0, **settings)
    for trained in (with_decay, without):
        trained.step(1, [golden.batches[0]])
    for name, start in golden.tensors("weights").items():
        lost = without.weights[name].numpy() - with_decay.weights[name].numpy()
        expected = 0 if name.endswith(("/b", "/g")) else 0.5 * 0.2 * start
        np.testing.assert_allclose(lost, np.broadcast_to(expected, lost.shape), atol=1e-6)


def test_only_adamw_has_weight_decay_by_default() -> None:
    decays = {name: TrainerSettings(optimizer=name).decay for name in OPTIMIZERS}
    assert decays == {"adam": 0, "adamw": 0.01, "sgd": 0, "adafactor": 0}


def test_adafactor_has_far_fewer_slots_than_weights(golden: Golden) -> None:
    # A row and a column per matrix, a number per bias and gain, and the step: by hand for the
    # sizes 61, 16, 24, 2 of the golden model.
    block = (24 + 72) + (24 + 24) + (24 + 96) + (96 + 24) + (72 + 24 + 96 + 24) + 4 * 24
    expected = (61 + 24) + (16 + 24) + 2 * 24 + 2 * block + 1
    state = trainer(golden, optimizer="adafactor").state()
    assert sum(int(tf.size(value)) for value in state.values()) == expected


def test_loss_is_the_mean_over_all_next_tokens_and_changes_nothing(golden: Golden) -> None:
    trained = trainer(golden)
    assert trained.loss(golden.batches[0]) == pytest.approx(float(golden.arrays["loss"]), rel=1e-5)
    assert not changed(trained, golden)


def padded(batch: np.ndarray, *lengths: int) -> np.ndarray:
    """The batch with each row padded after the given length."""
    batch = batch.copy()
    for row, length in zip(batch, lengths, strict=True):
        row[length:] = PADDING
    return batch


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("with_padding", [False, True])
def test_accumulated_gradients_are_those_of_the_larger_batch(
    golden: Golden, optimizer: str, with_padding: bool
) -> None:
    settings = {"optimizer": optimizer, "learning_rate": 1e-3}
    if with_padding:
        settings["clip_norm"] = 0.5
    accumulated, whole = trainer(golden, **settings), trainer(golden, **settings)
    for step in range(1, 4):
        parts = [golden.tokens[number] for number in (step, step + 3, step + 6)]
        if with_padding:
            # 3, 18 and 0 targets: the mean of the batches' means would be far off.
            lengths = [(3, 2), (16, 4), (1, 1)]
            parts = [padded(part, *rows) for part, rows in zip(parts, lengths, strict=True)]
        found = accumulated.step(step, [Batch.of_rows(part) for part in parts])
        expected = whole.step(step, [Batch.of_rows(np.concatenate(parts))])
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        # For Adafactor see above.
        rel = 1e-4 if optimizer == "adafactor" else 1e-5
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=rel)
    assert_weights(accumulated, {n: v.numpy() for n, v in whole.weights.items()}, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"lora_rank": 2}, {"memory_saving_gradients": True}, {"train_layers": "1"}]
)
def test_steps_on_packed_batches_are_those_on_padded_ones(
    golden: Golden, settings: dict[str, object]
) -> None:
    settings |= {"optimizer": "sgd", "learning_rate": 0.1}
    packed, padded = trainer(golden, **settings), trainer(golden, **settings)
    for step in (1, 2):
        whole, examples = packed_and_padded(golden)
        # A packed batch in two parts, against all examples at once.
        found = packed.step(step, [whole.rows(slice(1)), whole.rows(slice(1, None))])
        expected = padded.step(step, [examples])
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)
    assert_weights(packed, {n: v.numpy() for n, v in padded.weights.items()}, atol=1e-5)
    assert packed.loss(whole) == pytest.approx(padded.loss(examples), rel=1e-5)


def test_a_step_without_targets_is_refused(golden: Golden) -> None:
    with pytest.raises(ValueError, match="step 7 have no targets"):
        trainer(golden).step(7, [Batch.of_rows(padded(golden.tokens[0], 1, 0))])


@pytest.mark.parametrize(
    ("settings", "prefixes"),
    [
        ({"only_train_transformer_layers": True}, ("model/h0/", "model/h1/")),
        ({"train_layers": "1"}, ("model/h1/",)),
        ({"train_layers": "0", "only_train_transformer_layers": True}, ("model/h0/",)),
        ({"train_layers": "0-1", "optimizer": "adamw"}, ("model/h0/", "model/h1/")),
    ],
)
def test_frozen_tensors_stay_and_the_others_take_the_step_they_would_have_taken(
    golden: Golden, settings: dict[str, object], prefixes: tuple[str, ...]
) -> None:
    settings = {"learning_rate": 0.01, "optimizer": "sgd", **settings}
    trained = trainer(golden, **settings)
    trained.step(1, [golden.batches[0]])
    assert changed(trained, golden) == {n for n in trained.weights if n.startswith(prefixes)}
    everything = trainer(golden, learning_rate=0.01, optimizer=settings["optimizer"])
    everything.step(1, [golden.batches[0]])
    unfrozen = {name: variable.numpy() for name, variable in everything.weights.items()}
    expected = {
        name: unfrozen[name] if name.startswith(prefixes) else start
        for name, start in golden.tensors("weights").items()
    }
    assert_weights(trained, expected, atol=1e-6)


def test_layers_below_the_lowest_trained_one_have_no_backward_pass(golden: Golden) -> None:
    def products(**settings: object) -> int:
        trained = trainer(golden, optimizer="sgd", **settings)
        trained.step(1, [golden.batches[0]])
        (concrete,) = trained._train_on._list_all_concrete_functions()
        return sum("MatMul" in operation.type for operation in concrete.graph.get_operations())

    block = products(train_layers="0-1") - products(train_layers="1")
    # Six products per layer, each with two in the backward pass, except the input of the lowest.
    assert block >= 8


def test_noise_replaces_inputs_by_seed_and_step_and_not_the_batch(golden: Golden) -> None:
    batch = np.zeros([4, 200], np.int32)
    noisy = trainer(golden, noise=0.25)._with_noise(batch, 5, 0)
    replaced = (noisy != 0).mean()
    # 60 of 61 random tokens differ from the 0 that they replace.
    assert replaced == pytest.approx(0.25 * 60 / 61, abs=0.05)
    assert (noisy == trainer(golden, noise=0.25)._with_noise(batch, 5, 0)).all()
    assert (noisy != trainer(golden, noise=0.25)._with_noise(batch, 6, 0)).any()
    assert (batch == 0).all()


@pytest.mark.parametrize("settings", [{"noise": 0.3}, {"dropout": 0.3}])
def test_noise_and_dropout_are_functions_of_seed_and_step_and_absent_from_validation(
    golden: Golden, settings: dict[str, float]
) -> None:
    # The learning rate is too small to change any weight.
    settings = {"optimizer": "sgd", "learning_rate": 1e-30, **settings}
    weights, batch = golden.tensors("weights"), golden.batches[0]
    first, second = (
        Trainer(weights, golden.hparams, TrainerSettings(**settings), seed) for seed in (0, 1)
    )
    plain = float(golden.arrays["loss"])
    assert first.loss(batch) == pytest.approx(plain, rel=1e-5)
    losses = [first.step(step, [batch]).loss for step in (3, 4, 3)]
    assert losses[0] == losses[2]
    assert len({*losses, second.step(3, [batch]).loss, plain}) == 4


def test_each_batch_of_a_step_has_its_own_dropout(golden: Golden) -> None:
    trained = trainer(golden, dropout=0.3)
    batch = golden.batches[0]
    single = trainer(golden, dropout=0.3).step(3, [batch]).loss
    assert trained.step(3, [batch, batch]).loss != pytest.approx(single, rel=1e-6)


@pytest.mark.parametrize(
    ("batches", "optimizer", "precision"),
    [(1, "adam", "fp32"), (2, "adamw", "fp32"), (1, "adafactor", "fp16"), (2, "sgd", "fp16")],
)
def test_a_nan_loss_changes_nothing(
    golden: Golden, batches: int, optimizer: str, precision: str
) -> None:
    weights = golden.tensors("weights")
    trained = trainer(
        golden, optimizer=optimizer, learning_rate=1.0, weight_decay=0.1, precision=precision
    )
    trained.step(1, [golden.batches[0]])
    trained.weights["model/ln_f/g"].assign(weights["model/ln_f/g"] * np.inf)
    before = snapshot(trained)
    result = trained.step(2, [golden.batches[1]] * batches)
    assert not result.finite and not math.isfinite(result.loss)
    assert_same(snapshot(trained), before)


@pytest.mark.parametrize("batches", [1, 2])
def test_an_infinite_gradient_changes_nothing_even_if_the_loss_is_finite(
    golden: Golden, batches: int
) -> None:
    weights = golden.tensors("weights")
    # The logits are unchanged, but the square of the embeddings' gradient overflows float32.
    weights["model/wte"] = weights["model/wte"] * np.float32(1e-25)
    for name in ("model/ln_f/g", "model/ln_f/b"):
        weights[name] = weights[name] * np.float32(1e25)
    trained = Trainer(weights, golden.hparams, TrainerSettings(optimizer="adamw"), seed=0)
    before = snapshot(trained)
    result = trained.step(1, [golden.batches[0]] * batches)
    assert math.isfinite(result.loss)
    assert not math.isfinite(result.gradient_norm) and not result.finite
    assert_same(snapshot(trained), before)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        *TRAININGS.values(),
        {"clip_norm": 0.5, "weight_decay": 0.1, "lr_schedule": "cosine", "schedule_steps": 9},
        {"dropout": 0.2, "noise": 0.2, "train_layers": "1"},
        {"lora_rank": 2, "learning_rate": 0.01, "optimizer": "adamw"},
        {"precision": "fp16", "optimizer": "adafactor"},
    ],
    ids=lambda settings: ",".join(map(str, settings.values())),
)
def test_a_restored_trainer_is_bit_exact(golden: Golden, settings: dict[str, object]) -> None:
    batches = 2 if "clip_norm" in settings or "lora_rank" in settings else 1

    def steps(trained: Trainer, first: int, last: int) -> list[StepResult]:
        return [
            trained.step(n, [golden.batches[n], golden.batches[n - 1]][:batches])
            for n in range(first, last + 1)
        ]

    whole, first = trainer(golden, **settings), trainer(golden, **settings)
    expected = steps(whole, 1, 6)[3:]
    steps(first, 1, 3)
    saved, weights = copies(first.state()), copies(first.weights)
    second = Trainer(weights, golden.hparams, TrainerSettings(**settings), seed=0)
    second.restore(saved)
    assert all(result.finite for result in expected)
    assert steps(second, 4, 6) == expected
    assert_same(snapshot(second), snapshot(whole))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"optimizer": "sgd"}, "sgd/steps is missing"),
        ({"optimizer": "adamw"}, "adamw/mean/model/h0/attn/c_attn/b is missing"),
        ({"train_layers": "1"}, "adam/mean/model/h0/attn/c_attn/b is unexpected"),
        ({"lora_rank": 2}, "adam/mean/lora/a/model/h0/attn/c_attn/w is missing"),
        ({"precision": "fp16"}, "loss_scale/good_steps is missing"),
    ],
)
def test_a_state_of_other_settings_is_refused_and_changes_nothing(
    golden: Golden, settings: dict[str, object], problem: str
) -> None:
    saved = {name: value + 1 for name, value in copies(trainer(golden).state()).items()}
    other = trainer(golden, **settings)
    before = snapshot(other)
    with pytest.raises(UserError, match=problem):
        other.restore(saved)
    assert_same(snapshot(other), before)


def test_a_state_of_other_sizes_is_refused_and_changes_nothing(golden: Golden) -> None:
    saved = copies(trainer(golden, lora_rank=2).state())
    other = trainer(golden, lora_rank=3)
    before = snapshot(other)
    with pytest.raises(UserError, match=r"is \[.*2\], not \[.*3\]"):
        other.restore(saved)
    assert_same(snapshot(other), before)


def test_a_too_large_loss_scale_is_halved_and_the_step_is_taken(golden: Golden) -> None:
    settings = {"optimizer": "sgd", "learning_rate": 1.0, "precision": "fp16"}
    trained, untroubled = trainer(golden, **settings), trainer(golden, **settings)
    trained.restore(
        trained.state()
        | {"loss_scale/scale": np.float32(2**40), "loss_scale/good_steps": np.int64(9)}
    )
    result = trained.step(1, [golden.batches[0]])
    assert result.finite
    assert result.loss == pytest.approx(float(golden.arrays["loss"]), rel=1e-2)
    assert 1 < trained.state()["loss_scale/scale"] < 2**30
    assert trained.state()["loss_scale/good_steps"] == 1
    untroubled.step(1, [golden.batches[0]])
    expected = {name: variable.numpy() for name, variable in untroubled.weights.items()}
    assert_weights(trained, expected, atol=1e-3)


def test_the_loss_scale_doubles_after_2000_good_steps() -> None:
    scale = LossScale()
    for _ in range(1999):
        scale.succeeded()
    assert scale.scale == 2**15
    scale.succeeded()
    assert scale.scale == 2**16
    for _ in range(16):
        assert scale.lower()
    assert scale.scale == 1
    assert not scale.lower()


def test_steps_of_one_shape_are_traced_once(golden: Golden) -> None:
    trained = trainer(golden, warmup_steps=3, dropout=0.1)
    for step, batch in enumerate(golden.batches, start=1):
        trained.step(step, [batch])
    assert trained._train_on.experimental_get_tracing_count() == 1
    assert tf.executing_eagerly()


def test_losses_are_those_of_earlier_versions(golden: Golden) -> None:
    # Numbers of the version before batches had positions and segments.
    random = np.random.default_rng(1)
    chunk = random.integers(1, golden.hparams.n_vocab, 400)
    chunk[random.random(400) < 0.1] = 0
    sampler = DocumentSampler(documents_in([chunk], endoftext=0), golden.hparams.n_ctx, 3)
    settings = TrainerSettings(learning_rate=1e-3, dropout=0.1, noise=0.1)
    trained = Trainer(golden.tensors("weights"), golden.hparams, settings, seed=2)
    losses = [
        trained.step(step, [sampler.batch(2 * (step - 1) + part, 5) for part in range(2)]).loss
        for step in (1, 2, 3)
    ]
    expected = [4.666384884805391, 4.55739807045978, 4.48645188591697]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
