"""The web server: sockets, slow clients, and shutting down without losing answers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt2.errors import UserError
from gpt2.web.guard import Guard
from gpt2.web.registry import ModelRegistry
from gpt2.web.settings import Access, RequestLimits

HEADER_SECONDS = 10.0  # for the headers of a request
BODY_SECONDS = 20.0  # for its body
READ_SECONDS = 60.0  # how long a client may read nothing of an answer
KEEP_ALIVE_SECONDS = 20
MOST_HEADER_BYTES = 32 << 10
MOST_CONNECTIONS = 1000
FINISH_SECONDS = 3.0  # for running completions when the server is stopped
SUGGESTED = 20  # ports after a taken one that are tried


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, with limits for clients that send or read too slowly."""

    _timer: asyncio.TimerHandle | None = None
    _writing_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the headers of the first request."""
        super().connection_made(transport)
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        """Take data, and wait for the rest of headers that are incomplete."""
        super().data_received(data)
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._cancel_timers()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        super().pause_writing()
        self._writing_timer = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        if self._writing_timer:
            self._writing_timer.cancel()

    def _watch_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._cancel_timers()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _cancel_timers(self) -> None:
        for timer in filter(None, (self._timer, self._writing_timer)):
            timer.cancel()
        self._timer = None


class Server(uvicorn.Server):
    """A server that leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield


def protect(app: ASGIApp, access: Access, limits: RequestLimits) -> ASGIApp:
    """Return an application behind a `Guard`, with CORS for the origin that is given."""
    if access.origin:
        app = CORSMiddleware(
            app, allow_origins=[access.origin], allow_methods=["*"], allow_headers=["*"]
        )
    return Guard(app, access, limits.most_bytes, BODY_SECONDS)


def serve(
    app: ASGIApp,
    listener: socket.socket,
    models: ModelRegistry,
    stop: Callable[[], bool],
    ready: Callable[[], object] = lambda: None,
) -> None:
    """Answer requests until asked to stop; then let running answers end, at most for 5 seconds.

    Args:
        app: the protected application.
        listener: a socket that listens; see `listen`.
        stop: asked several times a second.
        ready: called when the first request can be answered.
    """
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
    )
    server = Server(config)

    async def run() -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        while not stop() and not serving.done():
            await asyncio.sleep(0.1)
        # Still listening, so that new requests are answered: with status 503.
        await asyncio.to_thread(models.stop, FINISH_SECONDS)
        await asyncio.sleep(0.1)  # the last tokens are on their way
        # Open pages hold a connection until it is cut, which uvicorn would report as an error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = True
        await serving

    asyncio.run(run())


def watch(models: ModelRegistry) -> None:
    """Reload models when training writes a checkpoint, in a thread."""
    threading.Thread(target=models.watch, name="watch", daemon=True).start()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: the port is taken, or the host is not an address of this machine.
    """
    try:
        return _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            owner = _owner(port)
            by = f" by {owner}" if owner else ""
            free = _free_port(host, port)
            other = f" Use another one, such as --port {free}." if free else ""
            raise UserError(f"Port {port} is taken{by}.{other}") from error
        if error.errno == errno.EACCES:
            raise UserError(
                f"Port {port} needs the rights of an administrator. Use one from 1024 on."
            ) from error
        reason = error.strerror or error
        raise UserError(f"{host} port {port}: cannot listen ({reason}). Check --host.") from error


def _bind(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would allow two servers on one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        return listener
    except BaseException:
        listener.close()
        raise


def _free_port(host: str, port: int) -> int | None:
    for candidate in range(port + 1, min(port + 1 + SUGGESTED, 1 << 16)):
        with contextlib.suppress(OSError):
            _bind(host, candidate).close()
            return candidate
    return None


def _owner(port: int) -> str | None:
    """Return the process that listens on a port, where Linux lets us know it."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                listens = fields[3] == "0A"
                if listens and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    for descriptor in Path("/proc").glob("[0-9]*/fd/*") if sockets else ():
        with contextlib.suppress(OSError):
            if os.readlink(descriptor) in sockets:
                process = descriptor.parents[1]
                name = (process / "comm").read_text().strip()
                return f"process {process.name} ({name})"
    return None
