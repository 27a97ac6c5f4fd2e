"""A small model in a folder of its own, as the tests of opening models need it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpt2.checkpoint.new_model import write_model_folder
from gpt2.hparams import HParams
from gpt2.tokenizer import train_vocabulary

HPARAMS = HParams(n_vocab=270, n_ctx=16, n_embd=8, n_head=2, n_layer=2)
TEXT = "the cat and the hat and the bat, then the cat again and again"


def small_weights(seed: int) -> dict[str, np.ndarray]:
    """Weights so large that texts are not all alike."""
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(shape, np.float32) * np.float32(0.3)
        for name, shape in HPARAMS.tensor_shapes().items()
    }


def write_small_model(path: Path, seed: int = 7) -> Path:
    """Write the folder of a model with a vocabulary of its own; the seed decides the weights."""
    vocabulary, merges = train_vocabulary([TEXT], HPARAMS.n_vocab)
    write_model_folder(path, HPARAMS, vocabulary, merges, small_weights(seed))
    return path
