"""The folder of a training run, `checkpoint/RUN/`, laid out as in 2019.

    model-STEP.{data-00000-of-00001,index,meta}   the newest checkpoints
    checkpoint                                    their names
    counter                                       the step of the newest
    hparams.json  encoder.json  vocab.bpe         copies, so that the run is a model folder too

and files that 2019 did not have:

    state-STEP.{data-00000-of-00001,index,json}   resume state of the newest two; see `state`
    best/                                         the best checkpoint so far, a model folder too
    best-N/  earlier-N/                           what a new beginning would have replaced
    lock                                          held by a running training; see `gpt2.locks`
    unfinished                                    during a save: the files to delete after a kill
    history.jsonl  config.json  events.out.*      for plots and for repeating the run
    template.json                                 of the examples; see `gpt2.data.templates`

The file `checkpoint` names the current checkpoint and is replaced last and atomically: a kill or a
full disk before that leaves the previous checkpoint current, after it the new one. So the step to
resume from is taken from the name of the current checkpoint; `counter` is written for the programs
of 2019 and read only for a checkpoint without a step in its name.
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
from gpt2.data import templates
from gpt2.errors import UserError, cannot_read, cannot_write
from gpt2.hparams import HParams
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

COUNTER = "counter"
UNFINISHED = "unfinished"
BEST = "best"
EARLIER = "earlier-{}"
STATES = 2  # resume states kept; Adam's is twice the size of the weights
# Suffix of a checkpoint while another one of the same step is saved.
ASIDE = "-previous"
_NAME = re.compile(rf"model-(\d{{1,18}})(?:{ASIDE})?")

# Parsers whose results decide whether two of these files are equivalent.
_MEANING = {
    HPARAMS_FILE: HParams.load,
    ENCODER_FILE: files.read_json_object,
    MERGES_FILE: files.read_small_text,
}


class RunFolder:
    """The folder of a run; saves and finds its checkpoints."""

    def __init__(self, path: Path, keep: int = 5):
        """Represent a run's folder, which need not exist.

        Args:
            keep: number of newest checkpoints to keep, at least 1.
        """
        self.path = path
        self.keep = keep

    @property
    def best(self) -> RunFolder:
        """The folder of the checkpoint with the lowest validation loss so far."""
        return RunFolder(self.path / BEST, keep=1)

    def adopt(self, model: ModelFolder) -> None:
        """Prepare the folder for training from `model`; call it before the first `save`.

        Copies `hparams.json`, the vocabulary and the template, and deletes what a killed training
        left.

        Raises:
            UserError: the run belongs to a model of another size or vocabulary, or the folder
                cannot be written.
        """
        self.check_model(model)
        files.make_folder(self.path)
        self._remove_leftovers()
        for name in _MEANING:
            if not (self.path / name).is_file():
                content = _read(model.file(name))
                with files.atomic_write(self.path / name) as file:
                    file.write(content)
        if (saved := templates.load(model.path)) is not None and model.path != self.path:
            templates.save(self.path, saved)

    def check_model(self, model: ModelFolder) -> None:
        """Check that the run can be trained from `model`, without changing anything.

        Raises:
            UserError: the run belongs to a model of another size or vocabulary.
        """
        self._refuse_another_size(model)
        for name, meaning in _MEANING.items():
            source, copy = model.file(name), self.path / name
            if copy.is_file() and _read(source) != _read(copy) and meaning(source) != meaning(copy):
                raise UserError(
                    f"The run {self.path} belongs to a model with another {name} than "
                    f"{model.path}. Choose another run name, or delete that folder."
                )

    def step_of(self, prefix: Path) -> int:
        """Return the step of a checkpoint of the run: from its name, or else from `counter`.

        Raises:
            UserError: `counter` is needed and holds no number.
        """
        named = _NAME.fullmatch(prefix.name)
        return int(named[1]) if named else self._counter()

    def prefix(self, step: int) -> Path:
        """Return the prefix of the checkpoint of a step."""
        return self.path / f"model-{step}"

    def checkpoints(self) -> list[Path]:
        """Return the prefixes of the run's checkpoints, newest first, complete or not.

        Raises:
            UserError: see `folder.found_checkpoints`.
        """
        return [self.path / name for name in reversed(folder.found_checkpoints(self.path))]

    def state_of(self, prefix: Path) -> Path:
        """Return the prefix of the resume state of a checkpoint of the run or of `best/`."""
        return self.path / state_prefix(prefix).name

    def save(
        self,
        step: int,
        tensors: Mapping[str, np.ndarray | tf.Variable],
        hparams: HParams,
        state: ResumeState | None = None,
    ) -> Path:
        """Write the checkpoint of a step, delete the oldest beyond `keep`, and return its prefix.

        Only checkpoints listed in the file `checkpoint` count and are ever deleted.

        Args:
            state: needed to resume exactly; kept for the newest two checkpoints.

        Raises:
            UserError: it cannot be written. The current checkpoint is the one before or the new
                one, and complete.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != hparams.tensor_shapes():
            raise ValueError("the tensors are not those of a model with these hparams")
        files.make_folder(self.path)
        prefix = self.prefix(step)
        names = folder.checkpoint_names(self.path)
        # 1. Delete what an earlier save that was killed left behind.
        with contextlib.suppress(OSError, UserError):
            self._finish(names)
        try:
            with contextlib.ExitStack() as stack:
                # 2. Write the new files under temporary names: all that takes long.
                partial = stack.enter_context(bundle.staged(prefix, tensors))
                partial_state = None
                if state is not None:
                    its_state = state_files.staged(self.state_of(prefix), state, partial)
                    partial_state = stack.enter_context(its_state)
                # 3. Give them their names, and name the checkpoint the current one.
                self._replace(prefix, names, partial, partial_state, step)
        except OSError as error:
            raise cannot_write(prefix, error) from error
        # 4. Delete the checkpoints and states that are no longer kept.
        self._clean_up()
        return prefix

    def keep_after(self, step: int) -> Path | None:
        """Move the checkpoints after a step to `earlier-N/`, as another training starts there.

        Call it after `adopt`. Step 0 means all checkpoints.

        Returns:
            The new folder, a model folder too; None if there is nothing to move.

        Raises:
            UserError: the folder cannot be written.
        """
        listed = folder.listed_checkpoints(self.path)
        found = [name for name in folder.whole_checkpoints(self.path) if _NAME.fullmatch(name)]
        found = [name for name in found if name not in listed]
        present = [*sorted(found, key=lambda name: self.step_of(self.path / name)), *listed]
        moved = [name for name in present if not step or self.step_of(self.path / name) > step]
        if not moved:
            return None
        earlier = RunFolder(files.unused(self.path / EARLIER))
        earlier.adopt(ModelFolder(self.path))
        folder.write_checkpoint_state(earlier.path, moved)
        left = [name for name in listed if name not in moved]
        try:
            for prefix in (self.path / name for name in reversed(moved)):
                for path in (*state_files.parts(self.state_of(prefix)), *bundle.parts(prefix)):
                    if path.is_file():
                        path.rename(earlier.path / path.name)
            if left:
                files.write_text(self.path / COUNTER, f"{self.step_of(self.path / left[-1])}\n")
                folder.write_checkpoint_state(self.path, left)
            else:
                for name in (folder.STATE_FILE, COUNTER):
                    (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(earlier.path, error) from error
        return earlier.path

    def _replace(
        self, prefix: Path, names: list[str], partial: Path, partial_state: Path | None, step: int
    ) -> None:
        """Put a staged checkpoint and its state into place, as the newest of the run.

        Args:
            names: the checkpoints of the run so far, newest last.
        """
        name = prefix.name
        others = [other for other in names if other not in (name, name + ASIDE)]
        kept = [*others, name][-self.keep :]
        # A checkpoint with another kind of name, such as model.ckpt, is the user's own.
        dropped = [old for old in names if old not in kept and _NAME.fullmatch(old)]
        if name in names:
            # Two checkpoints will lie here, so the current one needs a file that names it.
            folder.write_checkpoint_state(self.path, names)
        try:
            # 3a. Note what to delete if this save is killed.
            lines = (f"{line}\n" for line in (name, name + ASIDE, *dropped))
            files.write_text(self.path / UNFINISHED, "".join(lines))
            # 3b. Keep the current checkpoint under another name if its own is reused.
            if name in names:
                self._set_aside(name, names)
            # 3c. The state first, so that weights are never without the state they should have.
            state_files.remove(self.state_of(prefix))
            if partial_state is not None:
                state_files.place(partial_state, self.state_of(prefix))
            bundle.place(partial, prefix)
            # 3d. The file `checkpoint` last: from here on the new checkpoint is the current one.
            files.write_text(self.path / COUNTER, f"{step}\n")
            folder.write_checkpoint_state(self.path, kept)
        except BaseException:
            with contextlib.suppress(OSError, UserError):
                self._finish(folder.listed_checkpoints(self.path))
            raise

    def _set_aside(self, name: str, names: list[str]) -> None:
        """Rename the current checkpoint, since its name is about to be reused.

        The files of a checkpoint cannot be replaced atomically, the name of the current one can.
        """
        prefix, aside = self.path / name, self.path / (name + ASIDE)
        try:
            for old, new, kind in (
                (self.state_of(prefix), self.state_of(aside), state_files),
                (prefix, aside, bundle),
            ):
                kind.remove(new)
                for path in filter(Path.is_file, kind.parts(old)):
                    ending = path.name.removeprefix(old.name)
                    _duplicate(path, bundle.with_ending(new, ending))
        except OSError as error:
            raise cannot_write(aside, error) from error
        others = [other for other in names if other != aside.name]
        renamed = [aside.name if other == name else other for other in others]
        folder.write_checkpoint_state(self.path, renamed)

    def _clean_up(self, names: list[str] | None = None) -> None:
        """Delete what saves left, as far as the file system lets it be deleted now.

        Args:
            names: checkpoints not to delete; those that the file `checkpoint` lists by default.
        """
        with contextlib.suppress(OSError, UserError):
            self._finish(folder.listed_checkpoints(self.path) if names is None else names)
            self._remove_old_states()

    def _finish(self, listed: list[str]) -> None:
        """Delete the checkpoints noted by a save, finished or not, unless they are listed."""
        path = self.path / UNFINISHED
        if not path.is_file():
            return
        for name in files.read_small_text(path).split("\n"):
            if name not in listed and _NAME.fullmatch(name):
                state_files.remove(self.state_of(self.path / name))
                bundle.remove(self.path / name)
        path.unlink()

    def _remove_old_states(self) -> None:
        """Delete the resume states of all but the newest checkpoints."""
        names = folder.checkpoint_names(self.path)[-STATES:]
        kept = [self.state_of(self.path / name) for name in names]
        for prefix in state_files.prefixes(self.path):
            if prefix not in kept:
                state_files.remove(prefix)

    def _remove_leftovers(self) -> None:
        """Delete temporary files, and checkpoints set aside by a save that was killed."""
        files.remove_leftovers(self.path)
        named = folder.checkpoint_names(self.path)
        for index in self.path.glob(f"model-*{ASIDE}{bundle.INDEX}"):
            name = index.name.removesuffix(bundle.INDEX)
            if name not in named and _NAME.fullmatch(name):
                bundle.remove(self.path / name)
        self._clean_up(named)

    def _refuse_another_size(self, model: ModelFolder) -> None:
        """Check the size of a run of 2019, which has no hparams.json."""
        names = folder.checkpoint_names(self.path)
        if names and not (self.path / HPARAMS_FILE).is_file():
            prefix = self.path / names[-1]
            if bundle.with_ending(prefix, bundle.INDEX).is_file():
                bundle.check_index(prefix, model.hparams, model.path / HPARAMS_FILE)

    def _counter(self) -> int:
        """Return the number in the file `counter`, 0 without it."""
        path = self.path / COUNTER
        if not path.is_file():
            return 0
        text = files.read_small_text(path).strip()
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise UserError(
                f"{path} must hold the number of the last step, not {text[:20]!r}. "
                "Write that number into it, or delete the file to count from 1."
            )
        return int(text)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error


def _duplicate(source: Path, copy: Path) -> None:
    """Make a hard link, or a copy where the file system has no hard links."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)
        files.sync(copy)
