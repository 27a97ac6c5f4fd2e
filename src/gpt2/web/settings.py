"""Who may use a server, and how much a request may ask for."""

from __future__ import annotations

import dataclasses
import ipaddress

from gpt2.checks import check_fields, setting


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """How much a request may ask for, and how long it may take."""

    most_tokens: int = setting(
        2048, "largest max_tokens of a request", flag="max_tokens", metavar="N", low=1
    )
    most_completions: int = setting(
        64,
        "completions of a request (prompts times n or best_of)",
        flag="max_completions",
        metavar="N",
        low=1,
    )
    most_waiting: int = setting(
        128,
        "requests that may wait; more are refused with status 429",
        flag="max_queue",
        metavar="N",
        low=1,
    )
    most_bytes: int = setting(
        1 << 20, "largest body of a request (bytes)", flag="max_body", metavar="N", low=1
    )
    seconds: float = setting(
        300.0, "time limit of a request (seconds)", flag="timeout", metavar="SECONDS", above=0
    )

    def __post_init__(self) -> None:
        check_fields(self)


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach a host name or address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        host: the address that it listens on.
        user: "NAME:PASSWORD" for HTTP's basic authentication, or an empty string.
        api_key: key for "Authorization: Bearer KEY", or an empty string.
        origin: origin of web pages that may use the endpoint, or an empty string.
    """

    host: str
    user: str = ""
    api_key: str = ""
    origin: str = ""
