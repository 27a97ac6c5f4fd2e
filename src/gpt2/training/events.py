"""The event files that TensorBoard draws its curves from.

TensorFlow no longer brings TensorBoard's writer along, and needs none: an event file is a TFRecord
file of Event messages, the first of which names the format.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import tensorflow as tf

from gpt2 import files


class EventFile:
    """Appends numbers to an event file of its own in a run's folder."""

    def __init__(self, folder: Path):
        self._path = folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._writer = tf.io.TFRecordWriter(str(self._path))
        self._write(file_version="brain.Event:2")

    def scalars(self, step: int, **values: float) -> None:
        """Append numbers of one step under their names, and hand them to the system."""
        summary = tf.compat.v1.Summary(
            value=[
                tf.compat.v1.Summary.Value(tag=tag, simple_value=value)
                for tag, value in values.items()
            ]
        )
        self._write(step=step, summary=summary)

    def close(self) -> None:
        """End the file."""
        self._writer.close()

    def _write(self, **fields: object) -> None:
        event = tf.compat.v1.Event(wall_time=time.time(), **fields)
        try:
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except tf.errors.OpError as error:
            reason = error.message.rpartition("; ")[2]  # the path comes before it
            raise files.cannot_write(self._path, OSError(reason)) from error
