#!/usr/bin/env python3
"""Measure a server under load: time to first token, tokens per second, and memory.

python benchmarks/serving.py --model_name 124M --quantize int8 --docs docs/benchmarks/serving.md

A server of this project is started, and so many clients at once send it requests over loopback,
one after the other each. With --llama PYTHON --gguf FILE, llama.cpp's server gets the same
requests; the servers take turns. Some requests are then sent once more, alone, and their texts
compared. The second table has the longest time between two tokens of a text while a long prompt
joins.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import datetime
import itertools
import json
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
LLAMA_SERVER = "llama_cpp.server"  # a module, and its name in the table
COMMON = "the of and to in that was his he it with is for as had you not be her on at by which"
COMPARED = 20  # requests of each row that are sent once more
LONG_PROMPT = 900  # tokens
GAP_TOKENS = 200  # of the text that it joins
GAP_RUNS = 5  # of which the table has the median
PATIENCE = 120.0  # seconds for an answer, or for a server to start


@dataclasses.dataclass
class Measured:
    """What came of a load.

    Attributes:
        texts: index of the request and text of each answer.
        first: seconds from each request to its first token.
        tokens: of all completions.
        seconds: how long it took.
        errors: one line for each request that failed.
        memory: of the server in bytes, once a second.
    """

    texts: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    first: list[float] = dataclasses.field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    errors: list[str] = dataclasses.field(default_factory=list)
    memory: list[int] = dataclasses.field(default_factory=list)

    def add(self, other: Measured) -> None:
        """Take what came of the same load at another time."""
        for field in dataclasses.fields(self):
            both = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, both)

    def memory_in(self, tenth: int) -> float:
        """Return the mean memory in a tenth of the time, from 0; of 10 minutes, in a minute."""
        count = len(self.memory)
        part = self.memory[count * tenth // 10 : count * (tenth + 1) // 10] or self.memory[-1:]
        return sum(part) / max(len(part), 1)

    def first_token(self, share: float) -> float:
        """Return a quantile of the time to the first token, in seconds."""
        ordered = sorted(self.first)
        return (
            ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")
        )


def small_requests(count: int, model: str) -> list[dict[str, Any]]:
    """Return short requests of different prompts, lengths and seeds."""
    chooser = random.Random(0)
    return [
        {
            "model": model,
            "prompt": " ".join(chooser.choices(COMMON.split(), k=chooser.randrange(1, 30))),
            "max_tokens": chooser.randrange(1, 40),
            "seed": number,
        }
        for number in range(count)
    ]


def large_requests(
    count: int, model: str, words: int, tokens: int, endoftext: int
) -> list[dict[str, Any]]:
    """Return requests that generate equally many tokens each.

    Args:
        endoftext: the token that would end a completion early.
    """
    chooser = random.Random(0)
    return [
        {
            "model": model,
            "prompt": " ".join(chooser.choices(COMMON.split(), k=words)),
            "max_tokens": tokens,
            "seed": number,
            "top_k": 40,
            "logit_bias": {str(endoftext): -100},
        }
        for number in range(count)
    ]


async def measure(
    url: str,
    requests: Sequence[dict[str, Any]],
    clients: int,
    seconds: float,
    process: int | None = None,
) -> Measured:
    """Send requests for some seconds, and wait for the last answers.

    Args:
        process: id of the server, to record its memory.
    """
    found, numbers = Measured(), itertools.count()
    start = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() < start + seconds:
            number = next(numbers)
            body = requests[number % len(requests)]
            try:
                await asyncio.wait_for(_stream(url, body, number, found), PATIENCE)
            except Exception as error:
                found.errors.append(f"request {number}: {error!r}")

    async def watch_memory(server: int) -> None:
        while True:
            found.memory.append(resident(server))
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch_memory(process)) if process else None
    await asyncio.gather(*(client() for _ in range(clients)))
    if watching:
        watching.cancel()
    found.seconds = time.perf_counter() - start
    return found


async def different_alone(
    url: str, requests: Sequence[dict[str, Any]], texts: Sequence[tuple[int, str]]
) -> int:
    """Return how many of the first requests have another text when they are sent alone."""
    alone = Measured()
    for number in range(min(COMPARED, len(requests))):
        await asyncio.wait_for(_stream(url, requests[number], number, alone), PATIENCE)
    expected = dict(alone.texts)
    return sum(text != expected.get(number % len(requests), text) for number, text in texts)


def endoftext_of(url: str, model: str) -> int:
    """Ask a server of this project for the token that ends a text."""
    body = json.dumps({"model": model, "prompt": "<|endoftext|>"}).encode()
    request = Request(f"{url}/tokenize", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=PATIENCE) as answer:
        [endoftext] = json.load(answer)["tokens"]
    return endoftext


async def gaps(url: str, model: str, tokens: int, endoftext: int) -> list[float]:
    """Return the seconds between the tokens of a text that a long prompt joins halfway."""
    [body] = large_requests(1, model, 10, tokens, endoftext)
    [joining] = large_requests(1, model, 1, 1, endoftext)
    joining["prompt"] = [random.randrange(1000) for _ in range(LONG_PROMPT)]
    times: list[float] = []
    joined: list[asyncio.Task[None]] = []

    def arrived() -> None:
        times.append(time.perf_counter())
        if len(times) == 20:
            joined.append(asyncio.create_task(_stream(url, joining, 0, Measured())))

    await asyncio.wait_for(_stream(url, body, 0, Measured(), arrived), PATIENCE)
    await joined[0]
    return [after - before for before, after in itertools.pairwise(times)]


async def _stream(
    url: str,
    body: dict[str, Any],
    number: int,
    found: Measured,
    arrived: Callable[[], object] = lambda: None,
) -> None:
    """Send one request and read its answer to the end.

    Args:
        arrived: called for each token.
    """
    address = urlsplit(url)
    content = json.dumps(body | {"stream": True}).encode()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        begin = time.perf_counter()
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise ValueError((head + await reader.read()).decode(errors="replace")[-300:])
        text, first, reason = "", 0.0, None
        async for event in _events(reader):
            if "error" in event:
                raise ValueError(event["error"]["message"])
            first = first or time.perf_counter() - begin
            arrived()
            for choice in event["choices"]:
                text += choice["text"]
                reason = choice["finish_reason"] or reason
        if reason is None:
            raise ValueError("the answer has no finish_reason")
    finally:
        writer.close()
    found.texts.append((number, text))
    found.first.append(first)
    found.tokens += body["max_tokens"]


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON objects of a stream of server-sent events."""
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])
        elif line.startswith(b"data: [DONE]"):
            return
    raise ValueError("the connection was closed")


@contextlib.contextmanager
def this_server(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Run this project's server; yields its address and process id."""
    words = ["--model_name", args.model_name, "--quantize", args.quantize, "--port", "0"]
    words += ["--models_dir", args.models_dir] if args.models_dir else []
    command = [sys.executable, str(ROOT / "src" / "serve.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = re.search(r"http://\S+?:\d+", process.stdout.readline())
            if url is None:
                raise SystemExit("The server did not start.")
            yield url[0], process.pid
        finally:
            process.send_signal(signal.SIGINT)


@contextlib.contextmanager
def llama_server(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Run llama.cpp's server in its Python package."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [args.llama, "-m", LLAMA_SERVER, "--model", args.gguf, "--port", str(port)]
    command += ["--n_ctx", "1024", "--verbose", "false", "--n_threads", str(args.threads)]
    command += ["--interrupt_requests", "false"]  # by default, a new request ends the one before
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
        try:
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end and process.poll() is None:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


def resident(process: int) -> int:
    """Return the memory of a process in bytes; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+)", status)[1]) * 1024
    return 0


def row(name: str, clients: int, found: Measured, different: str) -> str:
    """Return a line of the table."""
    before, after = found.memory_in(1), found.memory_in(9)
    return (
        f"| {name} | {clients} | {found.tokens / found.seconds:,.0f} | "
        f"{1e3 * found.first_token(0.5):,.0f} | {1e3 * found.first_token(0.95):,.0f} | "
        f"{len(found.texts):,} | {len(found.errors)} | {different} | "
        f"{before / 1e6:,.0f} | {after / 1e6:,.0f} |"
    )


def table(args: argparse.Namespace) -> list[str]:
    """Measure all servers at all numbers of clients; the servers take turns."""
    lines = [
        "| server | clients | tokens/s | first token p50 (ms) | p95 (ms) | answers | errors | "
        "other text alone | memory in the second tenth (MB) | in the last (MB) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(this_server(args))
        servers = {f"**gpt2 serve, {args.quantize}**": ours}
        endoftext = endoftext_of(ours[0], args.model_name)
        requests = large_requests(1000, args.model_name, args.words, args.tokens, endoftext)
        if args.llama:
            servers[LLAMA_SERVER] = stack.enter_context(llama_server(args))
        for clients in args.clients:
            results = {name: Measured() for name in servers}
            for _, (name, (url, process)) in itertools.product(range(args.rounds), servers.items()):
                asyncio.run(measure(url, requests, clients, 2.0))  # warm up
                seconds = args.seconds / args.rounds
                found = asyncio.run(measure(url, requests, clients, seconds, process))
                results[name].add(found)
            for name, found in results.items():
                different = (
                    ""
                    if name == LLAMA_SERVER
                    else str(asyncio.run(different_alone(servers[name][0], requests, found.texts)))
                )
                lines.append(row(name, clients, found, different))
                print(lines[-1], *found.errors[:3], sep="\n", flush=True)
        # llama_cpp.server runs one request after the other, so none joins another there.
        alone = {name: server for name, server in servers.items() if name != LLAMA_SERVER}
        lines += ["", *gap_table(args, alone, endoftext)]
    return lines


def gap_table(
    args: argparse.Namespace, servers: dict[str, tuple[str, int]], endoftext: int
) -> list[str]:
    """Measure how long a text waits while a long prompt joins."""
    lines = [
        "| server | between two tokens, median (ms) | longest, while a prompt of "
        f"{LONG_PROMPT} tokens joins (ms) | (decode steps) |",
        "| --- | ---: | ---: | ---: |",
    ]
    found: dict[str, list[list[float]]] = {name: [] for name in servers}
    for _, (name, (url, _process)) in itertools.product(range(GAP_RUNS), servers.items()):
        found[name].append(asyncio.run(gaps(url, args.model_name, GAP_TOKENS, endoftext)))
    for name, runs in found.items():
        step = statistics.median(runs[0][:18])  # before the prompt joins
        longest = statistics.median(max(run[18:]) for run in runs)
        lines.append(
            f"| {name} | {1e3 * step:,.1f} | {1e3 * longest:,.1f} | {longest / step:.1f} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure, print a table and write it into a page."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.path.insert(0, str(ROOT / "src"))
    import machine
    from report import write_section

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name", default="124M")
    parser.add_argument("--models_dir", help="folder of the models (default: models)")
    parser.add_argument("--quantize", default="int8")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--seconds", type=float, default=20, help="600 for the long form")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each server")
    parser.add_argument("--words", type=int, default=60, help="of each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="of each completion")
    parser.add_argument("--llama", help="Python interpreter that has llama-cpp-python[server]")
    parser.add_argument("--gguf", help="the same weights for it")
    parser.add_argument("--docs", type=Path, help="page to write the table into")
    parser.add_argument("--section", default="benchmark", help="markers of the table in the page")
    args = parser.parse_args()
    facts = machine.describe()
    args.threads = facts["cores"]
    lines = [
        f"{datetime.date.today():%Y-%m-%d}, {facts['cpu']}, {facts['cores']} cores, load "
        f"{facts['load']:.1f} at the start. Prompts of {args.words} words, completions of "
        f"{args.tokens} tokens, {args.seconds:g} s for each row.",
        "",
        *table(args),
    ]
    if args.docs:
        write_section(args.docs, "\n".join(["", *lines, ""]), args.section)


if __name__ == "__main__":
    main()
