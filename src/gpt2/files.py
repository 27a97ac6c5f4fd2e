"""Atomic writes of files and folders (write, flush, rename), and readers of small files."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import errno
import functools
import itertools
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from gpt2 import locks
from gpt2.errors import UserError, cannot_read, cannot_write, in_short

# Suffix of a file that is being written; leftovers of a kill are recognized by it.
PARTIAL = ".partial"
# Seconds after which a temporary file counts as a leftover if there are no file locks.
ABANDONED = 3600
# Bytes; prompts and vocabularies are far smaller, and a wrong path may lead to a disk image.
LARGEST_TEXT = 256 << 20
_TEMPORARY = re.compile(r".+\.[0-9a-f]{12}" + re.escape(PARTIAL))
# Temporary files and folders that are being written, each with its process.
_unfinished: set[tuple[int, Path]] = set()

# UTF-32 before UTF-16, whose mark its own begins with.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF32_LE, "UTF-32-LE"),
    (codecs.BOM_UTF32_BE, "UTF-32-BE"),
    (codecs.BOM_UTF16_LE, "UTF-16-LE"),
    (codecs.BOM_UTF16_BE, "UTF-16-BE"),
)
# First bytes of files that people take for text.
_BINARY = (
    (b"%PDF-", "a PDF file"),
    (b"PK\x03\x04", "a zip file, as .docx, .xlsx, .odt and .epub files are"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office file (.doc, .xls)"),
    (b"{\\rtf", "an RTF file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)


def partial_path(path: Path) -> Path:
    """Return a unique temporary name beside `path`."""
    return path.parent / f"{path.name}.{os.urandom(6).hex()}{PARTIAL}"


def sync(path: Path) -> None:
    """Flush a file, or a folder where the system can, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot flush a folder; its renames are journaled
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_into_place(partial: Path, final: Path) -> None:
    """Flush a complete file and rename it to its final name, an atomic replace."""
    sync(partial)
    os.replace(partial, final)
    sync(final.parent)


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb", **open_options: Any) -> Iterator[IO]:
    """Open a file for writing that replaces `path` atomically at the end of the block.

    An error in the block or a kill leaves the old file. Temporary files of a killed process are
    deleted by the next one that writes into the folder.

    Raises:
        UserError: the file cannot be written (no such folder, no permission, disk full).
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "there is a folder or a device of that name")
        _clear(path.parent.absolute())
        with contextlib.ExitStack() as stack:
            partial, file = _open_partial(path, stack, mode, open_options)
            with file:
                yield file
            move_into_place(partial, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def remove_unfinished() -> None:
    """Delete the temporary files and folders of this process, before it ends at once.

    A model folder may take gigabytes, and is else deleted only by the next writer beside it.
    """
    for process, partial in list(_unfinished):
        if process == os.getpid():  # a fork has those of its parent too
            with contextlib.suppress(OSError):
                _remove(partial)


def temporary_folder(prefix: str) -> Path:
    """Return a new folder, deleted when this process ends, also at once."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    _unfinished.add((os.getpid(), folder))
    atexit.register(_remove, folder)
    return folder


def _new_partial(path: Path, stack: contextlib.ExitStack) -> Path:
    """Return a unique temporary name, deleted at the end of the stack or of the process.

    The deletion is registered first, as a signal may end the block as soon as the file exists.
    """
    partial = partial_path(path)
    entry = (os.getpid(), partial)
    _unfinished.add(entry)
    stack.callback(_unfinished.discard, entry)
    stack.callback(_remove, partial)
    return partial


def _remove(path: Path) -> None:
    """Delete a temporary file or folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _open_partial(
    path: Path, stack: contextlib.ExitStack, mode: str, options: dict[str, Any]
) -> tuple[Path, IO]:
    """Return a new temporary file, which the end of the stack unlocks and deletes."""
    while True:
        partial = _new_partial(path, stack)
        file = open(partial, mode, **options)  # noqa: SIM115
        if os.name == "nt":  # an open file cannot be renamed there, so it is not locked
            return partial, file
        descriptor = os.dup(file.fileno())
        if _is_ours(descriptor, partial):
            stack.callback(os.close, descriptor)
            return partial, file
        os.close(descriptor)
        file.close()


def _is_ours(descriptor: int, partial: Path) -> bool:
    """Lock a new file or folder, unless another process has deleted it as a leftover."""
    return locks.try_lock(descriptor) and locks.is_current(descriptor, partial)


@functools.lru_cache(maxsize=1000)  # once per process, as listing a large folder is slow
def _clear(folder: Path) -> None:
    """Delete temporary files and folders that no living process holds."""
    with contextlib.suppress(OSError):
        for partial in [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]:
            _remove_if_abandoned(partial)


def _remove_if_abandoned(partial: Path) -> None:
    """Delete a temporary file or folder if its writer is gone."""
    with contextlib.ExitStack() as stack:
        free = None
        with contextlib.suppress(OSError):
            if os.name != "nt":
                descriptor = os.open(partial, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                free = locks.lock_state(descriptor)
            if free is None:
                free = time.time() - partial.stat().st_mtime > ABANDONED
            if free:
                _remove(partial)


@contextlib.contextmanager
def atomic_folder(path: Path, replaceable: Collection[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `path` at the end of the block.

    An error in the block or a kill leaves no folder; leftovers are deleted as by `atomic_write`.

    Args:
        replaceable: names of files and folders that an existing folder may consist of; it is then
            replaced. A kill between the two renames leaves it beside `path`, its name ending in
            `.old`.

    Raises:
        UserError: it cannot be written, the name is taken, or an existing folder holds anything
            that is not replaceable.
    """
    check_new_folder(path, replaceable)
    _clear(path.parent.absolute())
    try:
        with contextlib.ExitStack() as stack:
            partial = _make_partial(path, stack)
            yield partial
            for file in partial.iterdir():
                sync(file)
            sync(partial)
            check_new_folder(path, replaceable)  # it may have come into being meanwhile
            with _set_aside(path) if path.exists() else contextlib.nullcontext():
                partial.rename(path)
            sync(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def check_new_folder(path: Path, replaceable: Collection[str] = ()) -> None:
    """Check, before the work starts, that `atomic_folder` may write this folder; see there."""
    if not os.path.lexists(path):
        return
    if not path.is_dir() or path.is_symlink():
        raise UserError(
            f"{path} cannot be written: it exists and is not a folder. Use another name."
        )
    others = sorted({entry.name for entry in path.iterdir()} - set(replaceable))
    if replaceable and others:
        raise UserError(
            f"{path} cannot be written: {in_short(', '.join(others))} in it would be lost. "
            "Use another name, or move that."
        )
    if not replaceable and others:
        raise UserError(
            f"{path} cannot be written: it already exists. Use another name, or allow to overwrite "
            "it."
        )


@contextlib.contextmanager
def _set_aside(path: Path) -> Iterator[None]:
    """Rename a folder for the block, then delete it; an error in the block brings it back."""
    old = path.with_name(f"{path.name}.{os.urandom(6).hex()}.old")
    path.rename(old)
    try:
        yield
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _make_partial(path: Path, stack: contextlib.ExitStack) -> Path:
    """Return a new temporary folder, which the end of the stack unlocks and deletes."""
    while True:
        partial = _new_partial(path, stack)
        partial.mkdir(parents=True)
        if os.name == "nt":  # folders cannot be locked there
            return partial
        descriptor = os.open(partial, os.O_RDONLY)
        if _is_ours(descriptor, partial):
            stack.callback(os.close, descriptor)
            return partial
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with its line ends unchanged; see `atomic_write`."""
    with atomic_write(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def unused(pattern: Path) -> Path:
    """Return the first path that does not exist, with 1, 2, ... for the {} in its name."""
    paths = (pattern.with_name(pattern.name.format(n)) for n in itertools.count(1))
    return next(path for path in paths if not os.path.lexists(path))


def make_folder(path: Path) -> None:
    """Make a folder and its parents; an existing one is no error."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files in `folder`, which no other process may be writing to."""
    for path in folder.glob(f"*{PARTIAL}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def read_small_text(path: Path) -> str:
    """Return the text of a small file; see `decode_small_text`.

    Raises:
        UserError: the file is missing, unreadable, larger than `LARGEST_TEXT`, or not text.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_TEXT + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(content) > LARGEST_TEXT:
        raise UserError(
            f"{path}: larger than {LARGEST_TEXT >> 20} MiB, the limit for a file of this kind. "
            "Check that it is the right file."
        )
    return decode_small_text(content, str(path))


def decode_small_text(content: bytes, name: str) -> str:
    r"""Return bytes from a user's file or pipe as text.

    UTF-8 is expected; UTF-8, UTF-16 and UTF-32 with a byte order mark are recognized. Windows and
    old Mac line ends become newlines.

    Args:
        content: the whole content.
        name: of the file or stream, for messages.

    Raises:
        UserError: it is not UTF-8, or not text but a known binary format.

    Example:
        >>> decode_small_text(b"\xef\xbb\xbfone\r\ntwo\r", "notes.txt")
        'one\ntwo\n'
    """
    mark, encoding = byte_order_mark(content)
    if not mark:
        _check_is_text(content, name)
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        kind = encoding.removesuffix("-LE").removesuffix("-BE")
        raise UserError(
            f"{name} is not {kind} text (byte {error.start + len(mark)}). Save it as UTF-8."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def byte_order_mark(content: bytes) -> tuple[bytes, str]:
    """Return the byte order mark that bytes begin with, which may be empty, and their encoding."""
    found = (pair for pair in _BYTE_ORDER_MARKS if content.startswith(pair[0]))
    return next(found, (b"", "UTF-8"))


def _check_is_text(content: bytes, name: str) -> None:
    """Raise `UserError` for bytes without a byte order mark that are not UTF-8 text."""
    for magic, kind in _BINARY:
        if content.startswith(magic):
            raise UserError(f"{name}: {kind}, not plain text. Save its text as UTF-8 first.")
    if b"\0" not in content:
        return
    sample = content[:4096]
    if max(sample[0::2].count(0), sample[1::2].count(0)) > len(sample) // 5:
        raise UserError(
            f"{name}: UTF-16 text without a byte order mark, or binary data. Save it as UTF-8 "
            "(in PowerShell: Set-Content -Encoding utf8)."
        )
    raise UserError(f"{name}: binary data, not plain text (NUL byte at {content.index(0)}).")


def read_text(path: Path) -> str:
    """Return the text of a small file; another name of `read_small_text`."""
    return read_small_text(path)


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UserError: the file is missing, unreadable, or not a JSON object.
    """
    try:
        value = json.loads(read_small_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON ({in_short(error)}). Download or write it again."
        ) from error
    if not isinstance(value, dict):
        raise UserError(
            f"{path} must hold a JSON object, not {_kind(value)}. Download or write it again."
        )
    return value


def _kind(value: Any) -> str:
    """Return what JSON calls a value that is not an object."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "a number"


def check_writable(name: str | os.PathLike[str]) -> Path:
    """Return a path after checking, before the work starts, that a file can be written there.

    Raises:
        UserError: it is no file name, its folder does not exist or is read-only, or something else
            has that name.
    """
    path = _named(name)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {folder}. Create it first.")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} cannot be written: it is a folder or a device. Use another name.")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: no permission to write to {folder}.")
    return path


def check_folder_writable(name: str | os.PathLike[str]) -> Path:
    """Return a path after checking that a folder of that name, new or not, can be written to.

    Raises:
        UserError: it is no name, or the nearest existing path above it is not a folder or is
            read-only.
    """
    path = _named(name)
    above = path.absolute()
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        raise UserError(f"{path} cannot be written: {above} is not a folder. Use another name.")
    if not os.access(above, os.W_OK):
        raise UserError(f"{path} cannot be written: no permission to write to {above}.")
    return path


def _named(name: str | os.PathLike[str]) -> Path:
    """Return the path of an output, refusing what is no name or means standard output elsewhere."""
    text = os.fspath(name)
    if not text:
        raise UserError(
            "An output without a name cannot be written: give the name of a file, or of a folder."
        )
    if text == "-":
        raise UserError(
            "-: the output cannot be standard output. Name a file (./- for one of that name)."
        )
    path = Path(name)
    try:
        os.lstat(partial_path(path))  # the longest name that is written
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:  # too long, a NUL, or no character of file names
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{in_short(path)} cannot be written: {reason}. Use another name."
        ) from error
    return path


def to_json(value: object, indent: int | None = None) -> str:
    """Return a value as JSON, with null for NaN and infinity, which JSON does not have.

    Example:
        >>> to_json({"loss": math.inf, "step": 1})
        '{"loss": null, "step": 1}'
    """
    text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    # A path may hold bytes that are not UTF-8; as escapes they are valid JSON.
    return text.encode("utf-8", "backslashreplace").decode()


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON with one item per line; see `to_json` and `atomic_write`."""
    write_text(path, to_json(value, indent=1) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
