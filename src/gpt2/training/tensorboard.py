"""The event files that TensorBoard draws its curves from.

TensorFlow no longer brings TensorBoard's writer along, and needs none: an event file is a TFRecord
file of Event messages, the first of which names the format.
"""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

import tensorflow as tf

from gpt2 import files

NAME = "events.out.tfevents"
RETRY = 300  # seconds after which a disk that was full is tried again


class EventFile:
    """Appends numbers and texts to an event file of its own in a run's folder.

    TensorBoard reads the files of a folder in the order of the seconds in their names, and places
    what is in them by its time. Both only ever grow here, also where the system's clock is set
    back.
    """

    def __init__(self, folder: Path):
        """The file is made when there is something to write."""
        self._folder = folder
        self._writer: tf.io.TFRecordWriter | None = None
        self._path = folder / NAME
        self._failed: float | None = None

    def numbers(self, step: int, **values: float) -> None:
        """See `watchers.Watcher`."""
        self._summarise(
            step,
            *(
                tf.compat.v1.Summary.Value(tag=tag, simple_value=value)
                for tag, value in values.items()
            ),
        )

    def samples(self, step: int, text: str) -> None:
        """See `watchers.Watcher`."""
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
            raise files.cannot_write(self._path, OSError(reason)) from error
        self._failed = None

    def _open(self) -> None:
        names = (path.name for path in self._folder.glob(f"{NAME}.*"))
        seconds = [int(found[1]) for name in names if (found := re.match(r"\D+(\d+)", name))]
        began = max([int(time.time()), *(second + 1 for second in seconds)])
        self._offset = began - time.monotonic()
        self._path = self._folder / f"{NAME}.{began}.{socket.gethostname()}"
        self._writer = tf.io.TFRecordWriter(str(self._path))
        self._write(file_version="brain.Event:2")

    def _write(self, **fields: object) -> None:
        event = tf.compat.v1.Event(wall_time=time.monotonic() + self._offset, **fields)
        self._writer.write(event.SerializeToString())
        self._writer.flush()
