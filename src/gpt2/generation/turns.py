"""One generation at a time: the KV cache of an engine belongs to a single one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from gpt2.errors import UserError


class Turns:
    """Lets one generation at a time use an engine.

    A generation in another thread waits until the present one is over. One in the same thread,
    which would wait for itself, ends the present one, such as a stream that is no longer read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held while there is a turn
        self._turn: object = None
        self._thread: threading.Thread | None = None  # that the turn belongs to

    @contextlib.contextmanager
    def take(self) -> Iterator[Callable[[], None]]:
        """Wait for a turn, and keep it within the block.

        Yields:
            A function that raises `UserError` if another generation of the thread has ended this.
        """
        if self._thread is not threading.current_thread():
            self._lock.acquire()
        turn = self._turn = object()
        self._thread = threading.current_thread()

        def check() -> None:
            if self._turn is not turn:
                raise UserError(
                    "This generation was ended by a later one of the same thread. Read a stream "
                    "to its end before the next call."
                )

        try:
            yield check
        finally:
            if self._turn is turn:
                self._turn = self._thread = None
                self._lock.release()
