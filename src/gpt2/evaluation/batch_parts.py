"""Batches of an evaluation that several machines share; see `gpt2.parts`.

Every machine forms the same batches from the same texts and computes every N-th of them, so that a
batch has the same scores, bit for bit, as if one machine had computed all. What is then made of the
scores does not know where they were computed.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gpt2.errors import UserError
from gpt2.jsonl import RecordFile, complete_lines
from gpt2.parts import KEY, Part, in_order, not_a_part

_FLOAT = np.dtype("<f4")


# Returns the scores of the next batch, float32 of a shape; calls the function if they are needed.
Batches: TypeAlias = Callable[[Callable[[], np.ndarray], Sequence[int]], np.ndarray]


def all_batches(compute: Callable[[], np.ndarray], _shape: Sequence[int]) -> np.ndarray:
    """Compute every batch."""
    return compute()


class PartBatches:
    """Computes the batches of one part and writes them to its file, which can be resumed.

    Use it as a context manager. What it returns for a batch is not to be used: it is all zeros,
    unless the batch was computed just now.

    Attributes:
        computed: number of the batches that were computed by this call.
        existing: number of the batches that the file had already.
    """

    def __init__(self, path: Path, part: Part, facts: Mapping[str, Any]):
        """Read which batches exist.

        Args:
            facts: everything that decides the scores, by name.

        Raises:
            UserError: the file is another part, or something else.
        """
        self._part, self._next, self.computed = part, 0, 0
        self._file = RecordFile(path, {**facts, KEY: str(part)}, _read)
        self._done = {number for number, _ in self._file.records}
        self._opened, self._is_open = contextlib.ExitStack(), False
        self.existing = len(self._done - {None})

    def __enter__(self) -> PartBatches:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with self._opened:
            if error is None and not self._done:
                self._open()

    def __call__(self, compute: Callable[[], np.ndarray], shape: Sequence[int]) -> np.ndarray:
        """Compute the next batch if it is to be computed here; see `Batches`."""
        number = self._next
        self._next += 1
        if not self._part.has(number) or number in self._done:
            return np.zeros(shape, _FLOAT)
        found = compute()
        scores = base64.b64encode(found.astype(_FLOAT).tobytes()).decode()
        self._open()
        self._file.append({"batch": number, "scores": scores})
        self.computed += 1
        return found

    def _open(self) -> None:
        """Open the file at the first batch, so that bad input does not leave one."""
        if self._is_open:
            return
        self._opened.enter_context(self._file)
        self._is_open = True
        if not self._done:  # a part without batches has to say which one it is
            self._file.append({"batch": None, "scores": ""})


class MergedBatches:
    """Returns the batches that the parts have."""

    def __init__(self, paths: Sequence[Path], facts: Mapping[str, Any]):
        """Read the parts.

        Raises:
            UserError: they are not all parts of an evaluation with these facts.
        """
        self._paths = in_order({path: _facts(path) for path in paths}, facts)
        self._scores = [dict(RecordFile(path, _facts(path), _read).records) for path in self._paths]
        self._next = 0

    def __call__(self, compute: Callable[[], np.ndarray], shape: Sequence[int]) -> np.ndarray:
        """Return the next batch; see `Batches`.

        Raises:
            UserError: its part does not have it.
        """
        place = self._next % len(self._paths)
        found = self._scores[place].get(self._next)
        if found is None:
            raise UserError(
                f"{self._paths[place]}: unfinished part {place + 1}/{len(self._paths)}, without "
                f"batch {self._next + 1:,}. Repeat the command that wrote it, which resumes."
            )
        if found.size != np.prod(shape):
            raise not_a_part(self._paths[place])
        self._next += 1
        return found.reshape(shape)


def _read(record: dict[str, Any]) -> tuple[int | None, np.ndarray]:
    """Return number and scores of a batch."""
    number = record["batch"]
    scores = base64.b64decode(record["scores"], validate=True)
    return (None if number is None else int(number)), np.frombuffer(scores, _FLOAT)


def _facts(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(complete_lines(path)[0])["settings"])
    except (IndexError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise not_a_part(path) from error
