"""The memory estimate: against measured peaks, and how it follows the settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gpt2.hparams import HParams
from gpt2.training.memory import available, estimate
from gpt2.training.settings import TrainerSettings
from tests.support import waiting

pytestmark = pytest.mark.slow

SMALLEST = HParams(n_vocab=50257)
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from gpt2.data.samplers import Batch
from gpt2.hparams import HParams
from gpt2.model import initial_weights
from gpt2.training.settings import TrainerSettings
from tests.support import waiting
from gpt2.training.trainer import Trainer
hparams = HParams(**json.loads(sys.argv[2]))
trainer = Trainer(
    initial_weights(hparams, 1), hparams, TrainerSettings(**json.loads(sys.argv[3])), 1
)
batch = np.random.default_rng(1).integers(0, hparams.n_vocab, (2, 513)).astype(np.int32)
for step in (1, 2):
    trainer.step(step, [Batch.of_rows(batch)])
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


def of(
    hparams: HParams = SMALLEST, batch_size: int = 1, window: int = 1024, **flags: object
) -> int:
    return estimate(hparams, TrainerSettings(**flags), batch_size, window)


def test_adam_needs_two_copies_of_the_weights() -> None:
    copies = (of() - of(optimizer="sgd")) / (4 * SMALLEST.parameters)
    assert copies == pytest.approx(2, abs=0.01)


def test_settings_that_save_memory_lower_the_estimate() -> None:
    whole = of()
    for flags in (
        {"memory_saving_gradients": True},
        {"only_train_transformer_layers": True},
        {"train_layers": "8-11"},
        {"lora_rank": 8},
        {"optimizer": "adafactor"},
    ):
        assert of(**flags) < whole, flags


def test_gradient_checkpointing_lowers_the_memory_per_sequence() -> None:
    plain, checkpointed = (
        of(batch_size=9, memory_saving_gradients=saving)
        - of(batch_size=1, memory_saving_gradients=saving)
        for saving in (False, True)
    )
    assert checkpointed < plain / 5


def test_gradient_accumulation_needs_memory_for_the_sums() -> None:
    settings = TrainerSettings()
    one, several = (estimate(SMALLEST, settings, 1, 1024, batches) for batches in (1, 2))
    assert several - one == 4 * SMALLEST.parameters
    # With LoRA only the factors' gradients are summed: rank 8, four matrices in each layer.
    settings = TrainerSettings(lora_rank=8)
    one, several = (estimate(SMALLEST, settings, 1, 1024, batches) for batches in (1, 2))
    factors = 12 * 8 * ((768 + 3 * 768) + (768 + 768) + 2 * (768 + 4 * 768))
    assert several - one == 4 * factors


def test_packed_sequences_need_memory_for_attention_within_reach_only() -> None:
    def packed(reach: int | None) -> int:
        return estimate(SMALLEST, TrainerSettings(), 1, 1024, reach=reach)

    assert packed(1024) == packed(None) == of()
    # 256 queries at a time keep the keys of 256 positions, the first ones, or 256 + 199.
    keys = (256 * 256 + 3 * 256 * (256 + 199)) // 1024
    assert of() - packed(200) == 12 * 1024 * 4 * 12 * (640 - keys)
    # Blocks of 32 queries keep the keys of 64 positions.
    assert of() - packed(20) == 12 * 1024 * 4 * 12 * (640 - 64)


def test_available_memory_is_plausible_or_unknown() -> None:
    found = available()
    assert found is None or 10**8 < found < 10**14


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("flags", [{}, {"memory_saving_gradients": True}, {"optimizer": "sgd"}])
def test_the_measured_peak_is_within_20_percent_of_the_estimate(flags: dict) -> None:
    sizes = {"n_vocab": 20000, "n_ctx": 512, "n_embd": 512, "n_head": 8, "n_layer": 6}
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = waiting.run(
        [sys.executable, "-c", PROGRAM, source, json.dumps(sizes), json.dumps(flags)]
    )
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout.split()[-1])
    expected = of(HParams(**sizes), batch_size=2, window=512, **flags)
    assert measured == pytest.approx(expected, rel=0.2)
