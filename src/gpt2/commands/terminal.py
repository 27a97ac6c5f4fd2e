"""What a person sees: paths, progress bars, notices, tables and sample banners."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from gpt2.commands.streams import check_output
from gpt2.data.sources import total_size
from gpt2.errors import escaped
from gpt2.errors import shown as shown

# Bars need no thread that watches them, and without it workers can be forks; see `gpt2.processes`.
tqdm.monitor_interval = 0
_PLAIN = "\x1b[0m"  # ends a color


def as_typed(words: Sequence[str]) -> str:
    """Return the words of a command as they are typed in this system's shell."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


@contextlib.contextmanager
def byte_bar(files: list[Path]) -> Iterator[Callable[[int], object]]:
    """Show a progress bar over the bytes of these files; yields its update function."""
    with tqdm(total=total_size(files), unit="B", unit_scale=True) as bar:
        yield bar.update


@contextlib.contextmanager
def token_bar(
    tokens: int | None = None, name: str | None = None
) -> Iterator[Callable[[int], object]]:
    """Show a progress bar over tokens; yields its update function."""
    with tqdm(total=tokens, desc=name and escaped(name), unit="token", unit_scale=True) as bar:
        yield bar.update


def notice(sentence: str) -> None:
    """Print a sentence on standard error, above a progress bar if there is one, and escaped."""
    tqdm.write(escaped(sentence), file=sys.stderr)


def for_terminal(text: str) -> str:
    """Return generated text as it is printed: exact, but on a terminal without control characters.

    These are escaped there, as a terminal obeys them. Newlines and tabs stay, and so do the joiners
    that emoji and some scripts need.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        return text
    return re.sub(r"[^\n\t\u200c\u200d]+", lambda part: escaped(part[0]), text)


def has_colors() -> bool:
    """Return whether standard output is a terminal whose user wants colors.

    The console of Windows shows them, as tqdm initializes colorama there.
    """
    return sys.stdout is not None and sys.stdout.isatty() and "NO_COLOR" not in os.environ


def in_color(piece: str, color: str | None) -> str:
    """Return a piece of text in a color (an escape sequence), without control characters.

    A text may contain some that the terminal would obey. The color ends and begins again at each
    line end, as pagers show line by line.
    """
    piece = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in piece
    )
    return "\n".join(f"{color}{line}{_PLAIN}" for line in piece.split("\n")) if color else piece


def print_banner(number: int) -> None:
    """Print the line above a sample, as in 2019, unless nobody gets it: see `check_output`."""
    check_output()
    print("=" * 40, "SAMPLE", number, "=" * 40)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, its first column aligned left and the others right."""
    cells = [[escaped(str(cell)) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *rest = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip())


def print_values(values: Mapping[str, object]) -> None:
    """Print names and values, one pair a line."""
    width = max(map(len, values))
    for name, value in values.items():
        print(f"{name.replace('_', ' '):{width}}  {escaped(formatted(value))}")


def duration(seconds: float) -> str:
    """Return a time in words, rounded to two units.

    Example:
        >>> duration(8), duration(90), duration(7300)
        ('8 s', '1 min 30 s', '2 h 2 min')
    """
    for unit, size, smaller, part in (("h", 3600, "min", 60), ("min", 60, "s", 1)):
        parts = round(seconds / part)
        if parts * part >= size:
            return f"{parts * part // size:,} {unit} {parts * part % size // part} {smaller}"
    return f"{round(seconds)} s"


def formatted(value: object) -> str:
    """Return a value as tables show it.

    Example:
        >>> formatted(12345), formatted(0.123456), formatted(1234.5)
        ('12,345', '0.1235', '1,234.50')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) < 10:
        return f"{value:,.4f}"
    return f"{value:,.2f}" if abs(value) < 1e9 else f"{value:.3e}"
