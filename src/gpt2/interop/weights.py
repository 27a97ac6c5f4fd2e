"""A model between two formats: its sizes, its vocabulary, and tensors that are read one by one.

A reader of a format returns a `PortableModel`; a writer takes one. Neither holds more than one
tensor in memory, since a model may be as large as the memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import HPARAMS_FILE, STATE_FILE, ModelFolder, write_checkpoint_state
from gpt2.checkpoint.new_model import CHECKPOINT
from gpt2.errors import UserError, quoted
from gpt2.hparams import HParams
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE, write_vocabulary

# The seven files of a released model, which `write_model` writes and `--overwrite` may replace.
MODEL_FILES = (
    STATE_FILE,
    ENCODER_FILE,
    HPARAMS_FILE,
    MERGES_FILE,
    *(CHECKPOINT + ending for ending in (bundle.DATA, bundle.INDEX, bundle.META)),
)
# What a SavedModel consists of; here so that commands know it without TensorFlow.
SAVED_MODEL_FILES = ("saved_model.pb", "fingerprint.pb", "variables", "assets")


@dataclasses.dataclass(frozen=True)
class PortableModel:
    """A GPT-2 as OpenAI defines it, whatever file it comes from.

    Attributes:
        hparams: the sizes.
        vocabulary: id of each token, spelled as in `encoder.json`.
        merges: pairs of tokens to merge, in order of priority.
        read: returns the tensor of one of the names in `hparams.tensor_shapes()`, float32 and of
            that shape; each call reads it from the file again. Raises `UserError` if it cannot.
    """

    hparams: HParams
    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    read: Callable[[str], np.ndarray]

    def check_vocabulary(self) -> None:
        """Check that each token has an embedding, which most formats demand.

        Raises:
            UserError: the vocabulary has an id beyond the embeddings.
        """
        last, number = max(self.vocabulary.items(), key=lambda pair: pair[1])
        if number >= self.hparams.n_vocab:
            raise UserError(
                f"The vocabulary has token {quoted(last)} with id {number}, but the model has "
                f"{self.hparams.n_vocab} embeddings. Use the vocabulary and weights of one model."
            )

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and value of each tensor, sorted by name, read when its turn comes."""
        for name in self.hparams.tensor_shapes():
            yield name, self.read(name)


def open_model_folder(model: ModelFolder) -> PortableModel:
    """Return the model of a model folder or run, without reading its weights.

    Raises:
        UserError: a file is missing, or checkpoint and `hparams.json` are of two models.
    """
    tokenizer = model.tokenizer()
    read = bundle.tensor_reader(model.checkpoint, model.hparams, model.path / HPARAMS_FILE)
    return PortableModel(model.hparams, tokenizer.vocabulary, tokenizer.merges, read)


def write_model(
    path: Path,
    model: PortableModel,
    overwrite: bool = False,
    load_tensorflow: Callable[[], object] = lambda: None,
) -> None:
    """Write a model folder with the seven files of a released model, atomically.

    Args:
        overwrite: replace a model folder of that name, unless other files lie in it.
        load_tensorflow: called before TensorFlow is needed, which is when the weights are written:
            it takes as much memory as a model.

    Raises:
        UserError: the folder exists or cannot be written, or the vocabulary does not fit the model.
    """
    model.check_vocabulary()
    with files.atomic_folder(path, MODEL_FILES if overwrite else ()) as folder:
        model.hparams.save(folder / HPARAMS_FILE)
        write_vocabulary(folder, model.vocabulary, model.merges)
        shapes = model.hparams.tensor_shapes()
        bundle.write_streamed(folder / CHECKPOINT, shapes, model.read)
        load_tensorflow()
        bundle.write_meta(folder / CHECKPOINT, shapes)
        write_checkpoint_state(folder, [CHECKPOINT])
