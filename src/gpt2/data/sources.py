"""Find the files of a dataset, and read them in blocks of bytes, decompressed."""

from __future__ import annotations

import errno
import glob
import importlib
import io
import os
import re
import stat
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import IO, Any, NamedTuple

from gpt2.errors import UserError, in_short, visible

BLOCK = 2**20  # bytes read at a time

# By suffix: the module that decompresses, and the suffix of what is inside.
_COMPRESSIONS = {
    ".gz": ("gzip", ""),
    ".bz2": ("bz2", ""),
    ".xz": ("lzma", ""),
    ".tgz": ("gzip", ".tar"),
    ".txz": ("lzma", ".tar"),
}

# The part ** of a pattern, and the separators after it.
_ANY_FOLDERS = r"(?:^|(?<=[/{0}]))\*\*(?:[/{0}]+|$)".format(re.escape(os.sep))

# What `find_files` returns for "-". A file of that name can be given as ./-.
STANDARD_INPUT = Path("-")


class Source(NamedTuple):
    """The name and content of a file, or of a member of an archive."""

    name: str  # without the suffix of its compression
    blocks: Iterator[bytes]
    inside: bool = False  # whether it is a member of an archive


def find_files(path: str) -> list[Path]:
    """Return the files of a dataset, sorted by name, so that every system gives the same order.

    Args:
        path: a file, a folder (all files below it), a glob pattern (`**` matches any folders), or
            `-` for standard input. Hidden files and folders, such as `.git`, are left out except in
            patterns that name them. A file that symbolic links give several names counts once.

    Raises:
        UserError: there is no such file.
    """
    if path == "-":
        return [STANDARD_INPUT]
    place = Path(path)
    if os.path.exists(path) and not os.path.isdir(path):
        return [place]
    found: Iterable[Path]
    if os.path.isdir(path):
        found = (
            file
            for file in place.rglob("*")
            if not any(part.startswith(".") for part in file.relative_to(place).parts)
        )
    else:
        found = map(Path, _matches(path))
    files = sorted(_once(found), key=lambda file: file.parts)
    if not files:
        raise UserError(
            f"{display_name(path) or 'An empty path'} is not a file, a folder with files or a "
            "pattern that matches files. Check the path of the dataset."
        )
    return files


def _matches(pattern: str) -> Iterator[str]:
    """Yield the paths that match a glob pattern.

    `glob` alone would follow symbolic links around in circles.
    """
    head, *tail = re.split(_ANY_FOLDERS, pattern, maxsplit=1)
    if not tail:
        yield from glob.iglob(pattern)
        return
    for start in glob.iglob(head) if head else [""]:
        for folder in _folders(start, ()):
            yield from _matches(os.path.join(glob.escape(folder), tail[0] or "*"))


def _folders(top: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yield a folder and those below it, but hidden ones and links to a folder above.

    Args:
        above: real paths of the folders above.
    """
    real = os.path.realpath(top or os.curdir)
    if real in above:
        return
    yield top
    try:
        names = [entry.name for entry in os.scandir(top or os.curdir) if entry.is_dir()]
    except OSError:  # not a folder, or one that may not be listed
        return
    for name in names:
        if not name.startswith("."):
            yield from _folders(os.path.join(top, name), (*above, real))


def _once(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files among these paths; the shortest name of one that links give several."""
    names: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in {path for path in paths if path.is_file()}:
        status = path.stat()
        names[status.st_dev, status.st_ino].append(path)
    for same in names.values():
        if len(same) == 1:
            yield same[0]
            continue
        longest_first = sorted(same, key=lambda path: (len(path.parts), path.parts), reverse=True)
        # Hard links have different real paths: they are files of their own.
        yield from {os.path.realpath(path): path for path in longest_first}.values()


def display_name(path: Path | str) -> str:
    """Return a path that can be printed anywhere: bytes that are not UTF-8 become escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def total_size(files: list[Path]) -> int | None:
    """Return the total size of these files in bytes; None if it is unknown, as for pipes."""
    total = 0
    for file in files:
        size = None if file is STANDARD_INPUT else _size(file.stat())
        if size is None:
            return None
        total += size
    return total


def _size(status: os.stat_result) -> int | None:
    """Return the size of a file in bytes; None for pipes and devices."""
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def is_among(path: Path, files: list[Path]) -> bool:
    """Return whether `path` is one of the files, under this or another name."""
    return path.exists() and any(
        file is not STANDARD_INPUT and file.exists() and file.samefile(path) for file in files
    )


def open_sources(file: Path, progress: Callable[[int], object]) -> Iterator[Source]:
    """Yield the content of a file, decompressed, or of each member of an archive.

    Read each source before you ask for the next.

    Args:
        file: a file, or `STANDARD_INPUT`.
        progress: called with the number of bytes of the file read since the last call; they add up
            to the size that the file had when it was opened.

    Raises:
        UserError: the file cannot be read or decompressed, or became shorter while it was read.
    """
    if file is STANDARD_INPUT:
        raw = _ProgressReader(sys.stdin.buffer, None, progress)
        yield Source("standard input", _blocks(io.BufferedReader(raw, BLOCK), file))
        return
    try:
        with open(file, "rb", buffering=0) as opened:
            raw = _ProgressReader(opened, _size(os.fstat(opened.fileno())), progress)
            yield from _unpacked(display_name(file), io.BufferedReader(raw, BLOCK), file)
            raw.finish()
    except UserError:
        raise
    except Exception as error:
        raise _cannot_read(file, error) from error


def _unpacked(name: str, stream: IO[bytes], file: Path, inside: bool = False) -> Iterator[Source]:
    ending = PurePath(name.lower()).suffix
    if ending in _COMPRESSIONS:
        module, inner = _COMPRESSIONS[ending]
        # Imported late, because not every Python is built with all of them.
        with importlib.import_module(module).open(stream) as unpacked:
            yield from _unpacked(name[: -len(ending)] + inner, unpacked, file, inside)
    elif ending == ".zip":
        with zipfile.ZipFile(stream) as archive:
            # By entry, as two members may have the same name.
            for member in sorted(archive.infolist(), key=lambda member: member.filename):
                inner = member.filename
                # Skip folders, and the metadata that Finder adds to each archive.
                if not inner.endswith("/") and not inner.startswith("__MACOSX/"):
                    with archive.open(member) as unpacked:
                        yield from _unpacked(_inside(name, inner), unpacked, file, inside=True)
    elif ending == ".tar":
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for entry in tar:  # in archive order, because there may be millions
                if entry.isfile() and (unpacked := tar.extractfile(entry)):
                    with unpacked:
                        inner = _inside(name, entry.name)
                        yield from _unpacked(inner, unpacked, file, inside=True)
                tar.members.clear()  # type: ignore[attr-defined]  # to bound the memory
    else:
        yield Source(name, _blocks(stream, file), inside)


def _inside(archive: str, member: str) -> str:
    """Return the name of an archive member for messages: visible characters, not too long."""
    return f"{archive}/{visible(member)[-200:]}"


def _blocks(stream: IO[bytes], file: Path) -> Iterator[bytes]:
    while True:
        try:
            block = stream.read(BLOCK)
        except Exception as error:
            raise _cannot_read(file, error) from error
        if not block:
            return
        yield block


def _cannot_read(file: Path, error: Exception) -> UserError:
    """Return the error for what the system, gzip, lzma or zipfile raised."""
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"{display_name(file)} cannot be read: {error.strerror}.")
    reason = in_short(error) or type(error).__name__
    return UserError(
        f"{display_name(file)} cannot be unpacked ({reason}). Download it again, or unpack it "
        "yourself."
    )


class _ProgressReader(io.RawIOBase):
    """A raw file that reports progress, and fails if the file shrinks while it is read."""

    def __init__(self, raw: Any, size: int | None, progress: Callable[[int], object]):
        super().__init__()
        self._raw = raw
        self._size = size  # None if unknown
        self._reported = 0
        self._progress = progress

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._raw.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer)
        if self._size is None:
            self._progress(count)
        elif count:
            self._report(min(count, self._size - self._reported))
        elif self._raw.tell() < self._size:
            shorter = "it became shorter while being read; wait until no program writes to it"
            raise OSError(errno.EIO, shorter)
        return count

    def finish(self) -> None:
        """Report the rest of the file, which did not have to be read."""
        if self._size is not None:
            self._report(self._size - self._reported)

    def _report(self, count: int) -> None:
        if count:
            self._reported += count
            self._progress(count)
