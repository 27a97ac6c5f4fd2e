"""The current checkpoint of a folder, and the other files of a model folder.

TensorFlow 1 writes beside its checkpoints a text file `checkpoint`, a text-format protocol buffer
(CheckpointState in tensorflow/python/training/checkpoint_state.proto):

    model_checkpoint_path: "model-500"
    all_model_checkpoint_paths: "model-400"
    all_model_checkpoint_paths: "model-500"

Folders are moved between machines, so only the last component of a path in it counts: a checkpoint
lies in the same folder as the file that names it. It is read without TensorFlow.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files, locks
from gpt2.checkpoint import bundle
from gpt2.checkpoint.state import is_state
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE, Tokenizer
from gpt2.workspace import ALIASES, command_line

if TYPE_CHECKING:
    import numpy as np

STATE_FILE = "checkpoint"
HPARAMS_FILE = "hparams.json"

_FIELD = re.compile(
    r"""^\s*(all_model_checkpoint_paths|model_checkpoint_path)\s*:\s*"""
    r"""(?:"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)')""",
    re.MULTILINE,
)


def listed_checkpoints(folder: Path) -> list[str]:
    """Return the checkpoints named in the file `checkpoint`, newest last; none without the file.

    Raises:
        UserError: see `read_state`.
    """
    path = folder / STATE_FILE
    return read_state(path) if path.is_file() else []


def read_state(path: Path) -> list[str]:
    """Return the checkpoints that such a file names, newest last.

    Raises:
        UserError: it names no checkpoint, or cannot be read.
    """
    newest, names = None, []
    for field, double_quoted, single_quoted in _FIELD.findall(files.read_small_text(path)):
        name = re.split(r"[/\\]", _unescape(double_quoted or single_quoted))[-1]
        if field == "model_checkpoint_path":
            newest = name
        elif _may_be_a_name(name):
            names.append(name)
    if newest is None or not _may_be_a_name(newest):
        raise UserError(
            f"{path} names no checkpoint. Write this line into it, NAME being the name of the "
            '.index file beside it: model_checkpoint_path: "NAME"'
        )
    names = [name for name in dict.fromkeys(names) if name != newest]
    return [*names, newest]


def checkpoint_names(folder: Path) -> list[str]:
    """Return `listed_checkpoints` or, without the file, the only checkpoint of the folder."""
    if (folder / STATE_FILE).is_file():
        return listed_checkpoints(folder)
    names = whole_checkpoints(folder)
    return names if len(names) == 1 else []


def found_checkpoints(folder: Path) -> list[str]:
    """Return `checkpoint_names`, refusing a folder whose newest checkpoint is ambiguous.

    Raises:
        UserError: there are several checkpoints and no file `checkpoint`.
    """
    names = checkpoint_names(folder)
    if not names and (several := whole_checkpoints(folder)):
        raise UserError(
            f"{folder} holds several checkpoints ({_some(several)}) and no file "
            f"{STATE_FILE!r} that names the newest. Give the path of one of them."
        )
    return names


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the prefix of a folder's newest checkpoint, or None if it has no checkpoint.

    Raises:
        UserError: a file of the newest one is missing, or see `found_checkpoints`.
    """
    names = found_checkpoints(folder)
    if not names:
        return None
    prefix = folder / names[-1]
    check_files(prefix)
    return prefix


def check_files(prefix: Path) -> None:
    """Check that the files of a checkpoint exist.

    Raises:
        UserError: one is missing.
    """
    for path in (bundle.with_ending(prefix, bundle.INDEX), _data_file(prefix)):
        if not _is_file(path):
            raise missing(path)


def write_checkpoint_state(folder: Path, names: Sequence[str]) -> None:
    """Write the file `checkpoint`, naming these checkpoints of the folder, newest last."""
    quoted = [json.dumps(name, ensure_ascii=False) for name in names]
    lines = [f"model_checkpoint_path: {quoted[-1]}"]
    lines += [f"all_model_checkpoint_paths: {name}" for name in quoted]
    files.write_text(folder / STATE_FILE, "\n".join(lines) + "\n")


def find_checkpoint(path: Path) -> Path:
    """Return the prefix of the checkpoint given by a folder, a prefix, or one of its files.

    Raises:
        UserError: there is no complete checkpoint.
    """
    if path.is_dir():
        prefix = latest_checkpoint(path)
        if prefix is None:
            raise UserError(f"There is no checkpoint in the folder {path}.")
        return prefix
    if not has_index(path):
        raise UserError(
            f"{path}: not a checkpoint (there is no {_prefix_of(path)}{bundle.INDEX}). Give a "
            f"folder, an {bundle.INDEX} file, or its path without the ending."
        )
    prefix = _prefix_of(path)
    check_files(prefix)
    return prefix


def has_index(path: Path) -> bool:
    """Return whether the checkpoint with this prefix, or with this file, has an `.index`."""
    return _is_file(bundle.with_ending(_prefix_of(path), bundle.INDEX))


def _prefix_of(path: Path) -> Path:
    """Return the prefix of a checkpoint given by its prefix or by one of its files."""
    endings = r"\.(index|meta|data-\d{5}-of-\d{5})$"
    return path.with_name(re.sub(endings, "", path.name)) if path.name else path


def missing(path: Path) -> UserError:
    """Return the error for a file that a model folder should have."""
    folder = path.parent.resolve()
    state = folder / STATE_FILE
    others = [name for name in whole_checkpoints(folder) if not path.name.startswith(name + ".")]
    if folder.name in ALIASES:
        remedy = f"Download the model with: {command_line('download')} {folder.name}"
    elif path.name in (HPARAMS_FILE, ENCODER_FILE, MERGES_FILE):
        remedy = (
            f"Copy {HPARAMS_FILE}, {ENCODER_FILE} and {MERGES_FILE} from the folder of the model "
            "that this one was trained from."
        )
    elif path.name == STATE_FILE and (folder / locks.RUN_LOCK).is_file():
        remedy = "This run has not saved a checkpoint yet. Resume its training first."
    elif state.is_file() and others:
        remedy = (
            f"Copy it there, or name a complete checkpoint in the file {STATE_FILE!r} beside it: "
            f"{_some(others)}"
        )
    else:
        remedy = "Copy it from the original model folder."
    return UserError(f"{path} is missing. {remedy}")


class ModelFolder:
    """A folder with a checkpoint, `hparams.json` and a vocabulary: a released model or a run.

    Files are read when they are first needed; a missing one is a `UserError` that says how to get
    it.
    """

    def __init__(self, path: Path, name: str | None = None):
        """Represent a folder, without reading it.

        Args:
            path: the folder.
            name: the checkpoint to use, such as `model-200`; None for the newest.
        """
        self.path = path
        self._name = name

    @functools.cached_property
    def hparams(self) -> HParams:
        """The numbers in `hparams.json`."""
        return HParams.load(self.file(HPARAMS_FILE))

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of `encoder.json` and `vocab.bpe`."""
        for name in (ENCODER_FILE, MERGES_FILE):
            self.file(name)
        return Tokenizer.load(self.path)

    def n_vocab(self, tokenizer: Tokenizer) -> int:
        """Return the size of the vocabulary, also of a folder with a vocabulary alone.

        Args:
            tokenizer: of this folder.
        """
        if _is_file(self.path / HPARAMS_FILE):
            return self.hparams.n_vocab
        return max(tokenizer.vocabulary.values()) + 1

    @property
    def checkpoint(self) -> Path:
        """The prefix of the checkpoint to use, whose files exist."""
        if self._name is not None:
            return find_checkpoint(self.path / self._name)
        prefix = latest_checkpoint(self.path)
        if prefix is None:
            raise missing(self.path / STATE_FILE)
        return prefix

    def weights(self) -> dict[str, np.ndarray]:
        """Return the tensors of the checkpoint by name, all in memory; see `bundle.Tensors`."""
        return dict(self.tensors())

    def tensors(self) -> bundle.Tensors:
        """Return the tensors of the checkpoint, read one by one; see `bundle.Tensors`."""
        return bundle.Tensors(self.checkpoint, self.hparams, self.path / HPARAMS_FILE)

    def file(self, name: str) -> Path:
        """Return the path of a file after checking that it exists."""
        path = self.path / name
        if not _is_file(path):
            raise missing(path)
        return path


def _may_be_a_name(text: str) -> bool:
    """Return whether a text can be the name of a checkpoint inside the folder."""
    hidden = re.search(r"[\x00-\x1f\x7f-\x9f]", text)
    elsewhere = not text.strip(".") or (os.name == "nt" and ":" in text)
    return len(text) < 256 and not hidden and not elsewhere


def _unescape(text: str) -> str:
    """Undo the escapes of a text proto, where old files write UTF-8 as octal bytes."""

    def undo(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) % 256]) if code[0] in b"01234567" else code

    plain = re.sub(rb"\\([0-7]{1,3}|.)", undo, text.encode("utf-8"))
    return plain.decode("utf-8", errors="replace")


def whole_checkpoints(folder: Path) -> list[str]:
    """Return the names of the checkpoints in a folder that have an index and data, sorted."""
    names = (path.name.removesuffix(bundle.INDEX) for path in folder.glob(f"*{bundle.INDEX}"))
    return sorted(
        name
        for name in names
        if files.PARTIAL not in name and not is_state(name) and _data_file(folder / name).is_file()
    )


def _data_file(prefix: Path) -> Path:
    return next(iter(bundle.data_files(prefix)), bundle.with_ending(prefix, bundle.DATA))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
