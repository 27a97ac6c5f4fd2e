"""Loggers: receivers of a training's metrics and samples, such as TensorBoard."""

from __future__ import annotations

import html
import os
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
    """Receives metrics and samples. All loggers use the same names of metrics:

    step: loss, average, learning_rate, gradient_norm, tokens_per_second
    validation: val_loss, val_perplexity
    """

    def log_metrics(self, step: int, **values: float) -> None:
        """Log metrics of a step.

        Raises:
            UserError: they cannot be logged now.
        """

    def log_samples(self, step: int, text: str) -> None:
        """Log the samples of a step; raises as `log_metrics`."""

    def close(self) -> None:
        """Finish; called once, after the last step."""


EVENTS = "events.out.tfevents"
RETRY = 300  # seconds before writing is tried again after an error


class TensorBoardLogger:
    """Writes metrics and samples to a new event file in a run's folder.

    TensorBoard reads event files in the order of the timestamps in their names and sorts events by
    their wall time. Both only increase here, even if the system clock is set back.
    """

    def __init__(self, folder: Path):
        """Prepare; the file is created by the first event."""
        self._folder = folder
        self._writer: tf.io.TFRecordWriter | None = None
        self._path = folder / EVENTS
        self._failed: float | None = None

    def log_metrics(self, step: int, **values: float) -> None:
        """Write scalars."""
        import tensorflow as tf

        self._write_summary(
            step,
            *(
                tf.compat.v1.Summary.Value(tag=tag, simple_value=value)
                for tag, value in values.items()
            ),
        )

    def log_samples(self, step: int, text: str) -> None:
        """Write the samples as a text."""
        import tensorflow as tf

        # TensorBoard renders Markdown, which leaves indented lines as they are.
        shown = "\n".join("    " + line for line in text.split("\n"))
        value = tf.compat.v1.Summary.Value(tag="samples", tensor=tf.make_tensor_proto([shown]))
        value.metadata.plugin_data.plugin_name = "text"
        self._write_summary(step, value)

    def close(self) -> None:
        """Close the file."""
        if self._writer:
            self._writer.close()

    def _write_summary(self, step: int, *values: tf.compat.v1.Summary.Value) -> None:
        import tensorflow as tf

        if self._failed is not None and time.monotonic() - self._failed < RETRY:
            return
        try:
            self._writer = self._writer or self._open()
            self._write(self._writer, step=step, summary=tf.compat.v1.Summary(value=values))
        except tf.errors.OpError as error:
            # The file may end in a torn record, so the next attempt starts a new one.
            self._writer, self._failed = None, time.monotonic()
            reason = error.message.rpartition("; ")[2]  # after the path
            raise cannot_write(self._path, OSError(reason)) from error
        self._failed = None

    def _open(self) -> tf.io.TFRecordWriter:
        import tensorflow as tf

        names = (path.name for path in self._folder.glob(f"{EVENTS}.*"))
        seconds = [int(found[1]) for name in names if (found := re.match(r"\D+(\d+)", name))]
        start = max([int(time.time()), *(second + 1 for second in seconds)])
        self._offset = start - time.monotonic()
        self._path = self._folder / f"{EVENTS}.{start}.{socket.gethostname()}"
        writer = tf.io.TFRecordWriter(os.fsencode(self._path))
        self._write(writer, file_version="brain.Event:2")
        return writer

    def _write(self, writer: tf.io.TFRecordWriter, **fields: object) -> None:
        import tensorflow as tf

        event = tf.compat.v1.Event(wall_time=time.monotonic() + self._offset, **fields)
        writer.write(event.SerializeToString())
        writer.flush()


def load_wandb() -> ModuleType:
    """Return the package wandb.

    Raises:
        UserError: it is not installed or cannot be imported.
    """
    try:
        import wandb

        wandb.init  # noqa: B018  # missing if a local folder named wandb was imported
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"--wandb needs the package wandb ({error}). Install it with: pip install wandb"
        ) from error
    return wandb


class WandbLogger:
    """Logs to a run of Weights & Biases."""

    def __init__(self, project: str, name: str, folder: Path, config: Mapping[str, Any]):
        """Start a run.

        Without network or account, and with WANDB_MODE=offline, the run is stored in `folder` for
        `wandb sync`.

        Raises:
            UserError: wandb is missing or cannot start a run.
        """
        self._wandb = load_wandb()
        options = {"project": project, "name": name, "dir": str(folder), "config": dict(config)}
        try:
            try:
                self._run = self._wandb.init(**options)
            except Exception:  # wandb has many kinds of error for an unreachable service
                self._run = self._wandb.init(**options, mode="offline")
        except Exception as error:
            raise UserError(f"Weights & Biases: cannot start a run: {error}") from error

    def log_metrics(self, step: int, **values: float) -> None:
        """Log metrics of a step."""
        self._log(step, values)

    def log_samples(self, step: int, text: str) -> None:
        """Log the samples as HTML."""
        self._log(step, {"samples": self._wandb.Html(f"<pre>{html.escape(text)}</pre>")})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        try:
            self._run.log(dict(values), step=step)
        except Exception as error:
            raise UserError(f"Weights & Biases: cannot log metrics: {error}") from error
