"""Requests from elsewhere, without a password, too large or too slow do not get through."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from gpt2.web import server
from gpt2.web.settings import Access, RequestLimits, is_loopback
from tests.web.conftest import Served, serving

SMALL = RequestLimits(most_bytes=1000)


@pytest.fixture(scope="module")
def guarded(models_dir: Path) -> Iterator[Served]:
    """A server with a key, a password and an allowed origin, that waits for nobody."""
    access = Access("127.0.0.1", "me:secret", "key", "https://page.example")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HEADER_SECONDS", "BODY_SECONDS", "READ_SECONDS"):
            patch.setattr(server, name, 0.3)
        with serving(models_dir, ("small",), access, SMALL) as running:
            yield running


def exchange(served: Served, *parts: bytes) -> bytes:
    """Send parts of a request over one connection, and return all that comes back."""
    with socket.create_connection(served.address, timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        while data := connection.recv(1 << 16):
            received += data
        return received


def test_addresses_that_only_this_machine_reaches() -> None:
    for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "127.0.0.1.nip.io", ""):
        assert not is_loopback(host)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "localhost.evil.example", ""]
)
def test_a_name_that_was_made_to_point_here_is_refused(served: Served, host: str) -> None:
    answer = httpx.get(f"{served.url}/v1/models", headers={"Host": host})
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:7860", "[::1]:7860"])
def test_names_of_this_machine_are_answered(served: Served, host: str) -> None:
    assert httpx.get(f"{served.url}/v1/models", headers={"Host": host}).status_code == 200


def test_pages_of_other_origins_may_not_use_the_server(served: Served) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        answer = httpx.post(f"{served.url}/v1/completions", headers=headers, content=b"{}")
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    own = httpx.post(f"{served.url}/tokenize", headers={"Origin": served.url}, json={"prompt": "a"})
    assert own.status_code == 200


def test_the_origin_of_cors_may(guarded: Served) -> None:
    headers = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{guarded.url}/v1/completions", headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    headers["Origin"] = "https://other.example"
    assert httpx.options(f"{guarded.url}/v1/completions", headers=headers).status_code == 403


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(user.encode()).decode()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer key", 200),
        ("bearer key", 200),
        ("Bearer wrong", 401),
        ("Bearer", 401),
        ("Bearer key2", 401),
        (basic("me:secret"), 200),
        (basic("me:"), 401),
        (basic("you:secret"), 401),
        (basic("key"), 401),
        ("Basic ***", 401),
        ("Bearer me:secret", 401),
        ("Digest key", 401),
    ],
    ids=str,
)
def test_a_key_or_a_password_is_needed(guarded: Served, header: str | None, status: int) -> None:
    headers = {"Authorization": header} if header else {}
    for path in ("/v1/models", "/metrics", "/nothing"):
        answer = httpx.get(guarded.url + path, headers=headers)
        assert answer.status_code == (404 if (status, path) == (200, "/nothing") else status)
    if status == 401:
        assert answer.json()["error"]["type"] == "authentication_error"
        assert "Basic" in answer.headers["www-authenticate"]
    assert httpx.get(f"{guarded.url}/healthz").status_code == 200


def test_the_official_client_sends_the_key(guarded: Served) -> None:
    for key, error in (("key", None), ("no", openai.AuthenticationError)):
        client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0)
        if error is None:
            assert [model.id for model in client.models.list()] == ["small"]
        else:
            with pytest.raises(error):
                client.models.list()


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + b"Content-Length: 1001\r\n\r\n"],
        [HEAD + b"Content-Length: 99999999999999\r\n\r\n"],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"3e9\r\n" + b"a" * 1001 + b"\r\n"],
    ],
    ids=["just above", "far above", "chunked"],
)
def test_a_large_body_is_413_before_it_is_read(guarded: Served, parts: list[bytes]) -> None:
    answer = exchange(guarded, *parts)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_too_large"


def test_a_slow_body_is_408(guarded: Served) -> None:
    answer = exchange(guarded, HEAD + b"Content-Length: 10\r\n\r\n", b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\nHost: local"])
def test_headers_that_never_end_close_the_connection(guarded: Served, start: bytes) -> None:
    assert exchange(guarded, start) == b""


def test_headers_that_come_byte_by_byte_close_the_connection(guarded: Served) -> None:
    with socket.create_connection(guarded.address, timeout=30) as connection:
        begin = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < begin + 30:
                connection.sendall(b"a")
                time.sleep(0.05)
    assert time.monotonic() < begin + 20


def test_huge_headers_are_refused(served: Served) -> None:
    answer = exchange(served, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


def test_a_client_that_does_not_read_is_disconnected(guarded: Served) -> None:
    body = {"prompt": "a" * 850, "n": 30, "max_tokens": 2000, "stream": True}
    body |= {"echo": True, "logprobs": 20}  # so that the answer does not fit into any buffer
    content = json.dumps(body).encode()
    scheduler = guarded.models.open("small").scheduler
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(guarded.address)
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
        end = time.monotonic() + 50
        while not scheduler.running:
            assert time.monotonic() < end
            time.sleep(0.01)
        while scheduler.running:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert scheduler.counters.generated_tokens < 30 * 2000
