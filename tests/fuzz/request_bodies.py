"""Made-up bodies of requests for the server, in the process of the test.

python -m tests.fuzz.request_bodies [--inputs 100000] [--seed N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from starlette.types import ASGIApp

from gpt2.hparams import HParams
from gpt2.web.api import Endpoint
from gpt2.web.completion_request import FIELDS
from gpt2.web.registry import ModelRegistry
from gpt2.web.server import protect
from gpt2.web.settings import Access, RequestLimits
from tests.web.conftest import load_numpy, write_model

PATHS = ("/v1/completions",) * 8 + ("/tokenize", "/detokenize")
AT_ONCE = 50  # bodies
ALLOWED = {200, 400, 404, 405, 413}
NAMES = (*sorted(FIELDS), "tokens", "x", "", "\ud800", "__proto__")
TEXTS = (
    "",
    "the cat",
    "small",
    "\ud800",
    "\x00\x1b[2J",
    "🐱" * 20,
    "<|endoftext|>",
    "../..",
    "a" * 99,
)
NUMBERS = (0, 1, 2, 3, 7, -1, 0.5, 1.5, 1e-300, 1e308, -1e308, 2**31, 2**63, 10**40, True, False)


def made_up(chooser: random.Random, depth: int = 0) -> Any:
    """Return a JSON value."""
    kind = chooser.random()
    if kind < 0.35:
        return chooser.choice(NUMBERS)
    if kind < 0.65:
        return chooser.choice(TEXTS)
    if kind < 0.7 or depth > 2:
        return None
    size = chooser.choice((0, 1, 2, 5))
    if kind < 0.85:
        return [made_up(chooser, depth + 1) for _ in range(size)]
    return {chooser.choice((*NAMES, "1", "299")): made_up(chooser, depth + 1) for _ in range(size)}


def body(chooser: random.Random) -> bytes:
    """Return a body: mostly a valid one with a few fields replaced, sometimes damaged."""
    valid = {
        "model": "small", "prompt": "the cat", "max_tokens": 3, "temperature": 0.7, "top_p": 0.9,
        "n": 2, "stop": ["a"], "seed": 1, "logprobs": 1, "echo": True, "logit_bias": {"5": 1},
        "stream": chooser.random() < 0.3, "presence_penalty": 1, "tokens": [1, 2],
    }  # fmt: skip
    kept = {name: value for name, value in valid.items() if chooser.random() < 0.5}
    if chooser.random() < 0.8:
        kept.pop("tokens", None)
    for _ in range(chooser.choice((0, 0, 1, 1, 2, 5))):
        kept[chooser.choice(NAMES)] = made_up(chooser)
    content = bytearray(json.dumps(kept, allow_nan=True).encode())
    while chooser.random() < 0.15:
        place = chooser.randrange(len(content))
        content[place : place + chooser.randrange(3)] = chooser.choice(
            (b"", b"\xff", b"NaN", b"[" * 3000, b'"', b"}", b"1e999", b"9" * 5000, b"\\u0000")
        )
        content = content or bytearray(b" ")
    return bytes(content)


async def answer(app: ASGIApp, path: str, content: bytes) -> tuple[int, bytes]:
    """Send a body to the application and return status and body of the answer."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7860),
        "headers": [(b"host", b"localhost"), (b"content-length", str(len(content)).encode())],
    }  # fmt: skip
    waiting, forever = [{"type": "http.request", "body": content}], asyncio.Event()
    status, parts = 0, []

    async def receive() -> dict:
        if waiting:
            return waiting.pop()
        await forever.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    await asyncio.wait_for(app(scope, receive, send), 60)
    return status, b"".join(parts)


def fuzz(inputs: int, seed: int) -> Counter:
    """Send so many bodies, and return the number of answers of each status.

    Raises:
        AssertionError: an answer has a status other than those of mistakes in a body, or no error
            object.
    """
    chooser = random.Random(seed)
    bugs: list[BaseException] = []
    found: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "models" / "small", 1, HParams(300, 16, 8, 2, 1))
        models = ModelRegistry(["small"], load_numpy, f"{folder}/models", slots=4)
        limits = RequestLimits(most_tokens=20, most_completions=8, seconds=30)
        app = protect(Endpoint(models, limits, bugs.append).app(), Access("127.0.0.1"), limits)

        async def check(number: int, path: str, content: bytes) -> None:
            status, received = await answer(app, path, content)
            found[status] += 1
            where = f"seed {seed}, body {number}, {path}: {content[:500]!r}"
            assert status in ALLOWED, f"{where}: {status} {received[-300:]!r} {bugs}"
            if status != 200:
                assert json.loads(received)["error"]["message"].isprintable(), where

        async def run() -> None:
            for start in range(0, inputs, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, inputs))
                await asyncio.gather(
                    *(check(each, chooser.choice(PATHS), body(chooser)) for each in numbers)
                )

        asyncio.run(run())
        models.stop(10)
    assert bugs == []
    return found


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    args = parser.parse_args()
    found = fuzz(args.inputs, args.seed)
    print(
        f"{args.inputs:,} bodies, seed {args.seed}: "
        + ", ".join(f"{n:,} x {s}" for s, n in found.items())
    )


if __name__ == "__main__":
    main()
