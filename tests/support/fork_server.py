"""Starts Python scripts in forks of a process that has imported TensorFlow already.

Importing TensorFlow takes three seconds of every command. Here a command still is a process of
its own, with its own environment, streams, signals and exit code, and imports every module of the
toolkit itself; only TensorFlow is there before. As a program, this module is the server.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

AVAILABLE = sys.platform == "linux"  # where forks of TensorFlow are known to work
# As the toolkit sets them before it imports TensorFlow.
SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_USE_LEGACY_KERAS": "1",
}


class Process:
    """A forked command; the part of `subprocess.Popen` that the tests use."""

    def __init__(self, words: Sequence[str], cwd: Path, env: dict[str, str], stdin: int):
        """Start it.

        Args:
            words: a script and its arguments.
            stdin: `subprocess.PIPE` or `subprocess.DEVNULL`. Output is always a pipe.
        """
        self.args = words
        self.returncode: int | None = None
        standard_input, self.stdin = _pipe_to() if stdin == subprocess.PIPE else (_nothing(), None)
        self.stdout, standard_output = _pipe_from()
        self.stderr, standard_error = _pipe_from()
        self._status, status = _pipe_from()
        descriptors = [standard_input, standard_output, standard_error, status]
        request = {"words": list(words), "cwd": str(cwd), "env": env}
        _server().send(json.dumps(request).encode(), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self.pid = int(self._status.readline())

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        return self._exit_code(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it ends; raise `subprocess.TimeoutExpired` as Popen does."""
        code = self._exit_code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _exit_code(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def _pipe_from() -> tuple[IO[bytes], int]:
    reader, writer = os.pipe()
    return open(reader, "rb"), writer


def _pipe_to() -> tuple[int, IO[bytes]]:
    reader, writer = os.pipe()
    return reader, open(writer, "wb")


def _nothing() -> int:
    return os.open(os.devnull, os.O_RDONLY)


class _Server:
    """The server as seen by the tests."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | SETTINGS,
            )
        atexit.register(self._end)

    def send(self, request: bytes, descriptors: list[int]) -> None:
        socket.send_fds(self._socket, [request], descriptors)

    def _end(self) -> None:
        self._socket.close()  # which ends it
        self._process.wait()


@functools.cache
def _server() -> _Server:
    return _Server()


# --- in the server ---


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return it in the fork, and None in the server at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for pytest
    inbox, outbox = socket.socketpair()
    outbox.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(outbox.fileno())  # so that `select` sees the end of a command
    running: dict[int, int] = {}  # from process to the pipe for its exit code
    while True:
        ready, _, _ = select.select([requests, inbox], [], [])
        if inbox in ready:
            inbox.recv(1 << 16)
            _report(running)
        if requests not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        if not message:
            return None
        *streams, status = descriptors
        process = os.fork()
        if process == 0:
            for descriptor in (status, *running.values()):
                os.close(descriptor)
            for place in (requests, inbox, outbox):
                place.close()
            request = json.loads(message)
            _become(request, streams)
            return request
        for descriptor in streams:
            os.close(descriptor)
        os.write(status, b"%d\n" % process)
        running[process] = status


def _report(running: dict[int, int]) -> None:
    """Write the exit codes of the commands that have ended."""
    while running:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        pipe = running.pop(process)
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
            os.write(pipe, b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(pipe)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Take the streams, folder, environment and signals of a new process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    stream = functools.partial(open, closefd=False)
    sys.stdin = sys.__stdin__ = stream(0)
    sys.stdout = sys.__stdout__ = stream(1, "w")
    sys.stderr = sys.__stderr__ = stream(2, "w", buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])


def main() -> None:
    """Serve, and in each fork run a script; its exceptions end the process as they always do."""
    # Before TensorFlow: what it starts must not be in the forks, so nothing of it is used here.
    import tensorflow  # noqa: F401

    with socket.socket(fileno=int(sys.argv[1])) as requests:
        request = _serve(requests)
    if request is None:
        return
    script, *words = request["words"]
    sys.argv, sys.path[0] = [script, *words], str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
