"""A download ends as a whole file or as none, against a real server on this machine."""

from __future__ import annotations

import gzip
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gpt2 import download
from gpt2.errors import UserError
from gpt2.workspace import ALIASES

CONTENT = bytes(range(256)) * 10_000  # more than two of the pieces that are taken at a time


class Handler(BaseHTTPRequestHandler):
    """Answers by the path: whole, not at all, or broken off."""

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        content = gzip.compress(CONTENT) if kind == "packed" else CONTENT
        self.send_response(200)
        if kind == "packed":
            self.send_header("Content-Encoding", "gzip")
        if kind == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            content = b"1000\r\n" + content[:0x1000] + b"\r\n1000\r\n" + content[:0x500]
        elif kind == "nonsense":
            self.send_header("Content-Length", "many")
            content = b""  # nobody would read it
        elif kind != "unsized":
            longer = 1000 if kind == "broken" else 0
            self.send_header("Content-Length", str(len(content) + longer))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to this machine leads past any proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


def ignore(received: int, size: int) -> None:
    pass


@pytest.mark.parametrize("kind", ["whole", "moved", "unsized", "packed"])
def test_a_whole_answer_becomes_the_file(server: str, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    download.fetch(f"{server}/{kind}", path, ignore)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("kind", "size"), [("whole", len(CONTENT)), ("unsized", 0), ("packed", 0)])
def test_progress_adds_up_and_knows_the_size_where_the_server_tells_it(
    server: str, tmp_path: Path, kind: str, size: int
) -> None:
    calls: list[tuple[int, int]] = []
    download.fetch(f"{server}/{kind}", tmp_path / "file", lambda *call: calls.append(call))
    assert sum(received for received, _ in calls) == len(CONTENT)
    assert {told for _, told in calls} == {size}
    assert len(calls) > 1


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", r"/missing was answered with status 404 \(.*\); nothing was saved"),
        ("broken", r"/broken broke off after [\d,]+ of 2,561,000 bytes; .* again"),
        ("chunked", "/chunked broke off after 4,096 bytes; .* again"),
        ("nonsense", "/nonsense could not be fetched "),
    ],
)
@pytest.mark.parametrize("before", [None, b"old"])
def test_no_other_answer_leaves_anything(
    server: str, tmp_path: Path, kind: str, sentence: str, before: bytes | None
) -> None:
    path = tmp_path / "file"
    if before:
        path.write_bytes(before)
    with pytest.raises(UserError, match=sentence):
        download.fetch(f"{server}/{kind}", path, ignore)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_a_server_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file"
        with pytest.raises(UserError, match=rf"{url} could not be fetched .*check the connection"):
            download.fetch(url, tmp_path / "file", ignore)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["not an address", "http://", "ftp://127.0.0.1/x", "http://[::1/x"])
def test_an_address_that_is_none_is_told_in_a_sentence(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="could not be fetched"):
        download.fetch(url, tmp_path / "file", ignore)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_not_blamed_on_the_network(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"file cannot be written: .*permissions"):
        download.fetch(f"{server}/whole", tmp_path / "missing" / "file", ignore)

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="file cannot be written: No space left"):
        download.fetch(f"{server}/whole", tmp_path / "file", ignore)
    assert not list(tmp_path.iterdir())


def test_every_name_of_a_size_is_fetched_under_its_present_name() -> None:
    assert {name: download.RELEASES[name] for name in ("117M", "345M", "762M", "1542M")} == {
        "117M": "124M",
        "345M": "355M",
        "762M": "774M",
        "1542M": "1558M",
    }
    assert set(download.RELEASES) == set(ALIASES)
    assert all(download.RELEASES[name] == name for name in download.RELEASES.values())
    assert len(download.FILES) == 7
