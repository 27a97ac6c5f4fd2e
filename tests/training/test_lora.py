"""LoRA: low-rank factors trained in place of the matrices."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2.data.samplers import Batch
from gpt2.training.settings import TrainerSettings
from gpt2.training.trainer import Trainer
from tests.golden_model import Golden

MATRICES = ("attn/c_attn/w", "attn/c_proj/w", "mlp/c_fc/w", "mlp/c_proj/w")
# The settings of the golden training.
SETTINGS = {
    "lora_rank": 3,
    "lora_alpha": 6.0,
    "train_layers": "1",
    "optimizer": "adamw",
    "learning_rate": 1e-2,
    "weight_decay": 0.1,
}


def trainer(golden: Golden, **settings: object) -> Trainer:
    return Trainer(golden.tensors("weights"), golden.hparams, TrainerSettings(**settings), seed=0)


@pytest.mark.parametrize("memory_saving_gradients", [False, True])
def test_ten_steps_are_those_of_the_independent_implementation(
    golden: Golden, memory_saving_gradients: bool
) -> None:
    trained = trainer(golden, memory_saving_gradients=memory_saving_gradients, **SETTINGS)
    starts = {f"lora/a/{name}": array for name, array in golden.tensors("lora_start").items()}
    trained.restore(trained.state() | starts)
    losses = [
        trained.step(n, [Batch.of_rows(rows)]).loss for n, rows in enumerate(golden.tokens, start=1)
    ]
    np.testing.assert_allclose(losses, golden.arrays["lora_losses"], rtol=1e-5)
    expected = golden.tensors("weights") | golden.tensors("lora_weights")
    for name, variable in trained.weights.items():
        np.testing.assert_allclose(variable.numpy(), expected[name], atol=2e-5, err_msg=name)


def test_only_the_factors_are_trained_and_matrices_are_base_plus_product(
    golden: Golden,
) -> None:
    trained = trainer(golden, lora_rank=2, learning_rate=0.01, optimizer="adamw")
    for step in (1, 2, 3):
        trained.step(step, [Batch.of_rows(golden.tokens[step])])
    state = {name: value.numpy() for name, value in trained.state().items()}
    factors = {n.removeprefix("lora/a/") for n in state if n.startswith("lora/a/")}
    assert factors == {f"model/h{layer}/{matrix}" for layer in (0, 1) for matrix in MATRICES}
    for name, start in golden.tensors("weights").items():
        found = trained.weights[name].numpy()
        if name in factors:
            product = state[f"lora/a/{name}"] @ state[f"lora/b/{name}"]
            np.testing.assert_array_equal(state[f"lora/base/{name}"], start)
            np.testing.assert_allclose(found, start + 32 / 2 * product, atol=1e-6)
            assert np.linalg.matrix_rank((found - start)[0], tol=1e-4) == 2
        else:
            np.testing.assert_array_equal(found, start)


def test_initial_factors_change_nothing_and_depend_on_the_seed(golden: Golden) -> None:
    def factors(seed: int) -> np.ndarray:
        settings = TrainerSettings(lora_rank=8)
        trained = Trainer(golden.tensors("weights"), golden.hparams, settings, seed)
        assert trained.loss(Batch.of_rows(golden.tokens[0])) == pytest.approx(
            float(golden.arrays["loss"]), rel=1e-5
        )
        state = trained.state()
        assert not state["lora/b/model/h0/mlp/c_fc/w"].numpy().any()
        return state["lora/a/model/h0/mlp/c_fc/w"].numpy()

    assert (factors(1) == factors(1)).all()
    assert (factors(1) != factors(2)).all()
    assert factors(1).std() == pytest.approx(24**-0.5, rel=0.2)


def test_accumulated_batches_are_the_larger_batch(golden: Golden) -> None:
    settings = {"lora_rank": 2, "optimizer": "sgd", "learning_rate": 0.01}
    accumulated, whole = trainer(golden, **settings), trainer(golden, **settings)
    for step in (1, 2):
        parts = [golden.tokens[step], golden.tokens[step + 2]]
        accumulated.step(step, list(map(Batch.of_rows, parts)))
        whole.step(step, [Batch.of_rows(np.concatenate(parts))])
    for name, variable in whole.weights.items():
        np.testing.assert_allclose(
            accumulated.weights[name].numpy(), variable.numpy(), atol=1e-5, err_msg=name
        )


def test_the_optimizer_has_no_slots_for_frozen_matrices(golden: Golden) -> None:
    state = trainer(golden, lora_rank=2).state()
    slots = {name for name in state if name.startswith("adam/mean/")}
    assert slots == {f"adam/mean/{n}" for n in state if n.startswith(("lora/a/", "lora/b/"))}


def test_a_resumed_run_keeps_its_alpha(golden: Golden) -> None:
    first = trainer(golden, lora_rank=2, lora_alpha=2.0)
    other = trainer(golden, lora_rank=2, lora_alpha=64.0)
    other.restore(first.state())
    for trained in (first, other):
        trained.step(1, [Batch.of_rows(golden.tokens[0])])
    for name, variable in first.weights.items():
        np.testing.assert_array_equal(other.weights[name].numpy(), variable.numpy())
