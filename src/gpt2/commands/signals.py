"""Ctrl+C, SIGTERM and closed terminals: how a command is stopped without losing work."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from gpt2 import files
from gpt2.quiet import import_tensorflow

INTERRUPTED = 130  # the exit code that shells give to a program ended by Ctrl+C

_HANG_UP, _BREAK = getattr(signal, "SIGHUP", None), getattr(signal, "SIGBREAK", None)
# What asks a program to end besides Ctrl+C: `kill`, and a terminal that is closed.
_TERMINATION = [number for number in (signal.SIGTERM, _HANG_UP, _BREAK) if number]


def end_on_termination() -> None:
    """Handle SIGTERM and a closed terminal like Ctrl+C, so that partial files are removed."""
    for number in _TERMINATION:
        if signal.getsignal(number) == signal.SIG_DFL:  # under nohup SIGHUP is to be ignored
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def load_tensorflow(find_devices: bool = True) -> None:
    """Import TensorFlow without Keras and without its log lines; see `prepare_tensorflow`."""
    prepare_tensorflow()
    import_tensorflow(find_devices)


def prepare_tensorflow() -> None:
    """Set what has to be set before TensorFlow is imported, if it is.

    Keras is not used here, and its import doubles the time. From here on Ctrl+C ends the process
    at once, unless a `StopSignal` is active: TensorFlow may swallow a KeyboardInterrupt while it
    traces a graph.
    """
    # TensorFlow then looks for Keras's predecessor instead, and does without if there is none.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    stderr = os.dup(2)  # as standard error is redirected now and then; see `quiet`
    signal.signal(signal.SIGINT, lambda *_: _exit_at_once(stderr))
    for number in _TERMINATION:
        if signal.getsignal(number) == _interrupt:
            signal.signal(number, signal.SIG_DFL)


def _exit_at_once(stderr: int) -> NoReturn:
    files.remove_unfinished()
    with contextlib.suppress(OSError):  # nobody may read it
        os.write(stderr, b"\ninterrupted\n")
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def interruptible_input() -> Iterator[None]:
    """Let Ctrl+C raise KeyboardInterrupt at once in an `input()` within the block.

    CPython sees a signal only if it interrupts readline's wait for a key, so that Ctrl+C an instant
    before the wait would be held back until the next key. A thread repeats it until it is seen.
    """
    seen = threading.Event()
    inbox, outbox = socket.socketpair()
    main = threading.get_ident()

    def interrupt(*_: object) -> None:
        if not seen.is_set():
            seen.set()
            raise KeyboardInterrupt

    def repeat() -> None:
        while inbox.recv(16):
            while not seen.wait(0.05) and hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    outbox.setblocking(False)
    signal.set_wakeup_fd(outbox.fileno(), warn_on_full_buffer=False)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        seen.set()
        signal.set_wakeup_fd(-1)
        outbox.close()
        thread.join()  # no signal is repeated from here on
        inbox.close()
        signal.signal(signal.SIGINT, before)


class StopSignal:
    """Turns the first Ctrl+C or SIGTERM into a request to stop; the second ends the process.

    A closed terminal is a request, too, unless the process runs under `nohup`. A thread waits for
    the signals, because Python's main thread handles them only between its own instructions, and
    one of those may be half a minute inside TensorFlow.
    """

    def __init__(self, message: str):
        """Prepare.

        Args:
            message: printed on standard error at the first signal.
        """
        self.received: int | None = None  # the first signal
        self._message = message
        self._requested = threading.Event()
        self._inbox, self._outbox = socket.socketpair()
        self._handlers: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Return whether the work should stop."""
        return self._requested.is_set()

    def request(self) -> None:
        """Ask the work to stop, as a signal does."""
        self._requested.set()

    def __enter__(self) -> StopSignal:
        self._outbox.setblocking(False)
        signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, _BREAK, _HANG_UP):
            if number and not (number == _HANG_UP and signal.getsignal(number) == signal.SIG_IGN):
                self._handlers[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._outbox.close()  # which ends the thread, too

    def _listen(self) -> None:
        second_ends = False
        while signals := self._inbox.recv(16):
            for number in signals:
                # A closing terminal sends its signal more than once.
                if number not in self._handlers or (number == _HANG_UP and self()):
                    continue
                if second_ends:
                    os._exit(INTERRUPTED)
                second_ends = number != _HANG_UP
                self.received = self.received or number
                self.request()
                print(self._message, file=sys.stderr, flush=True)
        self._inbox.close()
