"""The golden files: a small model's numbers as PyTorch and transformers computed them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from gpt2.data.samplers import Batch
from gpt2.hparams import HParams

FOLDER = Path(__file__).parent / "golden"


class Golden:
    """Arrays of `small_model.npz` and `training.npz`; the README beside them says what they are."""

    def __init__(self) -> None:
        self.arrays = {}
        for file in ("small_model.npz", "training.npz"):
            with np.load(FOLDER / file, allow_pickle=False) as archive:
                self.arrays |= {name: archive[name] for name in archive.files}
        self.hparams = HParams(**json.loads(self.arrays["hparams"].item()))
        self.tokens = self.arrays["tokens"]  # [10 batches, B, T + 1]
        self.batches = [Batch.of_rows(rows.astype(np.int32)) for rows in self.tokens]

    def tensors(self, kind: str) -> dict[str, np.ndarray]:
        """One array for each of the model's tensors: "weights", "gradients", "adam_weights", ..."""
        prefix = f"{kind}/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }
