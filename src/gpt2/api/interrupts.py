"""Ctrl+C, and a notebook's interrupt button, as a request to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first interrupt within the block into a request to stop; the second one raises.

    Yields a function that returns whether to stop. Python delivers signals only to the main
    thread, so in any other thread nothing changes and nothing stops the work.

    Raises:
        KeyboardInterrupt: a second interrupt.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return

    def interrupt(*_: object) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
