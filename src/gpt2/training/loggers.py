"""Loggers: receivers of a training's metrics and samples, such as TensorBoard."""

from __future__ import annotations

import html
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from gpt2.errors import UserError, cannot_write

if TYPE_CHECKING:
    import tensorflow as tf


class Logger(Protocol):
    """Keeps numbers and samples; the names of numbers are the same for all of them.

    loss, average, learning_rate, gradient_norm, tokens_per_second    of a step
    val_loss, val_perplexity                                          of a validation
    """

    def log_metrics(self, step: int, **values: float) -> None:
        """Keep numbers of a step.

        Raises:
            UserError: they cannot be kept now.
        """

    def log_samples(self, step: int, text: str) -> None:
        """Keep samples; errors as above."""

    def close(self) -> None:
        """Nothing more will come."""


EVENTS = "events.out.tfevents"
RETRY = 300  # seconds after which a disk that was full is tried again


class TensorBoardLogger:
    """Appends numbers and texts to an event file of its own in a run's folder.

    TensorBoard reads the files of a folder in the order of the seconds in their names, and places
    what is in them by its time. Both only ever grow here, also where the system's clock is set
    back.
    """

    def __init__(self, folder: Path):
        """The file is made when there is something to write."""
        self._folder = folder
        self._writer: tf.io.TFRecordWriter | None = None
        self._path = folder / EVENTS
        self._failed: float | None = None

    def log_metrics(self, step: int, **values: float) -> None:
        """See `loggers.Logger`."""
        import tensorflow as tf

        self._summarise(
            step,
            *(
                tf.compat.v1.Summary.Value(tag=tag, simple_value=value)
                for tag, value in values.items()
            ),
        )

    def log_samples(self, step: int, text: str) -> None:
        """See `loggers.Logger`."""
        import tensorflow as tf

        # TensorBoard takes texts for Markdown, where indented lines stay as they are.
        shown = "\n".join("    " + line for line in text.split("\n"))
        value = tf.compat.v1.Summary.Value(tag="samples", tensor=tf.make_tensor_proto([shown]))
        value.metadata.plugin_data.plugin_name = "text"
        self._summarise(step, value)

    def close(self) -> None:
        """End the file."""
        if self._writer:
            self._writer.close()

    def _summarise(self, step: int, *values: tf.compat.v1.Summary.Value) -> None:
        import tensorflow as tf

        if self._failed is not None and time.monotonic() - self._failed < RETRY:
            return
        try:
            if self._writer is None:
                self._open()
            self._write(step=step, summary=tf.compat.v1.Summary(value=values))
        except tf.errors.OpError as error:
            # What is in the file now is unknown, so it is left and another one begun.
            self._writer, self._failed = None, time.monotonic()
            reason = error.message.rpartition("; ")[2]  # the path comes before it
            raise cannot_write(self._path, OSError(reason)) from error
        self._failed = None

    def _open(self) -> None:
        import tensorflow as tf

        names = (path.name for path in self._folder.glob(f"{EVENTS}.*"))
        seconds = [int(found[1]) for name in names if (found := re.match(r"\D+(\d+)", name))]
        began = max([int(time.time()), *(second + 1 for second in seconds)])
        self._offset = began - time.monotonic()
        self._path = self._folder / f"{EVENTS}.{began}.{socket.gethostname()}"
        self._writer = tf.io.TFRecordWriter(str(self._path))
        self._write(file_version="brain.Event:2")

    def _write(self, **fields: object) -> None:
        import tensorflow as tf

        event = tf.compat.v1.Event(wall_time=time.monotonic() + self._offset, **fields)
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def load_wandb() -> ModuleType:
    """The package.

    Raises:
        UserError: it is not installed, or broken.
    """
    try:
        import wandb

        wandb.init  # noqa: B018  # a folder of runs named wandb can be imported too
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"--wandb needs the package wandb ({error}); install it with: pip install wandb"
        ) from error
    return wandb


class WandbLogger:
    """A run there; it has the numbers' names and steps of `loggers.Logger`."""

    def __init__(self, project: str, name: str, folder: Path, config: Mapping[str, Any]):
        """Begin a run.

        Without a network or an account it is kept in `folder`, for `wandb sync`, as it is where
        the variable WANDB_MODE is "offline".
        """
        self._wandb = load_wandb()
        known = {"project": project, "name": name, "dir": str(folder), "config": dict(config)}
        try:
            try:
                self._run = self._wandb.init(**known)
            except Exception:  # of many kinds, and all mean that the service is out of reach
                self._run = self._wandb.init(**known, mode="offline")
        except Exception as error:
            raise UserError(f"Weights & Biases cannot begin a run: {error}") from error

    def log_metrics(self, step: int, **values: float) -> None:
        """See `loggers.Logger`."""
        self._log(step, values)

    def log_samples(self, step: int, text: str) -> None:
        """See `loggers.Logger`."""
        self._log(step, {"samples": self._wandb.Html(f"<pre>{html.escape(text)}</pre>")})

    def close(self) -> None:
        """See `loggers.Logger`."""
        self._run.finish()

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        try:
            self._run.log(dict(values), step=step)
        except Exception as error:
            raise UserError(f"Weights & Biases refuses the numbers: {error}") from error
