#!/usr/bin/env python3
"""Measure tokenization speed: this tokenizer, the algorithm of 2019, tiktoken and tokenizers.

    python benchmarks/encoding.py models/117M shakespeare.txt more.txt --made 32 64

Each round runs every tokenizer once, with an empty cache and including reading the file; the table
shows the median of the rounds. --made creates texts from the source files of Python. Tokenizers
that would take too long for a text, judged by their speed on the previous one, are left out, as are
tiktoken and tokenizers if they are not installed. All token ids are compared.

A second table has whole processes: encode.py, which also writes the tokens, and a program that only
encodes with tiktoken. Both start, read the vocabulary and the text. They alternate; the ratios are
medians of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import regex

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import corpora
from machine import describe, environment, taken
from report import ENCODING, record, table, write_section

from gpt2.data import tokenization
from gpt2.tokenizer import ENCODER_FILE, ENDOFTEXT, MERGES_FILE, Tokenizer
from gpt2.tokenizer.vocabulary import read_vocabulary, spelled, token_bytes

WORD = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# Arguments: vocabulary in tiktoken's format, id of <|endoftext|>, pattern of words, text.
TIKTOKEN = """
import sys
import tiktoken, tiktoken.load
ranks = tiktoken.load.load_tiktoken_bpe(sys.argv[1])
special = {"<|endoftext|>": int(sys.argv[2])}
encoding = tiktoken.Encoding(
    "gpt2", pat_str=sys.argv[3], mergeable_ranks=ranks, special_tokens=special
)
with open(sys.argv[4], "rb") as file:
    encoding.encode_to_numpy(file.read().decode(), allowed_special="all")
"""

OURS = "this toolkit"
PEER = "tiktoken, 1 thread, without output"
_PATIENCE = 8  # seconds; tokenizers that take longer for a text are left out

Encode = Callable[[Path], np.ndarray]


class Original:
    """Byte-pair encoding as in 2019: word by word, with every merge a pass over the whole word."""

    def __init__(self, tokenizer: Tokenizer):
        self._ids = tokenizer.vocabulary
        self._ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
        self._pattern = regex.compile(WORD)
        self._known: dict[str, list[str]] = {}

    def encode(self, content: str) -> list[int]:
        """Return the token ids of a text without special tokens."""
        ids: list[int] = []
        for word in self._pattern.findall(content):
            ids.extend(self._ids[token] for token in self._tokens(spelled(word)))
        return ids

    def _tokens(self, word: str) -> list[str]:
        if word in self._known:
            return self._known[word]
        tokens = list(word)
        while len(tokens) > 1:
            first = min(pairwise(tokens), key=lambda pair: self._ranks.get(pair, float("inf")))
            if first not in self._ranks:
                break
            joined: list[str] = []
            for token in tokens:
                if joined and (joined[-1], token) == first:
                    joined[-1] += token
                else:
                    joined.append(token)
            tokens = joined
        self._known[word] = tokens
        return tokens


def systems(folder: Path, workers: int) -> Iterator[tuple[str, Callable[[], Encode]]]:
    """Yield the name of each tokenizer, and a function that creates it."""
    loaded = Tokenizer.load(folder)

    def read(path: Path) -> str:
        return path.read_bytes().decode()

    def ours(count: int) -> Callable[[], Encode]:
        def make() -> Encode:
            tokenizer = Tokenizer(loaded.vocabulary, loaded.merges)
            tokenizer.encode("The first call builds the tables.")

            def encode(path: Path) -> np.ndarray:
                # As in encode.py, without <|endoftext|> at the end.
                parts = tokenization.read_parts(
                    [path], tokenizer, len(loaded.vocabulary), workers=count
                )
                return np.concatenate([tokens for tokens, _ in parts])[:-1]

            return encode

        return make

    yield f"{OURS}, 1 process", ours(1)
    if workers > 1:
        yield f"{OURS}, {workers} processes", ours(workers)

    def original() -> Encode:
        encoder = Original(loaded)
        return lambda path: np.array(encoder.encode(read(path)))

    yield "the algorithm of 2019", original
    try:
        import tiktoken

        ranks = {token_bytes(token): number for token, number in loaded.vocabulary.items()}
        special = {ENDOFTEXT: ranks.pop(ENDOFTEXT.encode())}
        encoding = tiktoken.Encoding(
            "gpt2", pat_str=WORD, mergeable_ranks=ranks, special_tokens=special
        )
        yield (
            f"tiktoken {tiktoken.__version__}, 1 thread",
            lambda: lambda path: encoding.encode_to_numpy(read(path), allowed_special="all"),
        )
    except ImportError:
        pass
    try:
        import tokenizers

        def library() -> Encode:
            model = tokenizers.models.BPE.from_file(
                str(folder / ENCODER_FILE), str(folder / MERGES_FILE)
            )
            reader = tokenizers.Tokenizer(model)
            reader.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
            reader.add_special_tokens([ENDOFTEXT])
            return lambda path: np.array(reader.encode(read(path)).ids)

        yield f"tokenizers {tokenizers.__version__}, 1 thread", library
    except ImportError:
        pass


def measure(path: Path, made: dict[str, Callable[[], Encode]], rounds: int) -> dict[str, float]:
    """Return the median speed of each tokenizer in bytes per second."""
    size = path.stat().st_size
    speeds: dict[str, list[float]] = {name: [] for name in made}
    expected = None
    for _ in range(rounds):
        for name, make in made.items():
            encode = make()
            start = time.perf_counter()
            ids = encode(path)
            speeds[name].append(size / (time.perf_counter() - start))
            expected = ids if expected is None else expected
            if not np.array_equal(ids, expected):
                sys.exit(f"{name}: different token ids for {path}.")
    return {name: statistics.median(found) for name, found in speeds.items()}


def programs(vocabulary: Path, text: Path, workers: int, ranks: Path) -> dict[str, list[str]]:
    """Return the command of each whole process, which may write into its current folder.

    Args:
        ranks: the vocabulary in tiktoken's format, written here if tiktoken is installed.
    """
    script, text = str(ROOT / "src" / "encode.py"), str(text.resolve())
    flags = ["--model_name", str(vocabulary.resolve()), "--workers", str(workers)]
    found = {
        f"`encode.py` to `{out}`": [sys.executable, script, text, out, *flags]
        for out in ("tokens.npz", "tokens/")
    }
    if importlib.util.find_spec("tiktoken"):
        tokens, _ = read_vocabulary(vocabulary)
        end = tokens.pop(ENDOFTEXT)
        lines = (
            f"{base64.b64encode(token_bytes(token)).decode()} {number}"
            for token, number in tokens.items()
        )
        ranks.write_text("\n".join(lines))
        found[PEER] = [sys.executable, "-c", TIKTOKEN, str(ranks), str(end), WORD, text]
    return found


def time_programs(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each command in each round, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    # tiktoken would copy the vocabulary into its cache.
    variables = environment() | {"TIKTOKEN_CACHE_DIR": ""}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True)
                times[name].append(time.perf_counter() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def compare_programs(args: argparse.Namespace, texts: list[Path]) -> str:
    """Return the table of whole processes: seconds, and tiktoken's seconds over them."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = Path(folder) / "gpt2.tiktoken"
        columns = [
            time_programs(programs(args.vocabulary, text, args.workers, ranks), args.rounds)
            for text in texts
        ]

    def cell(times: dict[str, list[float]], name: str) -> str:
        shown = f"{statistics.median(times[name]):.2f} s"
        if name == PEER or PEER not in times:
            return shown
        ratios = [peer / own for peer, own in zip(times[PEER], times[name], strict=True)]
        return f"{shown} ({statistics.median(ratios):.2f}x)"

    rows = [[name, *(cell(times, name) for times in columns)] for name in columns[0]]
    return table(["whole process", *map(title, texts)], rows)


def title(text: Path) -> str:
    """Return the head of a text's column."""
    return f"{text.name}, {text.stat().st_size / 1e6:.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("vocabulary", type=Path, help="folder with encoder.json and vocab.bpe")
    parser.add_argument("texts", nargs="+", type=Path, help="files of UTF-8 text")
    parser.add_argument(
        "--made",
        metavar="MB",
        nargs="+",
        type=int,
        default=[],
        help="sizes of texts to create (MB)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--workers", type=int, default=2, help="number of processes of the second measurement"
    )
    parser.add_argument("--docs", type=Path, help="Markdown file to write the table to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"sources-{size}.txt" for size in args.made]
        for path, size in zip(paths, args.made, strict=True):
            corpora.make_corpus(path, corpora.sources(), size * 10**6)
        compare(args, [*args.texts, *paths])


def compare(args: argparse.Namespace, texts: list[Path]) -> None:
    """Measure all tokenizers on all texts, the shortest first, and print the table."""
    others = taken()
    made = dict(systems(args.vocabulary, args.workers))
    columns: dict[Path, dict[str, float]] = {}
    last: dict[str, float] = {}  # speed of each on the previous text
    texts = sorted(texts, key=lambda path: path.stat().st_size)
    for path in texts:
        longest = {name: path.stat().st_size / last.get(name, math.inf) for name in made}
        quick = {name: make for name, make in made.items() if longest[name] < _PATIENCE}
        columns[path] = measure(path, quick, args.rounds)
        last |= columns[path]
    rows = [
        [name, *(f"{found[name] / 1e6:.1f}" if name in found else "" for found in columns.values())]
        for name in made
    ]
    speeds_table = table(["MB/s", *map(title, texts)], rows)
    print(speeds_table)
    programs_table = compare_programs(args, texts)
    print(programs_table)
    if args.docs:
        machine = describe()
        where = (
            f"On {machine['cores']} cores of {machine['cpu']}, other load {others:.0%}, "
            f"Python {machine['python']}."
        )
        write_section(args.docs, f"{where}\n\n{speeds_table}\n\n{programs_table}")
        speeds = list(columns.values())[-1]
        fastest = max(speed for name, speed in speeds.items() if name.startswith(OURS))
        record(args.docs, machine["cpu"], {ENCODING: f"{fastest / 1e6:.1f} MB/s"})


if __name__ == "__main__":
    main()
