"""Train with and without two logical CPU devices; print the largest relative differences.

A process of its own, since logical devices have to be set before TensorFlow is used.
"""

from __future__ import annotations

import json
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from gpt2.data.samplers import PADDING, Batch  # noqa: E402
from gpt2.hparams import HParams  # noqa: E402
from gpt2.model import initial_weights  # noqa: E402
from gpt2.training import distribution  # noqa: E402
from gpt2.training.settings import TrainerSettings  # noqa: E402
from gpt2.training.trainer import Trainer  # noqa: E402

HPARAMS = HParams(n_vocab=50, n_ctx=8, n_embd=16, n_head=2, n_layer=1)
CASES = {
    "adafactor, checkpointing, clipping, noise": {
        "optimizer": "adafactor",
        "memory_saving_gradients": True,
        "clip_norm": 0.5,
        "noise": 0.2,
    },
    "lora, adamw": {"lora_rank": 2, "optimizer": "adamw", "weight_decay": 0.1},
}
STEPS = 2


def batches(step: int) -> list[Batch]:
    """Two batches of four rows, one of which has fewer targets."""
    random = np.random.default_rng(step)
    rows = random.integers(0, HPARAMS.n_vocab, (8, 9), dtype=np.int32)
    rows[2, 4:] = PADDING
    return [Batch.of_rows(rows[:4]), Batch.of_rows(rows[4:])]


def trained(devices: distribution.Distribution, settings: dict) -> tuple[Trainer, list[float]]:
    weights = initial_weights(HPARAMS, seed=1)
    trainer = Trainer(weights, HPARAMS, TrainerSettings(**settings), 1, devices)
    found = []
    for step in range(1, STEPS + 1):
        result = trainer.step(step, batches(step) if step > 1 else batches(step)[:1])
        found += [result.loss, result.gradient_norm]
    found.append(trainer.shared_loss(Batch.of_rows(batches(9)[0].inputs[:3])))  # uneven shares
    # A copy of the state on every device: training goes on as it would have.
    trainer.restore({name: np.array(tf.identity(v)) for name, v in trainer.state().items()})
    return trainer, [*found, trainer.step(STEPS + 1, batches(4)).loss]


def main() -> None:
    mirrored = distribution.connect("mirrored")
    assert mirrored.devices == 2, mirrored.devices
    found = {}
    for name, settings in CASES.items():
        (alone, expected), (shared, losses) = (
            trained(devices, settings) for devices in (distribution.connect("off"), mirrored)
        )
        weights = max(
            float(np.abs(alone.weights[key].numpy() - value.numpy()).max())
            for key, value in shared.weights.items()
        )
        ratios = np.array(losses) / np.array(expected) - 1
        found[name] = {"losses": float(np.abs(ratios).max()), "weights": weights}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
