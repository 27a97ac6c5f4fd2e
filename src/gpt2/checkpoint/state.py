"""Resume state: what exact resume needs beyond the weights, in files beside each checkpoint.

    state-STEP.{data-00000-of-00001,index}   the optimizer's tensors, if it has any
    state-STEP.json                          facts, and fingerprints of the weights and tensors

A state belongs to weights, not to a step: it is valid for the checkpoint whose `.index` has the
sha256 in the `.json`, so replaced weights are noticed. A state with a `.json` is complete, as that
file is written last and removed first.
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
    """Training state that is saved beside the weights."""

    facts: Mapping[str, Any]  # small, for JSON
    tensors: Mapping[str, np.ndarray | tf.Variable]


def state_prefix(checkpoint: Path) -> Path:
    """Return the prefix of a checkpoint's state: state-30 for model-30."""
    return checkpoint.with_name("state" + checkpoint.name.removeprefix("model"))


def is_state(name: str) -> bool:
    """Return whether this is the name of a state, not of a checkpoint."""
    return _NAME.fullmatch(name) is not None


def read_facts(prefix: Path, checkpoint: Path) -> dict[str, Any] | None:
    """Return the facts of a state, or None if there is no state; TensorFlow is not needed.

    Raises:
        UserError: it cannot be read, is incomplete, or belongs to other weights than `checkpoint`.
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
        raise UserError(f"{path} is damaged (it has no {_FACTS!r}).")
    return facts


def read_tensors(prefix: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a state by name, after `read_facts` has accepted it.

    Raises:
        UserError: a tensor is corrupted.
    """
    return bundle.read_all(prefix) if _fingerprint_or_none(prefix) else {}


def parts(prefix: Path) -> list[Path]:
    """Return the paths of a state's files, the `.json` first."""
    return [bundle.with_ending(prefix, JSON), *bundle.parts(prefix)]


@contextlib.contextmanager
def staged(prefix: Path, state: ResumeState, weights: Path) -> Iterator[Path]:
    """Write a state under a temporary prefix beside `prefix`; see `bundle.staged`.

    Args:
        weights: current prefix of the checkpoint that the state belongs to.

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
    """Rename a staged state to its final prefix.

    Raises:
        UserError: the file system refuses; then nothing is left at `prefix`.
    """
    with bundle.replacing(prefix, remove):
        bundle.place(partial, prefix)
        files.move_into_place(bundle.with_ending(partial, JSON), bundle.with_ending(prefix, JSON))


def remove(prefix: Path) -> None:
    """Delete the files of a state; missing files are ignored."""
    for path in parts(prefix):
        path.unlink(missing_ok=True)


def prefixes(folder: Path) -> list[Path]:
    """Return the prefixes of all states in a folder, also of incomplete ones."""
    stems = {path.name.split(".")[0] for path in folder.glob("state-*.*")}
    return [folder / stem for stem in sorted(stems) if is_state(stem)]


def _fingerprint_or_none(prefix: Path) -> str | None:
    return (
        bundle.fingerprint(prefix) if bundle.with_ending(prefix, bundle.INDEX).is_file() else None
    )
