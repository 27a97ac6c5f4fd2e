"""The cache of converted models, outside the model folders.

LiteRT runs a program without checking it, and a changed byte can crash the process. So only those
that this user converted are loaded: they lie in a folder that only the user can write to, never
beside a checkpoint, which may have been downloaded together with programs.

    CACHE/litert/                              mode 0700
        int8-v2-FINGERPRINT/manifest.json      size, mtime and sha256 of each file
                            first.tflite ...
        lock                                   held by a process that converts or removes
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2 import files, locks
from gpt2.errors import UserError
from gpt2.version import __version__

# Writes the files of an entry, the first argument, to an empty folder, the second one.
Convert = Callable[[Path, Path], object]

MANIFEST = "manifest.json"
LOCK = "lock"
SMALL = 1 << 20  # bytes up to which a file is always hashed
MOST_ENTRIES = 10
MOST_BYTES = 20 * 10**9
_POLL = 0.1  # seconds


def cache_folder() -> Path | None:
    """Return the folder for caches of this toolkit, which may not exist; None without a home.

    It is the environment variable GPT2_CACHE_DIR, or `retrain-gpt2` in the user's cache directory.
    """
    if chosen := os.environ.get("GPT2_CACHE_DIR"):
        return Path(chosen).absolute()
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        parent = home / "Library" / "Caches"
    elif os.name == "nt":
        parent = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        parent = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not parent.is_absolute():  # ignored, as the XDG specification demands
            parent = home / ".cache"
    return parent / "retrain-gpt2"


def find_or_convert(key: str, names: set[str], convert: Convert) -> Path:
    """Return the folder of a converted model, after converting it if necessary.

    A process that converts the same model is waited for. Where the cache cannot be written, the
    folder is a temporary one that is deleted when this process ends.

    Args:
        key: name of the entry; depends on everything that the programs depend on.
        names: the files that the entry must have.
        convert: see `Convert`.

    Raises:
        UserError: the files cannot be written, or the model cannot be converted.
    """
    try:
        return _find_or_convert(key, names, convert)
    except _NotConverted as failed:
        raise failed.error from failed.error.__cause__


class _NotConverted(Exception):
    """The conversion itself failed, not writing its files, so that no other folder would help."""

    def __init__(self, error: UserError):
        super().__init__(error)
        self.error = error


def _find_or_convert(key: str, names: set[str], convert: Convert) -> Path:
    if cache := _private_folder(cache_folder()):
        entry = cache / key
        if is_intact(entry, names):
            return entry
        # The cache may be on a full disk; the temporary folder may still have space.
        with contextlib.suppress(UserError), _lock(cache):
            if not is_intact(entry, names):
                _fill(entry, convert)
                remove_old(cache, entry)
            return entry
    entry = _temporary_folder() / key
    if not is_intact(entry, names):
        _fill(entry, convert)
    return entry


def is_intact(entry: Path, names: set[str]) -> bool:
    """Return whether an entry has these files, unchanged since their conversion.

    Hashing the 500 MB of 124M takes up to a second at every start. The folder belongs to the user,
    so there is no attacker to expect, only damage, and that changes the size or the modification
    time. Therefore a large file is hashed only if one of these differs, or if another version of
    the toolkit checked it last; small files are always hashed.
    """
    try:
        content = (entry / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(content)
        known = manifest["files"]
        if not names <= known.keys():
            return False
        same_version = manifest["checked_by"] == __version__
        for name in names:
            file, expected = entry / name, known[name]
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != expected["size"]:
                return False
            same_time = status.st_mtime_ns == expected["mtime_ns"]
            if same_version and same_time and status.st_size > SMALL:
                continue
            if _sha256(file) != expected["sha256"]:
                return False
            expected["mtime_ns"] = status.st_mtime_ns
        manifest["checked_by"] = __version__
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    checked = json.dumps(manifest, indent=1)
    with contextlib.suppress(OSError, UserError):
        if checked != content:
            files.write_text(entry / MANIFEST, checked)
        os.utime(entry / MANIFEST)  # the time of the last use; see `remove_old`
    return True


def remove_old(cache: Path, kept: Path) -> None:
    """Remove the least recently used entries beyond `MOST_ENTRIES` or `MOST_BYTES`, except one."""
    entries = [path for path in cache.iterdir() if path != kept and (path / MANIFEST).is_file()]
    room = MOST_BYTES - _size(kept)
    for place, entry in enumerate(sorted(entries, key=_last_use, reverse=True), start=1):
        room -= _size(entry)
        if place >= MOST_ENTRIES or room < 0:
            (entry / MANIFEST).unlink(missing_ok=True)  # so that half an entry is never used
            shutil.rmtree(entry, ignore_errors=True)


def _private_folder(parent: Path | None) -> Path | None:
    """Return the cache in a folder, writable by this user alone; None if that is not possible."""
    if parent is None:
        return None
    cache = parent / "litert"
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        cache.mkdir(mode=0o700, exist_ok=True)
        status = cache.stat()
        if os.name != "nt":
            if status.st_uid != os.getuid():  # under sudo, for example
                return None
            if stat.S_IMODE(status.st_mode) != 0o700:
                cache.chmod(0o700)
        return cache if os.access(cache, os.W_OK) else None
    except OSError:
        return None


@contextlib.contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """Hold the lock of the cache, waiting for other processes.

    Raises:
        UserError: the lock file cannot be opened.
    """
    try:
        descriptor = os.open(cache / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(f"{cache / LOCK} cannot be opened: {error.strerror}.") from error
    try:
        while not locks.try_lock(descriptor):
            time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


def _fill(entry: Path, convert: Convert) -> None:
    """Convert into an entry, which replaces a damaged one and appears when it is complete."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            entry.unlink()
    with files.atomic_folder(entry) as partial:
        try:
            convert(entry, partial)
        except UserError as error:
            raise _NotConverted(error) from error
        known = {path.name: _described(path) for path in partial.iterdir()}
        manifest = {"checked_by": __version__, "files": known}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _described(path: Path) -> dict[str, object]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _last_use(entry: Path) -> float:
    try:
        return (entry / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def _size(entry: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in entry.iterdir())
    return 0


@functools.cache
def _temporary_folder() -> Path:
    """Return a folder for this process only, deleted when it ends."""
    return files.temporary_folder("retrain-gpt2-")
