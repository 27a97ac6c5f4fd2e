"""The standard streams of a command: closed or full, they must not cost any work."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

# Errors of an output whose reader is gone, such as `head` or a terminal.
_GONE = (errno.EPIPE, errno.EIO, errno.EINVAL)


class OutputError(Exception):
    """Standard output is closed or cannot be written; its text is the sentence for the user."""


class Output:
    """Standard output or error: writing never fails, so that work is finished and saved.

    The first error is remembered, and what follows is dropped.
    """

    def __init__(self, stream: TextIO, error: OSError | None = None):
        """Wrap a stream of the process.

        Args:
            error: why the stream, which takes any text, stands in for a closed one.
        """
        self.stream = stream
        self.closed_error = error
        self.error: OSError | None = None
        self.on_close: Callable[[], object] | None = None  # called when the reader is gone

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        self._try(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            # What is still buffered would fail again, at the latest when the process exits.
            _connect_to_nothing(self.stream.fileno(), os.O_WRONLY)
            if self.on_close and error.errno in _GONE:
                self.on_close()
            else:
                self.error = error


def prepare() -> None:
    """Make the standard streams of this process safe to use.

    Text is UTF-8 whatever the system's code page is. A closed stream is replaced by an empty one,
    and its descriptor is taken, lest the next file that is opened gets it.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            _connect_to_nothing(descriptor, os.O_RDWR)
        stream, error = getattr(sys, name), None
        if isinstance(stream, Output):
            continue
        if stream is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 (open until the process exits)
            error = OSError(errno.EBADF, "closed")
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
        setattr(sys, name, stream if mode == "r" else Output(stream, error))


def _connect_to_nothing(descriptor: int, flags: int) -> None:
    nowhere = os.open(os.devnull, flags)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    os.set_inheritable(descriptor, True)


def check_output() -> None:
    """Check that what has been printed so far was written, for commands whose result it is.

    Raises:
        BrokenPipeError: the reader is gone.
        OutputError: standard output is closed, or cannot be written.
    """
    if isinstance(sys.stdout, Output):
        _raise(sys.stdout.error or sys.stdout.closed_error)


def finish() -> None:
    """Flush standard output; raises as `check_output` does, but not if it was closed before."""
    if isinstance(sys.stdout, Output):
        sys.stdout.flush()
        error, sys.stdout.error = sys.stdout.error, None
        _raise(error)


def _raise(error: OSError | None) -> None:
    if isinstance(error, BrokenPipeError):
        raise error
    if error is not None:
        raise OutputError(
            f"Standard output: cannot be written ({error.strerror}). Redirect it to another file."
        ) from error


@contextlib.contextmanager
def on_close(call: Callable[[], object]) -> Iterator[None]:
    """Call a function, instead of failing later, if a reader goes away within the block."""
    outputs = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, Output)]
    for output in outputs:
        output.on_close = call
    try:
        yield
    finally:
        for output in outputs:
            output.on_close = None
