"""From the name of a dataset to files, and from files to blocks of bytes, unpacked."""

from __future__ import annotations

import errno
import glob
import importlib
import io
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

from gpt2.errors import UserError, in_short, visible

BLOCK = 2**20  # bytes read at a time

# What unpacks a file with that ending, and how the name of what is inside ends.
_COMPRESSIONS = {
    ".gz": ("gzip", ""),
    ".bz2": ("bz2", ""),
    ".xz": ("lzma", ""),
    ".tgz": ("gzip", ".tar"),
    ".txz": ("lzma", ".tar"),
}

# What find_files gives for "-". A file of that name can be had as ./-.
STANDARD_INPUT = Path("-")


class Source(NamedTuple):
    """A file, or one inside an archive: what it is called, and what is in it."""

    name: str  # without the ending of its compression
    blocks: Iterator[bytes]
    inside: bool = False  # whether it lies in an archive, among others


def find_files(path: str) -> list[Path]:
    """The files that a dataset's name stands for: a file, all below a folder, or a glob's matches.

    `-` is standard input. They come in the order of their names, so that every system encodes the
    same dataset. Below a folder, what begins with a dot is left out, as it is by patterns: `.git`,
    `.DS_Store` and their like are no part of anyone's text. In a pattern, `**` is any folders.

    Raises:
        UserError: there is none.
    """
    if path == "-":
        return [STANDARD_INPUT]
    place = Path(path)
    if os.path.exists(path) and not os.path.isdir(path):
        return [place]
    if os.path.isdir(path):
        found = (
            file
            for file in place.rglob("*")
            if not any(part.startswith(".") for part in file.relative_to(place).parts)
        )
    else:
        found = map(Path, glob.glob(path, recursive=True))
    files = sorted({file for file in found if file.is_file()}, key=lambda file: file.parts)
    if not files:
        raise UserError(
            f"{path or 'An empty path'} is not a file, a folder with files or a pattern that "
            "matches some; check the dataset's path."
        )
    return files


def total_size(files: list[Path]) -> int | None:
    """The bytes that reading these files tells as progress; None if that cannot be known."""
    sizes = [None if file is STANDARD_INPUT else _size(file.stat()) for file in files]
    return None if None in sizes else sum(sizes)


def _size(status: os.stat_result) -> int | None:
    """The bytes of a file; None for pipes and the like."""
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def is_among(path: Path, files: list[Path]) -> bool:
    """Whether `path` is one of the files, by whatever name."""
    return path.exists() and any(
        file is not STANDARD_INPUT and file.exists() and file.samefile(path) for file in files
    )


def open_sources(file: Path, progress: Callable[[int], object]) -> Iterator[Source]:
    """What is in a file: itself, or what it holds if it is compressed or an archive.

    Each is to be read before the next is asked for.

    Args:
        progress: called with the bytes of the file that have been read since the last call; they
            add up to the size the file had at the beginning.

    Raises:
        UserError: it cannot be read or unpacked, or became shorter meanwhile.
    """
    if file is STANDARD_INPUT:
        watched = _Watched(sys.stdin.buffer, None, progress)
        yield Source("standard input", _blocks(io.BufferedReader(watched, BLOCK), file))
        return
    try:
        with open(file, "rb", buffering=0) as raw:
            watched = _Watched(raw, _size(os.fstat(raw.fileno())), progress)
            yield from _unpacked(str(file), io.BufferedReader(watched, BLOCK), file)
            watched.finish()
    except UserError:
        raise
    except Exception as error:
        raise _cannot_read(file, error) from error


def _unpacked(name: str, stream: BinaryIO, file: Path, inside: bool = False) -> Iterator[Source]:
    ending = PurePath(name.lower()).suffix
    if ending in _COMPRESSIONS:
        module, inner = _COMPRESSIONS[ending]
        # Only now, as not every Python has been built with all of them.
        with importlib.import_module(module).open(stream) as unpacked:
            yield from _unpacked(name[: -len(ending)] + inner, unpacked, file, inside)
    elif ending == ".zip":
        with zipfile.ZipFile(stream) as archive:
            for member in sorted(archive.namelist()):
                # Neither folders nor what Finder adds to each archive.
                if not member.endswith("/") and not member.startswith("__MACOSX/"):
                    with archive.open(member) as unpacked:
                        yield from _unpacked(_inside(name, member), unpacked, file, inside=True)
    elif ending == ".tar":
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:  # in their own order, as they may be millions
                if member.isfile():
                    with archive.extractfile(member) as unpacked:
                        inner = _inside(name, member.name)
                        yield from _unpacked(inner, unpacked, file, inside=True)
                archive.members.clear()  # where each one was is not needed any more
    else:
        yield Source(name, _blocks(stream, file), inside)


def _inside(archive: str, member: str) -> str:
    """What a file in an archive is called here; archives may hold names of any length and kind."""
    return f"{archive}/{visible(member)[-200:]}"


def _blocks(stream: BinaryIO, file: Path) -> Iterator[bytes]:
    while True:
        try:
            block = stream.read(BLOCK)
        except Exception as error:
            raise _cannot_read(file, error) from error
        if not block:
            return
        yield block


def _cannot_read(file: Path, error: Exception) -> UserError:
    """The sentence for what the system, gzip, lzma or zipfile, each in its own way, say."""
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"{file} cannot be read: {error.strerror}.")
    reason = in_short(error) or type(error).__name__
    return UserError(f"{file} cannot be unpacked ({reason}); fetch it again or unpack it yourself.")


class _Watched(io.RawIOBase):
    """A file that tells how much of it has been read, and notices if it shrinks meanwhile."""

    def __init__(self, raw: BinaryIO, size: int | None, progress: Callable[[int], object]):
        super().__init__()
        self._raw = raw
        self._size = size  # None where it is not known
        self._told = 0
        self._progress = progress

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._raw.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: memoryview) -> int:
        count = self._raw.readinto(buffer)
        if self._size is None:
            self._progress(count)
        elif count:
            self._tell(min(count, self._size - self._told))
        elif self._raw.tell() < self._size:
            shorter = "it became shorter meanwhile; read it when no program writes to it any more"
            raise OSError(errno.EIO, shorter)
        return count

    def finish(self) -> None:
        """Tell the rest, which nobody needed to read."""
        if self._size is not None:
            self._tell(self._size - self._told)

    def _tell(self, count: int) -> None:
        if count:
            self._told += count
            self._progress(count)
