"""Writes the folder of a new model, in the form of a released one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import HPARAMS_FILE, write_checkpoint_state
from gpt2.hparams import HParams
from gpt2.tokenizer import write_vocabulary

if TYPE_CHECKING:
    import numpy as np

CHECKPOINT = "model.ckpt"


def write_model_folder(
    path: Path,
    hparams: HParams,
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    weights: Mapping[str, np.ndarray],
) -> None:
    """Write the seven files; the folder appears when all of them are there.

    Raises:
        UserError: it cannot be written, or the folder exists.
    """
    with files.new_folder(path) as folder:
        hparams.save(folder / HPARAMS_FILE)
        write_vocabulary(folder, vocabulary, merges)
        bundle.write_bundle(folder / CHECKPOINT, weights)
        write_checkpoint_state(folder, [CHECKPOINT])
