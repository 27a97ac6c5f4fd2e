"""Steps of training against PyTorch's, and the flags that change them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gpt2.training.settings import TrainerSettings
from gpt2.training.trainer import Trainer
from tests.golden_model import Golden


def trainer(golden: Golden, **settings: object) -> Trainer:
    return Trainer(golden.tensors("weights"), golden.hparams, TrainerSettings(**settings), seed=0)


def assert_weights(trained: Trainer, expected: dict[str, np.ndarray], atol: float) -> None:
    width = trained.hparams.n_embd
    for name, variable in trained.weights.items():
        found, wanted = variable.numpy(), expected[name]
        if name.endswith("c_attn/b"):
            # The keys' bias changes nothing (softmax ignores a constant), so its gradient is pure
            # rounding noise, which Adam makes as large as any other.
            found, wanted = (np.delete(array, slice(width, 2 * width)) for array in (found, wanted))
        np.testing.assert_allclose(found, wanted, atol=atol, err_msg=name)


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adam", 1e-3), ("sgd", 1e-2)])
@pytest.mark.parametrize("memory_saving_gradients", [False, True])
def test_ten_steps_are_those_of_the_independent_implementation(
    golden: Golden, optimizer: str, learning_rate: float, memory_saving_gradients: bool
) -> None:
    trained = trainer(
        golden,
        optimizer=optimizer,
        learning_rate=learning_rate,
        memory_saving_gradients=memory_saving_gradients,
    )
    losses = [trained.step(step, [batch]).loss for step, batch in enumerate(golden.tokens, start=1)]
    np.testing.assert_allclose(losses, golden.arrays[f"{optimizer}_losses"], rtol=1e-5)
    assert_weights(trained, golden.tensors(f"{optimizer}_weights"), atol=1e-5)


def test_gradients_are_those_of_the_independent_implementation(golden: Golden) -> None:
    # One step of gradient descent at rate 1 subtracts just the gradient.
    trained = trainer(golden, optimizer="sgd", learning_rate=1.0)
    loss = trained.step(1, [golden.tokens[0]]).loss
    assert loss == pytest.approx(float(golden.arrays["loss"]), rel=1e-5)
    weights, gradients = golden.tensors("weights"), golden.tensors("gradients")
    for name, variable in trained.weights.items():
        np.testing.assert_allclose(
            weights[name] - variable.numpy(), gradients[name], atol=2e-6, err_msg=name
        )


def test_loss_is_the_mean_over_all_next_tokens_and_changes_nothing(golden: Golden) -> None:
    trained = trainer(golden)
    assert trained.loss(golden.tokens[0]) == pytest.approx(float(golden.arrays["loss"]), rel=1e-5)
    assert_weights(trained, golden.tensors("weights"), atol=0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_accumulated_gradients_are_those_of_the_larger_batch(
    golden: Golden, optimizer: str
) -> None:
    settings = {"optimizer": optimizer, "learning_rate": 1e-3}
    accumulated, whole = trainer(golden, **settings), trainer(golden, **settings)
    for step in range(1, 4):
        parts = [golden.tokens[3 * step % 10], golden.tokens[(3 * step + 1) % 10]]
        loss = accumulated.step(step, parts).loss
        assert loss == pytest.approx(whole.step(step, [np.concatenate(parts)]).loss, rel=1e-5)
    assert_weights(accumulated, {n: v.numpy() for n, v in whole.weights.items()}, atol=1e-5)


def test_only_transformer_layers_are_trained_when_asked(golden: Golden) -> None:
    trained = trainer(golden, learning_rate=0.1, only_train_transformer_layers=True)
    trained.step(1, [golden.tokens[0]])
    changed = {
        name
        for name, array in golden.tensors("weights").items()
        if (trained.weights[name].numpy() != array).any()
    }
    assert changed == {name for name in trained.weights if name.startswith("model/h")}


def test_noise_replaces_inputs_by_the_seed_and_the_step_and_leaves_targets(golden: Golden) -> None:
    batch = np.zeros([4, 200], np.int32)
    noisy = trainer(golden, noise=0.25)._with_noise(batch, 5, 0)
    replaced = (noisy != 0).mean()
    # Of a quarter, 60 in 61 are another token than the 0 they replace.
    assert replaced == pytest.approx(0.25 * 60 / 61, abs=0.05)
    assert (noisy == trainer(golden, noise=0.25)._with_noise(batch, 5, 0)).all()
    assert (noisy != trainer(golden, noise=0.25)._with_noise(batch, 6, 0)).any()
    assert (batch == 0).all()
    # Without noise in what is to be predicted, a step on noise 0 equals the plain loss.
    assert trainer(golden).step(1, [golden.tokens[0]]).loss == pytest.approx(
        float(golden.arrays["loss"]), rel=1e-5
    )


@pytest.mark.parametrize("batches", [1, 2])
def test_a_loss_that_is_no_number_leaves_the_weights_as_they_are(
    golden: Golden, batches: int
) -> None:
    weights = golden.tensors("weights")
    weights["model/ln_f/g"] = np.full_like(weights["model/ln_f/g"], np.inf)
    trained = Trainer(weights, golden.hparams, TrainerSettings(learning_rate=1.0), seed=0)
    assert not trained.step(1, [golden.tokens[0]] * batches).finite
    for name, array in weights.items():
        np.testing.assert_array_equal(trained.weights[name].numpy(), array)


def test_steps_of_one_shape_are_compiled_once(golden: Golden) -> None:
    trained = trainer(golden)
    for step, batch in enumerate(golden.tokens, start=1):
        trained.step(step, [batch])
    assert trained._train_on.experimental_get_tracing_count() == 1
    assert tf.executing_eagerly()
