"""A local HTTP server that gives scripted responses, correct and faulty ones."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<?xml version='1.0'?><Error><Code>NoSuchBucket</Code></Error>"


@dataclasses.dataclass
class File:
    """A served file, in one version."""

    content: bytes
    version: str | None = '"1"'  # its ETag


class Request(BaseHTTPRequestHandler):
    """One request, answered by one of the behaviors below."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self)
        behavior = self.server.script.pop(0) if self.server.script else well
        behavior(self)

    def do_HEAD(self) -> None:
        file = self.server.files.get(self.path)
        self.head(200 if file else 404, {"Content-Length": len(file.content)} if file else {})

    @property
    def file(self) -> File | None:
        return self.server.files.get(self.path)

    def head(self, status: int, headers: dict[str, object]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def whole(self) -> dict[str, object]:
        """Return the headers of a complete response."""
        headers: dict[str, object] = {"Content-Length": len(self.file.content)}
        return headers | ({"ETag": self.file.version} if self.file.version else {})

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


Behavior = Callable[[Request], None]


def well(request: Request) -> None:
    """Respond as HTTP specifies, with Range and If-Range."""
    file = request.file
    if file is None:
        request.send_error(404)
        return
    wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    same = request.headers.get("If-Range") in (None, file.version)
    if not wanted or not same:
        request.head(200, request.whole())
        request.wfile.write(file.content)
        return
    start, size = int(wanted[1]), len(file.content)
    if start >= size:
        request.head(416, {"Content-Range": f"bytes */{size}", "Content-Length": 0})
        return
    headers = request.whole() | {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
    request.head(206, headers | {"Content-Length": size - start})
    request.wfile.write(file.content[start:])


def status(code: int, **headers: object) -> Behavior:
    """Respond with an error status and an error page."""

    def behavior(request: Request) -> None:
        request.head(code, {"Content-Length": len(PAGE), **headers})
        request.wfile.write(PAGE)

    return behavior


def page(request: Request) -> None:
    """Respond with an error page and status 200."""
    status(200)(request)


def drop_after(count: int, then: Behavior = well) -> Behavior:
    """Reset the connection after `count` bytes of the body."""

    def behavior(request: Request) -> None:
        real = request.wfile

        class Limited:
            left: int | None = None  # bytes of the body still to send

            def write(self, data: bytes) -> None:
                head, mark, body = data.partition(b"\r\n\r\n")
                if self.left is None and mark:
                    real.write(head + mark)
                    self.left, data = count, body
                passing = data if self.left is None else data[: self.left]
                real.write(passing)
                if self.left is not None:
                    self.left -= len(passing)
                    if len(passing) < len(data):
                        real.flush()
                        time.sleep(0.05)  # lets the client read what was sent before the reset
                        linger = struct.pack("ii", 1, 0)
                        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        request.connection.close()
                        raise ConnectionAbortedError

            def flush(self) -> None:
                real.flush()

        request.wfile = Limited()
        request.close_connection = True
        try:
            then(request)
        except ConnectionAbortedError:
            request.wfile = contextlib.nullcontext()
            request.finish = lambda: None

    return behavior


def no_range(request: Request) -> None:
    """Respond with the whole file to a Range request, too."""
    request.head(200, request.whole())
    request.wfile.write(request.file.content)


def says_length(wrong: object, then_closes_after: int | None = None) -> Behavior:
    """Respond with a wrong Content-Length, or none, then close the connection."""

    def behavior(request: Request) -> None:
        headers = request.whole()
        headers.pop("Content-Length")
        request.head(200, headers | ({} if wrong is None else {"Content-Length": wrong}))
        request.wfile.write(request.file.content[:then_closes_after])

    return behavior


def chunked(request: Request) -> None:
    """Respond in chunks, without a Content-Length."""
    request.head(200, {"Transfer-Encoding": "chunked"})
    content = request.file.content
    for start in range(0, len(content), 5000):
        piece = content[start : start + 5000]
        request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    request.wfile.write(b"0\r\n\r\n")


def drip(request: Request) -> None:
    """Respond in a hundred small pieces."""
    request.head(200, request.whole())
    content = request.file.content
    for start in range(0, len(content), len(content) // 100 + 1):
        request.wfile.write(content[start : start + len(content) // 100 + 1])
        request.wfile.flush()
        time.sleep(0.002)


def packed(cut: int | None = None, encoding: str = "gzip") -> Behavior:
    """Respond with unrequested compression, truncated if `cut` is given."""

    def behavior(request: Request) -> None:
        content = gzip.compress(request.file.content)[:cut]
        request.head(200, {"Content-Encoding": encoding, "Content-Length": len(content)})
        request.wfile.write(content)

    return behavior


def redirect(to: str) -> Behavior:
    """Redirect to another path."""
    return lambda request: request.head(302, {"Location": to, "Content-Length": 0})


def changed_to(content: bytes, version: str | None, then: Behavior = well) -> Behavior:
    """Replace the served file, then respond."""

    def behavior(request: Request) -> None:
        request.server.files[request.path] = File(content, version)
        then(request)

    return behavior


def part_of_another(request: Request) -> None:
    """Respond with a part although If-Range names another version."""
    request.headers.replace_header("If-Range", request.file.version)
    well(request)


class Server(ThreadingHTTPServer):
    """Serves `files`; the first responses are those of `script`, in order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.files: dict[str, File] = {}
        self.script: list[Behavior] = []
        self.requests: list[Request] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def asked(self) -> list[tuple[str, str | None]]:
        """Return path and Range of every request so far."""
        return [(request.path, request.headers.get("Range")) for request in self.requests]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Run a server within the block."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
