"""A file is downloaded completely or not at all, from a local server that misbehaves."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt2.download.transfer import DownloadProgress, RetryPolicy, fetch, size_at
from gpt2.errors import UserError
from tests.download import misbehaving_server as server_
from tests.download.misbehaving_server import File, Server

CONTENT = np.random.default_rng(6).bytes(700_000)  # several times the block size
OTHER = np.random.default_rng(7).bytes(650_000)


@pytest.fixture
def server() -> Iterator[Server]:
    with server_.serving() as running:
        running.files["/file"] = File(CONTENT)
        yield running


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to this machine without a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


class Progress(DownloadProgress):
    """Records the reported progress."""

    def __init__(self) -> None:
        self.bytes = 0
        self.waits: list[float] = []
        self.reasons: list[str] = []

    def advance(self, size: int) -> None:
        self.bytes += size

    def waiting(self, seconds: float, reason: str) -> None:
        self.waits.append(seconds)
        self.reasons.append(reason)


class Fetching:
    """Downloads the file, and records progress and waits."""

    def __init__(self, server: Server, folder: Path):
        self.server, self.path, self.progress = server, folder / "file", Progress()
        self.slept: list[float] = []
        self.read = 30.0  # timeout (seconds); a busy machine must not reach it

    def __call__(self, *urls: str, expected: bytes | None = CONTENT, **options) -> None:
        def check(path: Path) -> None:
            if expected is not None and path.read_bytes() != expected:
                raise UserError(f"{path} differs from the expected content.")

        patience = RetryPolicy(tries=3, connect=30, read=self.read, sleep=self.slept.append)
        fetch(
            urls or [f"{self.server.address}/file"],
            self.path,
            check,
            progress=self.progress,
            patience=patience,
            **options,
        )

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.path.parent.iterdir())

    def is_whole(self, expected: bytes = CONTENT) -> bool:
        return self.path.read_bytes() == expected and self.left == ["file"]

    @property
    def ranges(self) -> list[str | None]:
        return [part for _, part in self.server.asked]


@pytest.fixture
def fetching(server: Server, tmp_path: Path) -> Fetching:
    return Fetching(server, tmp_path)


@pytest.mark.parametrize(
    "behavior",
    [
        server_.well,
        server_.drip,
        server_.chunked,
        server_.packed(),
        server_.says_length(None),
        server_.says_length("many"),
        server_.redirect("/elsewhere"),
    ],
    ids=["well", "drip", "chunked", "packed", "no length", "no number", "redirect"],
)
def test_a_complete_response_becomes_the_file(fetching: Fetching, behavior) -> None:
    fetching.path.write_bytes(b"old")
    fetching.server.files["/elsewhere"] = File(CONTENT)
    fetching.server.script = [behavior]
    fetching()
    assert fetching.is_whole()
    assert fetching.progress.bytes == len(CONTENT)
    assert fetching.slept == []


def test_an_interrupted_response_is_resumed(fetching: Fetching) -> None:
    fetching.server.script = [server_.drop_after(200_000), server_.drop_after(300_000)]
    fetching()
    assert fetching.is_whole()
    assert fetching.progress.bytes == len(CONTENT)
    first, second, third = fetching.ranges
    assert first is None
    starts = [int(part[len("bytes=") : -1]) for part in (second, third)]
    assert 100_000 < starts[0] <= 200_000 < 400_000 < starts[1] <= 500_000
    assert "connection lost after" in fetching.progress.reasons[0]
    assert "of 700,000 bytes" in fetching.progress.reasons[0]


def test_another_call_resumes_the_first(fetching: Fetching) -> None:
    fetching.server.script = [server_.drop_after(200_000)] + [server_.status(503)] * 3
    with pytest.raises(UserError, match=": HTTP status 503"):
        fetching()
    assert fetching.left == ["file.partial", "file.partial.json"]
    kept = (fetching.path.parent / "file.partial").stat().st_size
    assert CONTENT.startswith((fetching.path.parent / "file.partial").read_bytes())
    fetching()
    assert fetching.is_whole()
    assert fetching.ranges[-1] == f"bytes={kept}-"


def test_the_waits_double_until_the_tries_are_used_up(fetching: Fetching) -> None:
    fetching.server.script = [server_.status(500)] * 9
    with pytest.raises(UserError, match=r"status 500 .*same command again to resume"):
        fetching()
    assert fetching.slept == fetching.progress.waits == [1, 2]
    assert len(fetching.server.requests) == 3
    assert fetching.left == []


def test_a_try_that_receives_bytes_does_not_count_as_failed(fetching: Fetching) -> None:
    fetching.server.script = [server_.drop_after(100_000)] * 6
    fetching()
    assert fetching.is_whole()
    assert fetching.slept == [1] * 6


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503])
def test_a_temporary_error_is_retried(fetching: Fetching, code: int) -> None:
    fetching.server.script = [server_.status(code)]
    fetching()
    assert fetching.is_whole()


def test_retry_after_is_honored_up_to_a_limit(fetching: Fetching) -> None:
    later = {"Retry-After": 7}
    fetching.server.script = [
        server_.status(503, **later),
        server_.status(503, **{"Retry-After": 9999}),
    ]
    fetching()
    assert fetching.slept == [7, 30]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_permanent_error_is_reported_at_once(fetching: Fetching, code: int) -> None:
    fetching.server.script = [server_.status(code)]
    with pytest.raises(UserError, match=rf"/file: HTTP status {code} "):
        fetching()
    assert fetching.slept == []
    assert fetching.left == []


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_an_error_page_with_status_200_is_not_the_file(
    fetching: Fetching, size: int | None
) -> None:
    fetching.server.script = [server_.page]
    sentence = "has 61 bytes; expected 700,000" if size else "unusable file"
    with pytest.raises(UserError, match=sentence):
        fetching(size=size)
    assert fetching.left == []
    assert fetching.progress.bytes == 0


def test_an_error_page_keeps_the_received_bytes(fetching: Fetching) -> None:
    fetching.server.script = [server_.drop_after(200_000), server_.page]
    with pytest.raises(UserError, match="has 61 bytes"):
        fetching(size=len(CONTENT))
    assert (fetching.path.parent / "file.partial").stat().st_size > 100_000


def test_without_range_support_the_download_starts_over(fetching: Fetching) -> None:
    fetching.server.script = [server_.drop_after(200_000, server_.no_range), server_.no_range]
    fetching()
    assert fetching.is_whole()
    assert fetching.progress.bytes == len(CONTENT)


def test_without_range_support_tries_are_limited(fetching: Fetching) -> None:
    fetching.server.script = [server_.drop_after(200_000, server_.no_range)] * 9
    with pytest.raises(UserError, match="connection lost after"):
        fetching()
    assert len(fetching.server.requests) <= 6
    assert not fetching.path.exists()


def test_parts_of_two_versions_are_not_joined(fetching: Fetching) -> None:
    changed = server_.changed_to(OTHER, '"2"')
    fetching.server.script = [server_.drop_after(200_000), changed]
    fetching(expected=None)
    assert fetching.is_whole(OTHER)


def test_parts_are_not_joined_if_the_server_ignores_if_range(fetching: Fetching) -> None:
    for content in (OTHER, CONTENT[:300_000] + OTHER[:400_000]):  # of another and the same size
        fetching.server.files["/file"] = File(CONTENT)
        changed = server_.changed_to(content, '"2"', server_.part_of_another)
        fetching.server.script = [server_.drop_after(200_000), changed]
        fetching(expected=None)
        assert fetching.is_whole(content)


def test_parts_are_not_joined_without_an_etag(fetching: Fetching) -> None:
    for size in (None, len(CONTENT)):
        fetching.server.files["/file"] = File(OTHER[::-1] + OTHER[:50_000], None)
        changed = server_.changed_to(CONTENT, None)
        fetching.server.script = [server_.drop_after(200_000), changed]
        # With a checksum, a part is requested, and discarded because it does not match.
        fetching(size=size, checked_by_sum=size is not None)
        assert fetching.is_whole()
        assert fetching.progress.bytes == len(CONTENT)
        fetching.progress.bytes = 0


def test_a_part_is_completed_from_another_address_if_there_is_a_checksum(
    fetching: Fetching,
) -> None:
    fetching.server.files["/mirror"] = File(CONTENT, '"another server"')
    fetching.server.script = [server_.drop_after(200_000), server_.status(404)]
    urls = [f"{fetching.server.address}/{name}" for name in ("file", "mirror")]
    fetching(*urls, size=len(CONTENT), checked_by_sum=True)
    assert fetching.is_whole()
    (path, part) = fetching.server.asked[-1]
    assert path == "/mirror"
    assert part not in (None, "bytes=0-")


def test_without_a_checksum_another_address_sends_the_whole_file(fetching: Fetching) -> None:
    fetching.server.files["/mirror"] = File(OTHER, '"1"')
    fetching.server.script = [server_.drop_after(200_000), server_.status(404)]
    fetching(*(f"{fetching.server.address}/{name}" for name in ("file", "mirror")), expected=OTHER)
    assert fetching.is_whole(OTHER)
    assert fetching.server.asked[-1] == ("/mirror", None)


def test_a_completely_received_file_is_only_checked_and_renamed(fetching: Fetching) -> None:
    fetching.server.script = [server_.drop_after(200_000)] + [server_.status(503)] * 3
    with pytest.raises(UserError):
        fetching()
    (fetching.path.parent / "file.partial").write_bytes(CONTENT)
    asked = len(fetching.server.requests)
    fetching()
    assert fetching.is_whole()
    assert len(fetching.server.requests) == asked


def test_a_damaged_partial_file_is_downloaded_again(fetching: Fetching) -> None:
    fetching.server.script = [server_.drop_after(200_000)] + [server_.status(503)] * 3
    with pytest.raises(UserError):
        fetching()
    partial = fetching.path.parent / "file.partial"
    for broken in (b"\0" * partial.stat().st_size, bytes(900_000)):  # as after a power failure
        partial.write_bytes(broken)
        shutil.copy(partial.with_name("file.partial.json"), fetching.path.parent / "note")
        fetching()
        assert fetching.path.read_bytes() == CONTENT
        shutil.move(fetching.path.parent / "note", partial.with_name("file.partial.json"))


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"url": 5, "version": [], "size": {}}'])
def test_a_damaged_note_costs_at_most_a_restart(fetching: Fetching, note: bytes) -> None:
    (fetching.path.parent / "file.partial").write_bytes(b"something")
    (fetching.path.parent / "file.partial.json").write_bytes(note)
    fetching()
    assert fetching.is_whole()


@pytest.mark.parametrize(
    ("behavior", "sentence"),
    [
        (
            server_.says_length(len(CONTENT) + 1000),
            "connection lost after 700,000 of 701,000 bytes",
        ),
        (server_.says_length(len(CONTENT), 5000), "connection lost after 5,000 of 700,000 bytes"),
        (server_.packed(-20), "connection lost"),
        (server_.says_length(1000), "unusable file"),
        (server_.says_length(None, 5000), "unusable file"),
        (server_.packed(encoding="br"), "unsupported encoding br"),
        (server_.says_length(10**17), r"100\.0 PB needed, but only"),
        (server_.redirect("/file"), "Exceeded 30 redirects"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("before", [None, b"old"])
def test_no_faulty_response_becomes_the_file(
    fetching: Fetching, behavior, sentence: str, before: bytes | None
) -> None:
    if before:
        fetching.path.write_bytes(before)
    fetching.server.script = [behavior] * 40
    with pytest.raises(UserError, match=sentence):
        fetching()
    assert (fetching.path.read_bytes() if before else fetching.path.exists()) == (before or False)


def test_a_silent_server_times_out(fetching: Fetching) -> None:
    fetching.read = 0.2
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(UserError, match=r"could not be reached \(no answer in time\)"):
            fetching(url)
    assert fetching.left == []


def test_a_refused_connection_is_reported(fetching: Fetching) -> None:
    with socket.socket() as taken:  # a port without a listener
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file"
        with pytest.raises(UserError, match=rf"{url} could not be reached \(.*refused\)"):
            fetching(url)
    assert fetching.slept == [1, 2]
    assert fetching.left == []


@pytest.mark.parametrize("url", ["not an address", "http://", "ftp://127.0.0.1/x", "http://[::1/x"])
def test_an_invalid_url_is_reported(fetching: Fetching, url: str) -> None:
    with pytest.raises(UserError, match="is not a valid URL"):
        fetching(url)
    assert fetching.left == []


def test_every_address_is_named_if_none_has_the_file(fetching: Fetching) -> None:
    with pytest.raises(UserError, match=r"/one: HTTP status .*; .*/two: HTTP status 404"):
        fetching(*(f"{fetching.server.address}/{name}" for name in ("one", "two")))


def test_more_bytes_than_the_known_size_are_refused(fetching: Fetching) -> None:
    fetching.server.script = [server_.chunked] * 9
    with pytest.raises(UserError, match="sends more than 600,000 bytes"):
        fetching(size=600_000)
    assert fetching.left == []


def test_a_write_error_is_not_reported_as_a_network_error(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = fetching.path
    fetching.path = here.parent / "missing" / "file"
    with pytest.raises(UserError, match=r"file.* cannot be written: .*permissions"):
        fetching()
    fetching.path = here

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match=r"file.* cannot be written: No space left"):
            fetching()
    assert not fetching.path.exists()
    fetching()
    assert fetching.is_whole()


def test_a_disk_without_space_is_reported_before_writing(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(fetching.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=699_999))
    with pytest.raises(UserError, match=r"700\.0 kB needed, but only 700\.0 kB"):
        fetching()
    assert fetching.left == []


def test_ctrl_c_keeps_the_received_bytes(fetching: Fetching) -> None:
    class Interrupted(Progress):
        def advance(self, size: int) -> None:
            super().advance(size)
            if self.bytes > 200_000:
                raise KeyboardInterrupt

    fetching.progress = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        fetching()
    kept = (fetching.path.parent / "file.partial").read_bytes()
    assert len(kept) > 200_000
    assert CONTENT.startswith(kept)
    fetching.progress = Progress()
    fetching()
    assert fetching.is_whole()
    assert fetching.progress.bytes == len(CONTENT) - len(kept)


def test_a_proxy_in_the_environment_is_used(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", fetching.server.address)
    url = "http://models.invalid/file"  # a proxy gets the whole URL
    fetching.server.files[url] = File(CONTENT)
    fetching(url)
    assert fetching.is_whole()


def test_the_size_of_a_file_is_requested_without_downloading_it(server: Server) -> None:
    urls = [f"{server.address}/{name}" for name in ("missing", "file")]
    assert size_at(urls) == len(CONTENT)
    assert size_at(urls[:1]) is None
    assert size_at(["http://[::1/x"]) is None
    assert server.requests == []


def test_a_server_whose_parts_never_match_is_abandoned(fetching: Fetching) -> None:
    fetching.server.script = [server_.drop_after(200_000), server_.well] * 9
    with pytest.raises(UserError, match="unusable file"):
        fetching(expected=OTHER)
    assert len(fetching.server.requests) == 4
    assert fetching.left == []
