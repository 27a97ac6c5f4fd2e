"""Which checkpoint of a folder is meant, and what else a model's folder holds.

TensorFlow 1 writes beside its checkpoints a text file `checkpoint`, a text-format protocol buffer
(CheckpointState in tensorflow/python/training/checkpoint_state.proto):

    model_checkpoint_path: "model-500"
    all_model_checkpoint_paths: "model-400"
    all_model_checkpoint_paths: "model-500"

Folders are copied about, so only the last part of a path in it counts: a checkpoint lies in the
same folder as the file that names it. No TensorFlow is needed to read it.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.checkpoint.state import is_state
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE, Tokenizer
from gpt2.workspace import ALIASES

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
    """The checkpoints that the file `checkpoint` names, the newest last; none if there is no file.

    Raises:
        UserError: see `read_state`.
    """
    path = folder / STATE_FILE
    return read_state(path) if path.is_file() else []


def read_state(path: Path) -> list[str]:
    """The checkpoints that such a file names, the newest last.

    Raises:
        UserError: it names no checkpoint, or cannot be read.
    """
    newest, names = None, []
    for field, double_quoted, single_quoted in _FIELD.findall(files.read_text(path)):
        name = re.split(r"[/\\]", _unescape(double_quoted or single_quoted))[-1]
        if field == "model_checkpoint_path":
            newest = name
        elif _may_be_a_name(name):
            names.append(name)
    if newest is None or not _may_be_a_name(newest):
        raise UserError(
            f"{path} names no checkpoint; write the line "
            'model_checkpoint_path: "NAME" into it, with the name of the .index file beside it.'
        )
    names = [name for name in dict.fromkeys(names) if name != newest]
    return [*names, newest]


def checkpoint_names(folder: Path) -> list[str]:
    """As `listed_checkpoints`; without the file, the folder's checkpoint if there is just one."""
    if (folder / STATE_FILE).is_file():
        return listed_checkpoints(folder)
    names = _whole_checkpoints(folder)
    return names if len(names) == 1 else []


def found_checkpoints(folder: Path) -> list[str]:
    """As `checkpoint_names`, for those who need one.

    Raises:
        UserError: it cannot be told which one is the newest.
    """
    names = checkpoint_names(folder)
    if not names and (several := _whole_checkpoints(folder)):
        raise UserError(
            f"{folder} holds several checkpoints ({_some(several)}) and no file "
            f"{STATE_FILE!r} that says which one is meant; give the path of one of them."
        )
    return names


def latest_checkpoint(folder: Path) -> Path | None:
    """The prefix of a folder's newest checkpoint, or None if there is none.

    Raises:
        UserError: the newest one lacks a file, or it cannot be told which one is the newest.
    """
    names = found_checkpoints(folder)
    if not names:
        return None
    prefix = folder / names[-1]
    check_files(prefix)
    return prefix


def check_files(prefix: Path) -> None:
    """Find out whether a checkpoint's files are there.

    Raises:
        UserError: one is not.
    """
    for path in (bundle.with_ending(prefix, bundle.INDEX), _data_file(prefix)):
        if not _is_file(path):
            raise missing(path)


def write_checkpoint_state(folder: Path, names: Sequence[str]) -> None:
    """Write the file `checkpoint`, naming these checkpoints of the folder, the newest last."""
    quoted = [json.dumps(name, ensure_ascii=False) for name in names]
    lines = [f"model_checkpoint_path: {quoted[-1]}"]
    lines += [f"all_model_checkpoint_paths: {name}" for name in quoted]
    files.write_text(folder / STATE_FILE, "\n".join(lines) + "\n")


def find_checkpoint(path: Path) -> Path:
    """The prefix that a folder, a prefix, or one of a checkpoint's files stands for.

    Raises:
        UserError: there is no whole checkpoint.
    """
    if path.is_dir():
        prefix = latest_checkpoint(path)
        if prefix is None:
            raise UserError(f"There is no checkpoint in the folder {path}.")
        return prefix
    endings = r"\.(index|meta|data-\d{5}-of-\d{5})"
    prefix = path.with_name(re.sub(endings + "$", "", path.name)) if path.name else path
    if not _is_file(bundle.with_ending(prefix, bundle.INDEX)):
        raise UserError(
            f"{path} is no checkpoint: there is no {prefix}{bundle.INDEX}; give a folder, an "
            f"{bundle.INDEX} file, or its path without the ending."
        )
    if not _is_file(_data_file(prefix)):
        raise missing(_data_file(prefix))
    return prefix


def missing(path: Path) -> UserError:
    """The sentence for a file that a model's folder should have."""
    folder = path.parent.resolve()
    state = folder / STATE_FILE
    others = [name for name in _whole_checkpoints(folder) if not path.name.startswith(name + ".")]
    if folder.name in ALIASES:
        remedy = f"fetch the model with: python download_model.py {folder.name}"
    elif path.name in (HPARAMS_FILE, ENCODER_FILE, MERGES_FILE):
        remedy = (
            f"copy {HPARAMS_FILE}, {ENCODER_FILE} and {MERGES_FILE} from the folder of the model "
            "that this one was trained from"
        )
    elif state.is_file() and others:
        remedy = (
            f"copy it there, or name in the file {STATE_FILE!r} beside it a checkpoint that is "
            f"whole: {_some(others)}"
        )
    else:
        remedy = "copy it there from where the model was made"
    return UserError(f"{path} is missing; {remedy}")


class ModelFolder:
    """A folder with a checkpoint, `hparams.json` and a vocabulary: a released model or a run.

    Each file is asked for when it is first needed; one that is missing is a `UserError` that
    says how to get it.
    """

    def __init__(self, path: Path, name: str | None = None):
        """Prepare.

        Args:
            name: of the checkpoint that is meant; None for the newest.
        """
        self.path = path
        self._name = name

    @functools.cached_property
    def hparams(self) -> HParams:
        """The sizes in `hparams.json`."""
        return HParams.load(self.file(HPARAMS_FILE))

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of `encoder.json` and `vocab.bpe`."""
        for name in (ENCODER_FILE, MERGES_FILE):
            self.file(name)
        return Tokenizer.load(self.path)

    @property
    def checkpoint(self) -> Path:
        """The prefix of the checkpoint that is meant, its files being there."""
        if self._name is not None:
            return find_checkpoint(self.path / self._name)
        prefix = latest_checkpoint(self.path)
        if prefix is None:
            raise missing(self.path / STATE_FILE)
        return prefix

    def weights(self) -> dict[str, np.ndarray]:
        """The tensors of that checkpoint by name; see `bundle.read_tensors`."""
        hparams = self.hparams
        return dict(bundle.read_tensors(self.checkpoint, hparams, self.path / HPARAMS_FILE))

    def file(self, name: str) -> Path:
        """The path of a file that has to be in the folder."""
        path = self.path / name
        if not _is_file(path):
            raise missing(path)
        return path


def _may_be_a_name(text: str) -> bool:
    """Whether files of the folder, and none elsewhere, can begin with it."""
    hidden = re.search(r"[\x00-\x1f\x7f-\x9f]", text)
    elsewhere = not text.strip(".") or (os.name == "nt" and ":" in text)
    return len(text) < 256 and not hidden and not elsewhere


def _unescape(text: str) -> str:
    """Undo a text proto's escapes; letters outside ASCII are octal bytes of UTF-8 in old files."""

    def undo(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) % 256]) if code[0] in b"01234567" else code

    plain = re.sub(rb"\\([0-7]{1,3}|.)", undo, text.encode("utf-8"))
    return plain.decode("utf-8", errors="replace")


def _whole_checkpoints(folder: Path) -> list[str]:
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
    except OSError:  # a name longer than any file's
        return False


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
