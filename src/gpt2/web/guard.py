"""What every request has to pass before it reaches a route: who sent it, from where, how much."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2.web.api import error_response
from gpt2.web.errors import ApiError
from gpt2.web.settings import Access, is_loopback

OPEN_PATHS = ("/healthz",)  # for load balancers, which have no password


class Guard:
    """ASGI middleware that checks host, origin and password, and limits the body.

    On a loopback address, the Host header must be a loopback name: otherwise a web page whose name
    is made to point at 127.0.0.1 (DNS rebinding) could use the server through a browser. For the
    same reason the Origin header, which browsers send with what a page asks for, must be the
    server's own.
    """

    def __init__(self, app: ASGIApp, access: Access, most_bytes: int, body_seconds: float):
        """Protect an application.

        Args:
            most_bytes: largest body.
            body_seconds: how long the client may take to send the body.
        """
        self._app = app
        self._access = access
        self._most_bytes = most_bytes
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
            self._check(scope, headers)
            await self._app(scope, self._limited(receive, headers), watched_send)
        except ApiError as error:
            if started:
                raise
            response = error_response(error)
            if error.status == 401:
                response.headers["WWW-Authenticate"] = (
                    "Basic, Bearer" if self._access.user else "Bearer"
                )
            await response(scope, receive, send)

    def _check(self, scope: Scope, headers: Mapping[str, bytes]) -> None:
        """Raise an ApiError for a request that may not be answered."""
        host = headers.get("host", b"").decode("latin-1")
        if is_loopback(self._access.host) and not is_loopback(_name_of(f"//{host}")):
            raise ApiError(403, "The Host header must be localhost or a loopback address.")
        origin = headers.get("origin", b"").decode("latin-1")
        if origin and origin != self._access.origin and _address_of(origin) != host:
            raise ApiError(403, "Web pages of other origins may not use this server; see --cors.")
        is_preflight = scope.get("method") == "OPTIONS" and origin
        if scope["path"] not in OPEN_PATHS and not is_preflight and not self._knows(headers):
            raise ApiError(
                401, "Send the API key or the password of this server.", None, "unauthorized"
            )

    def _knows(self, headers: Mapping[str, bytes]) -> bool:
        """Return whether the Authorization header has the key or the password."""
        if not (self._access.user or self._access.api_key):
            return True
        scheme, _, secret = headers.get("authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and self._access.api_key:
            return _equal(secret.strip(), self._access.api_key.encode())
        if scheme.lower() == b"basic" and self._access.user:
            try:
                given = base64.b64decode(secret.strip(), validate=True)
            except binascii.Error:
                return False
            return _equal(given, self._access.user.encode())
        return False

    def _limited(self, receive: Receive, headers: Mapping[str, bytes]) -> Receive:
        """Return a `receive` that raises an ApiError for a body that is too large or too slow."""
        length = headers.get("content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > self._most_bytes:
            raise self._too_large()
        received, complete = 0, False
        end = asyncio.get_running_loop().time() + self._body_seconds

        async def limited() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            remaining = end - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), max(remaining, 0))
            except asyncio.TimeoutError as error:
                sentence = f"The body took longer than {self._body_seconds:g} seconds."
                raise ApiError(408, sentence, None, "timeout") from error
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self._most_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        message = f"The body is larger than {self._most_bytes:,} bytes. Send less."
        return ApiError(413, message, None, "body_too_large")


def _equal(given: bytes, expected: bytes) -> bool:
    """Compare in a time that depends neither on the content nor on the length."""
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(expected).digest())


def _name_of(address: str) -> str:
    """Return the host name in `//NAME:PORT`, or an empty string if there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _address_of(origin: str) -> str | None:
    """Return the host and port of an origin such as `http://localhost:7860`."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
