"""Write the folder of a new model, and embeddings for a new vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import HPARAMS_FILE, write_checkpoint_state
from gpt2.data import templates
from gpt2.data.templates import SavedTemplate
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import ENCODER_FILE, Tokenizer, write_vocabulary
from gpt2.tokenizer.vocabulary import token_bytes

CHECKPOINT = "model.ckpt"
WTE = "model/wte"

_BATCH = 4096  # tokens whose embeddings are computed together, to bound memory


def write_model_folder(
    path: Path,
    hparams: HParams,
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    weights: Mapping[str, np.ndarray],
    template: SavedTemplate | None = None,
) -> None:
    """Write a model folder with the seven files of a released model, atomically.

    Args:
        template: of the model that the weights are from, if it has one.

    Raises:
        UserError: the folder exists or cannot be written.
    """
    with files.atomic_folder(path) as folder:
        hparams.save(folder / HPARAMS_FILE)
        write_vocabulary(folder, vocabulary, merges)
        bundle.write_bundle(folder / CHECKPOINT, weights)
        write_checkpoint_state(folder, [CHECKPOINT])
        if template is not None:
            templates.save(folder, template)


def with_vocabulary(
    weights: Mapping[str, np.ndarray],
    old: Tokenizer,
    vocabulary: Mapping[str, int],
    n_vocab: int,
) -> dict[str, np.ndarray]:
    """Return the weights of a model with token embeddings for another vocabulary.

    A token of the old vocabulary keeps its embedding. A new token is encoded with the old tokenizer
    and initialized to the mean of those tokens' embeddings, which is closer to its meaning than a
    random vector.

    Args:
        weights: the model's tensors by name.
        old: the model's tokenizer.
        vocabulary: the id of each new token, spelled as in `encoder.json`.
        n_vocab: number of embeddings; an id without a token keeps its old embedding.

    Raises:
        UserError: the old tokenizer cannot encode a token, or has more tokens than embeddings.
    """
    wte = weights[WTE]  # [V, C]
    if max(old.vocabulary.values()) >= len(wte):
        raise UserError(
            f"{ENCODER_FILE} has token ids up to {max(old.vocabulary.values())}, but the model has "
            f"{len(wte)} embeddings. Use the {ENCODER_FILE} and {HPARAMS_FILE} of one model."
        )
    embeddings = np.zeros((n_vocab, wte.shape[1]), np.float32)
    embeddings[: len(wte)] = wte[:n_vocab]
    new = [token for token in vocabulary if token not in old.vocabulary]
    known = [token for token in vocabulary if token in old.vocabulary]
    embeddings[[vocabulary[token] for token in known]] = wte[[old.vocabulary[t] for t in known]]
    for start in range(0, len(new), _BATCH):
        some = new[start : start + _BATCH]
        spelled = old.encode_pieces([token_bytes(token) for token in some])
        ids = spelled.take(np.arange(len(some)))
        sums = np.add.reduceat(wte[ids], np.cumsum(spelled.lengths) - spelled.lengths)
        embeddings[[vocabulary[token] for token in some]] = sums / spelled.lengths[:, None]
    return {**weights, WTE: embeddings}
