"""What going on to the bit needs beyond the weights, in files beside each checkpoint.

    state-STEP.{data-00000-of-00001,index}   the optimizer's tensors, if it has any
    state-STEP.json                          facts, and which weights and tensors they belong to

A state belongs to weights, not to a number: it counts for a checkpoint whose `.index` has the
sha256 that the `.json` names. So weights that were replaced, or are of another step, are found out.
Where a `.json` is, the state is whole: it comes last when writing and goes first when removing.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.errors import UserError, cannot_write

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

JSON = ".json"
_WEIGHTS, _TENSORS, _FACTS = "weights", "tensors", "facts"
_NAME = re.compile(r"state-\d{1,18}[\w-]*")


class ResumeState(NamedTuple):
    """What is saved beside the weights."""

    facts: Mapping[str, Any]  # small, for JSON
    tensors: Mapping[str, np.ndarray | tf.Variable]


def state_prefix(checkpoint: Path) -> Path:
    """Where the state of a checkpoint lies: model-30 has state-30."""
    return checkpoint.with_name("state" + checkpoint.name.removeprefix("model"))


def is_state(name: str) -> bool:
    """Whether a prefix of this name is a state, not weights."""
    return _NAME.fullmatch(name) is not None


def read_facts(prefix: Path, checkpoint: Path) -> dict[str, Any] | None:
    """The facts of a state, or None if there is no state; no TensorFlow is needed.

    Raises:
        UserError: it cannot be read, is not whole, or belongs to other weights than `checkpoint`.
    """
    path = bundle.with_ending(prefix, JSON)
    if not path.is_file():
        return None
    content = files.read_json_object(path)
    if content.get(_WEIGHTS) != bundle.fingerprint(checkpoint):
        raise UserError(f"{path} belongs to other weights than {checkpoint}.")
    if content.get(_TENSORS) != _fingerprint_or_none(prefix):
        raise UserError(f"{path} belongs to other tensors than {prefix}{bundle.INDEX}.")
    if not isinstance(facts := content.get(_FACTS), dict):
        raise UserError(f"{path} is damaged: it holds no {_FACTS!r}.")
    return facts


def read_tensors(prefix: Path) -> dict[str, np.ndarray]:
    """The tensors of a state that `read_facts` has found whole, by name.

    Raises:
        UserError: they are damaged.
    """
    return bundle.read_all(prefix) if _fingerprint_or_none(prefix) else {}


def parts(prefix: Path) -> list[Path]:
    """The files of a state, the one that says it is whole first."""
    return [bundle.with_ending(prefix, JSON), *bundle.parts(prefix)]


@contextlib.contextmanager
def staged(prefix: Path, state: ResumeState, weights: Path) -> Iterator[Path]:
    """Write a state beside `prefix`, for `place` to put into place; see `bundle.staged`.

    Args:
        weights: the checkpoint that it belongs to, at the prefix where it is now.

    Raises:
        UserError: it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if state.tensors:
            partial = stack.enter_context(bundle.staged(prefix, state.tensors, legacy=False))
        else:
            partial = files.partial_path(prefix)
        path = bundle.with_ending(partial, JSON)
        stack.callback(path.unlink, missing_ok=True)
        content = {
            _WEIGHTS: bundle.fingerprint(weights),
            _TENSORS: _fingerprint_or_none(partial),
            _FACTS: dict(state.facts),
        }
        try:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise cannot_write(prefix, error) from error
        yield partial


def place(partial: Path, prefix: Path) -> None:
    """Give a staged state its name.

    Raises:
        UserError: the file system refuses; nothing is left at `prefix` then.
    """
    with bundle.replacing(prefix, remove):
        bundle.place(partial, prefix)
        files.move_into_place(bundle.with_ending(partial, JSON), bundle.with_ending(prefix, JSON))


def remove(prefix: Path) -> None:
    """Delete the files of a state; those not there are no error."""
    for path in parts(prefix):
        path.unlink(missing_ok=True)


def prefixes(folder: Path) -> list[Path]:
    """The prefixes of all files in a folder that are parts of a state."""
    stems = {path.name.split(".")[0] for path in folder.glob("state-*.*")}
    return [folder / stem for stem in sorted(stems) if is_state(stem)]


def _fingerprint_or_none(prefix: Path) -> str | None:
    return (
        bundle.fingerprint(prefix) if bundle.with_ending(prefix, bundle.INDEX).is_file() else None
    )
