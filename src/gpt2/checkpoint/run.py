"""The folder of a training run, `checkpoint/RUN/`, laid out as in 2019.

    model-STEP.{data-00000-of-00001,index,meta}   the newest checkpoints
    checkpoint                                    which ones these are
    counter                                       the step of the newest
    hparams.json  encoder.json  vocab.bpe         copies, so that the run is a model folder too

and what 2019 did not have:

    state-STEP.{data-00000-of-00001,index,json}   the optimizer's state of the newest two; `state`
    best/                                         the best checkpoint so far, a model folder too
    lock                                          held by the training that is at work; `lock`
    unfinished                                    while saving: what to delete should it be killed
    history.jsonl  config.json  events.out.*      for plots and for repeating the run

The file `checkpoint` is what counts and is replaced last, in one instant: a kill or a full disk
before that leaves the previous checkpoint in force, after it the new one. The step to resume
from is therefore taken from the name of the checkpoint in force; `counter` is kept for the
programs of 2019, and read only for a checkpoint without a step in its name.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files
from gpt2.checkpoint import bundle, folder
from gpt2.checkpoint import state as state_files
from gpt2.checkpoint.folder import HPARAMS_FILE, ModelFolder
from gpt2.checkpoint.state import ResumeState, state_prefix
from gpt2.errors import UserError, cannot_write
from gpt2.hparams import HParams
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

COUNTER = "counter"
UNFINISHED = "unfinished"
BEST = "best"
STATES = 2  # an optimizer's state may be twice the size of the weights
# What a checkpoint is called while another of the same step takes its name.
ASIDE = "-previous"
_NAME = re.compile(rf"model-(\d{{1,18}})(?:{ASIDE})?")

# How to tell whether two of these files say the same, whoever wrote them.
_MEANING = {
    HPARAMS_FILE: HParams.load,
    ENCODER_FILE: files.read_json_object,
    MERGES_FILE: files.read_text,
}


class RunFolder:
    """Saves and finds the checkpoints of one run."""

    def __init__(self, path: Path, keep: int = 5):
        """`keep`: how many of its newest checkpoints the run keeps, 1 or more."""
        self.path = path
        self.keep = keep

    @property
    def best(self) -> RunFolder:
        """The folder of the checkpoint with the lowest validation loss so far."""
        return RunFolder(self.path / BEST, keep=1)

    def adopt(self, model: ModelFolder) -> None:
        """Make the folder ready for training from `model`: call it before the first `save`.

        Copies what makes the run a model folder of its own, and clears away what a killed
        writer left.

        Raises:
            UserError: the run belongs to a model with another size or vocabulary, or the
                folder cannot be written.
        """
        self.check_model(model)
        files.make_folder(self.path)
        self._remove_leftovers()
        for name in _MEANING:
            if not (self.path / name).is_file():
                content = _read(model.file(name))
                with files.atomic_write(self.path / name) as file:
                    file.write(content)

    def check_model(self, model: ModelFolder) -> None:
        """Find out whether the run can be trained from `model`; nothing is changed.

        Raises:
            UserError: the run belongs to a model with another size or vocabulary.
        """
        self._refuse_another_size(model)
        for name, meaning in _MEANING.items():
            source, copy = model.file(name), self.path / name
            if copy.is_file() and _read(source) != _read(copy) and meaning(source) != meaning(copy):
                raise UserError(
                    f"The run {self.path} belongs to a model with another {name} than "
                    f"{model.path}; give this training another run name, or delete that folder."
                )

    def latest(self) -> tuple[Path, int] | None:
        """Prefix and step of the checkpoint in force, or None if the run has none.

        Raises:
            UserError: it lacks a file, or has no step in its name and `counter` none either.
        """
        prefix = folder.latest_checkpoint(self.path)
        if prefix is None:
            return None
        return prefix, self.step_of(prefix)

    def step_of(self, prefix: Path) -> int:
        """The step of one of the run's checkpoints: from its name, or else from `counter`.

        Raises:
            UserError: neither tells.
        """
        named = _NAME.fullmatch(prefix.name)
        return int(named[1]) if named else self._counter()

    @property
    def last_step(self) -> int:
        """The step of the checkpoint in force, 0 if there is none."""
        latest = self.latest()
        return latest[1] if latest else 0

    def prefix(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.path / f"model-{step}"

    def checkpoints(self) -> list[Path]:
        """The prefixes of the run's checkpoints, the newest first, whether whole or not.

        Raises:
            UserError: it cannot be told which one is the newest.
        """
        return [self.path / name for name in reversed(folder.found_checkpoints(self.path))]

    def state_of(self, prefix: Path) -> Path:
        """Where the state of one of the run's checkpoints, or of its best, lies."""
        return self.path / state_prefix(prefix).name

    def save(
        self,
        step: int,
        tensors: Mapping[str, np.ndarray | tf.Variable],
        hparams: HParams,
        state: ResumeState | None = None,
    ) -> Path:
        """Write the checkpoint of this step and delete the oldest beyond `keep`; its prefix.

        Only checkpoints that the file `checkpoint` names count, and are ever deleted.

        Args:
            state: what going on exactly needs beyond the weights, kept for the newest two.

        Raises:
            UserError: it cannot be written; the checkpoint in force before still is, or the new
                one, whole.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != hparams.tensor_shapes():
            raise ValueError("the tensors are not those of a model with these hparams")
        files.make_folder(self.path)
        prefix = self.prefix(step)
        name = prefix.name
        names = folder.checkpoint_names(self.path)
        others = [other for other in names if other not in (name, name + ASIDE)]
        kept = [*others, name][-self.keep :]
        # Not a model.ckpt that the user put here and named.
        fallen_out = [old for old in names if old not in kept and _NAME.fullmatch(old)]
        with contextlib.suppress(OSError, UserError):
            self._finish(names)
        try:
            with contextlib.ExitStack() as stack:
                partial = stack.enter_context(bundle.staged(prefix, tensors))
                if state is not None:
                    partial_state = stack.enter_context(
                        state_files.staged(self.state_of(prefix), state, partial)
                    )
                if name in names:
                    # Also where no file names the only checkpoint, since there are going to be two.
                    folder.write_checkpoint_state(self.path, names)
                try:
                    lines = (f"{it}\n" for it in (name, name + ASIDE, *fallen_out))
                    files.write_text(self.path / UNFINISHED, "".join(lines))
                    if name in names:
                        self._set_aside(name, names)
                    state_files.remove(self.state_of(prefix))
                    if state is not None:
                        state_files.place(partial_state, self.state_of(prefix))
                    bundle.place(partial, prefix)
                    files.write_text(self.path / COUNTER, f"{step}\n")
                    folder.write_checkpoint_state(self.path, kept)
                except BaseException:
                    with contextlib.suppress(OSError, UserError):
                        self._finish(folder.listed_checkpoints(self.path))
                    raise
        except OSError as error:
            raise cannot_write(prefix, error) from error
        with contextlib.suppress(OSError, UserError):
            self._finish(folder.listed_checkpoints(self.path))
            self._remove_old_states()
        return prefix

    def _set_aside(self, name: str, names: list[str]) -> None:
        """Keep a checkpoint in force under another name, since its own is about to be reused.

        Files of a checkpoint cannot be replaced in one instant, the name in force can.
        """
        prefix, aside = self.path / name, self.path / (name + ASIDE)
        names = [other for other in names if other != aside.name]
        try:
            for old, new, its in (
                (self.state_of(prefix), self.state_of(aside), state_files),
                (prefix, aside, bundle),
            ):
                its.remove(new)
                for path in its.parts(old):
                    if path.is_file():
                        ending = path.name.removeprefix(old.name)
                        _duplicate(path, bundle.with_ending(new, ending))
        except OSError as error:
            raise cannot_write(aside, error) from error
        renamed = [aside.name if other == name else other for other in names]
        folder.write_checkpoint_state(self.path, renamed)

    def _finish(self, listed: list[str]) -> None:
        """Delete what a save, done or not, has named as its own, but for what is in force."""
        path = self.path / UNFINISHED
        if not path.is_file():
            return
        for name in files.read_text(path).split("\n"):
            if name not in listed and _NAME.fullmatch(name):
                state_files.remove(self.state_of(self.path / name))
                bundle.remove(self.path / name)
        path.unlink()

    def _remove_old_states(self) -> None:
        """Delete the states that do not lie beside one of the newest checkpoints."""
        names = folder.checkpoint_names(self.path)[-STATES:]
        kept = [self.state_of(self.path / name) for name in names]
        for prefix in state_files.prefixes(self.path):
            if prefix not in kept:
                state_files.remove(prefix)

    def _remove_leftovers(self) -> None:
        files.remove_leftovers(self.path)
        named = folder.checkpoint_names(self.path)
        for index in self.path.glob(f"model-*{ASIDE}{bundle.INDEX}"):
            name = index.name.removesuffix(bundle.INDEX)
            if name not in named and _NAME.fullmatch(name):
                bundle.remove(self.path / name)
        with contextlib.suppress(OSError, UserError):
            self._finish(named)
            self._remove_old_states()

    def _refuse_another_size(self, model: ModelFolder) -> None:
        """Before hparams.json is copied to a run of 2019, which has none and may not fit."""
        names = folder.checkpoint_names(self.path)
        if names and not (self.path / HPARAMS_FILE).is_file():
            prefix = self.path / names[-1]
            if bundle.with_ending(prefix, bundle.INDEX).is_file():
                bundle.check_index(prefix, model.hparams, model.path / HPARAMS_FILE)

    def _counter(self) -> int:
        path = self.path / COUNTER
        if not path.is_file():
            return 0
        text = files.read_text(path).strip()
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise UserError(
                f"{path} should hold the number of the last step, not {text[:20]!r}; "
                "write that number there, or delete the file to count from 1."
            )
        return int(text)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _duplicate(source: Path, copy: Path) -> None:
    """A second name for the same file, or a copy where the file system has no such names."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)
        files.sync(copy)
