"""Writes the folder of a new model, in the form of a released one, and gives it embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import HPARAMS_FILE, write_checkpoint_state
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import ENCODER_FILE, Tokenizer, write_vocabulary
from gpt2.tokenizer.vocabulary import token_bytes

CHECKPOINT = "model.ckpt"
WTE = "model/wte"

_AT_A_TIME = 4096  # tokens, whose parts' embeddings are in memory together


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
    with files.atomic_folder(path) as folder:
        hparams.save(folder / HPARAMS_FILE)
        write_vocabulary(folder, vocabulary, merges)
        bundle.write_bundle(folder / CHECKPOINT, weights)
        write_checkpoint_state(folder, [CHECKPOINT])


def with_vocabulary(
    weights: Mapping[str, np.ndarray],
    old: Tokenizer,
    vocabulary: Mapping[str, int],
    n_vocab: int,
) -> dict[str, np.ndarray]:
    """The weights of a model with embeddings for another vocabulary, made of those it has learnt.

    A token that the model knows keeps its embedding. Any other is spelled with the model's tokens
    and begins as the mean of theirs, which is nearer to what it stands for than a random vector.

    Args:
        weights: the model's tensors by name.
        old: the model's tokenizer.
        vocabulary: the id of each new token, spelled as in `encoder.json`.
        n_vocab: embeddings to make, above each id; one that no token has stays as it is.

    Raises:
        UserError: the model's vocabulary cannot spell a token, or has more tokens than embeddings.
    """
    wte = weights[WTE]  # [V, C]
    if max(old.vocabulary.values()) >= len(wte):
        raise UserError(
            f"{ENCODER_FILE} has tokens up to the id {max(old.vocabulary.values())}, but the model "
            f"only {len(wte)} embeddings: {ENCODER_FILE} and {HPARAMS_FILE} do not belong together."
        )
    embeddings = np.zeros((n_vocab, wte.shape[1]), np.float32)
    embeddings[: len(wte)] = wte[:n_vocab]
    new = [token for token in vocabulary if token not in old.vocabulary]
    known = [token for token in vocabulary if token in old.vocabulary]
    embeddings[[vocabulary[token] for token in known]] = wte[[old.vocabulary[t] for t in known]]
    for start in range(0, len(new), _AT_A_TIME):
        some = new[start : start + _AT_A_TIME]
        spelled = old.encode_pieces([token_bytes(token) for token in some])
        ids = spelled.take(np.arange(len(some)))
        sums = np.add.reduceat(wte[ids], np.cumsum(spelled.lengths) - spelled.lengths)
        embeddings[[vocabulary[token] for token in some]] = sums / spelled.lengths[:, None]
    return {**weights, WTE: embeddings}
