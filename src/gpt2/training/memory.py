"""STAND-IN until the real one is merged."""

from __future__ import annotations

from gpt2.hparams import HParams
from gpt2.training.settings import TrainerSettings


def estimate(hparams: HParams, settings: TrainerSettings, batch_size: int, window: int) -> int:
    return 16 * hparams.parameters + 40 * batch_size * window * hparams.n_embd * hparams.n_layer * 4
