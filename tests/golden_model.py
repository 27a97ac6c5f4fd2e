"""The golden file: a small model's numbers as PyTorch and transformers computed them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from gpt2.hparams import HParams

FILE = Path(__file__).parent / "golden" / "small_model.npz"


class Golden:
    """Arrays of `golden/small_model.npz`; its README says what they are."""

    def __init__(self) -> None:
        with np.load(FILE, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.hparams = HParams(**json.loads(self.arrays["hparams"].item()))
        self.tokens = self.arrays["tokens"]  # [10 batches, B, T]

    def tensors(self, kind: str) -> dict[str, np.ndarray]:
        """One array for each of the model's tensors: "weights", "gradients", "adam_weights", ..."""
        prefix = f"{kind}/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }
