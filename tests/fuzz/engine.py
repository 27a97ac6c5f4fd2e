"""Mutates valid files at random and checks that a reader raises nothing but UserError.

A mutated file that makes the reader end at a new place joins the corpus and is mutated further, as
in coverage-guided fuzzers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as hypothesis_seed

from gpt2.errors import UserError
from tests.fuzz.readers import Reader, wrong_words

LONGEST = 10.0  # seconds of processor time for one file of a few kilobytes
BATCH = 2000  # generated contents per seed, which bounds the memory of Hypothesis
_CORPUS = 300

_INTERESTING = (b"\0", b"\x7f", b"\x80", b"\xff", b"\xff" * 4, b"\xff" * 9 + b"\1", b"\0" * 8)
_WORDS = (
    b"999999999999",
    b"-1",
    b"1e999",
    b"../../etc/passwd",
    b'"',
    b"'",
    b"\\",
    b"{",
    b"[" * 5000,
)
_WORDS += (b"\n", b" ", b"null", b"NaN", b"\xed\xa0\x80", b"<?xml", b"---", b"\xc4\xa0")


@dataclasses.dataclass
class Figures:
    """Results of one reader."""

    inputs: int = 0
    refused: int = 0  # with a UserError; the others were read
    places: int = 0  # distinct places where reading ended
    slowest: float = 0.0  # seconds


class Finding(AssertionError):
    """A file that was neither read nor refused correctly."""


def fuzz(reader: Reader, inputs: int, seed: int, keep: Path | None = None) -> Figures:
    """Give a reader this many files: four of five are mutations, the others are generated.

    Args:
        keep: where a file that reveals a bug is saved.

    Raises:
        Finding: a bug, with the file that reveals it.
    """
    figures, ends = Figures(), set()
    with _folder(reader) as folder:

        def attempt(content: bytes) -> bool:
            """Read a file, and return whether reading ended at a new place."""
            end = _attempt(reader, folder, content, figures, seed, keep)
            new = end not in ends
            ends.add(end)
            figures.places = len(ends)
            return new

        _mutate(reader, inputs * 4 // 5, seed, attempt)
        while figures.inputs < inputs:
            _generate(reader, min(BATCH, inputs - figures.inputs), seed + figures.inputs, attempt)
    return figures


@contextlib.contextmanager
def _folder(reader: Reader) -> Iterator[Path]:
    memory = Path("/dev/shm")  # spares the disk
    place = str(memory) if memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        for other, content in reader.beside:
            (Path(name) / other).write_bytes(content)
        yield Path(name)


def _attempt(
    reader: Reader, folder: Path, content: bytes, figures: Figures, seed: int, keep: Path | None
) -> object:
    path = folder / reader.file
    path.write_bytes(content)
    begin = time.process_time()  # wall time would depend on the load
    figures.inputs += 1
    try:
        reader.read(path)
        end: object = "read"
    except UserError as error:
        figures.refused += 1
        end = _place(error)
        wrong = wrong_words(error.args[0])  # not yet escaped
        if wrong:
            raise _finding(content, seed, keep, wrong) from error
    except Exception as error:
        raise _finding(content, seed, keep, f"{type(error).__name__}: {error}") from error
    seconds = time.process_time() - begin
    figures.slowest = max(figures.slowest, seconds)
    if seconds > LONGEST:
        raise _finding(content, seed, keep, f"took {seconds:.0f} s")
    return end


def _finding(content: bytes, seed: int, keep: Path | None, what: str) -> Finding:
    if keep:
        keep.write_bytes(content)
    shown = content if len(content) < 400 else content[:400] + b"..."
    return Finding(f"{what}; seed {seed}; the file, {len(content)} bytes: {shown!r}")


def _place(error: BaseException | None) -> object:
    """Return where in the code an exception and its causes were raised."""
    places = []
    while error:
        trace = error.__traceback__
        while trace and trace.tb_next:
            trace = trace.tb_next
        places.append((type(error), trace.tb_frame.f_code.co_name, trace.tb_lineno))
        error = error.__cause__
    return tuple(places)


def _mutate(reader: Reader, count: int, seed: int, attempt: Callable[[bytes], bool]) -> None:
    chance = random.Random(seed)
    corpus = [(wrap, content) for wrap in reader.wraps for content in reader.seeds]
    for _ in range(count):
        wrap, content = chance.choice(corpus)
        _, other = chance.choice(corpus)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            content = _changed(content, other, chance)
        if attempt(wrap(content)) and len(content) < 1 << 16:
            corpus.append((wrap, content))
            if len(corpus) > _CORPUS:
                corpus.pop(chance.randrange(len(corpus)))


def _changed(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return the content with one change at a random place."""
    place = chance.randrange(len(content) + 1)
    stop = min(len(content), place + chance.choice((1, 1, 2, 4, 8, 40)))
    before, middle, after = content[:place], content[place:stop], content[stop:]
    kind = chance.randrange(10)
    if kind == 0:
        return before
    if kind == 1:
        return before + after
    if kind == 2:
        return before + middle * chance.choice((2, 2, 3, 50)) + after
    if kind == 3:
        return before + chance.randbytes(len(middle)) + after
    if kind == 4:
        return before + chance.choice(_INTERESTING) + after
    if kind == 5:
        return before + chance.choice(_WORDS) + after
    if kind == 6:
        start = chance.randrange(len(other) + 1)
        return before + other[start : start + chance.choice((4, 40, 400))] + after
    if kind == 7:
        numbers = list(re.finditer(rb"-?\d+", content))
        if numbers:
            number = chance.choice(numbers)
            return content[: number.start()] + chance.choice(_WORDS) + content[number.end() :]
    if middle:
        return before + bytes([middle[0] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    return content + chance.randbytes(3)


def _generate(reader: Reader, count: int, seed: int, attempt: Callable[[bytes], bool]) -> None:
    @hypothesis_seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(reader.generated)
    def read(content: bytes) -> None:
        attempt(content)

    read()
