"""Fetches one file over a connection that may break at any moment.

What has come lies in NAME.partial, beside which NAME.partial.json remembers where it came from and
which version it is of. The next try asks for the rest of that very version (RFC 9110, sections
13.1.5 and 14); if the server has another one by now, or cannot send a part, it sends the whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import requests
import urllib3

from gpt2 import files
from gpt2.errors import UserError, cannot_write

CHUNK = 1 << 16  # bytes taken from the network at a time
LARGEST_UNKNOWN = 64 << 20  # bytes; no file whose size is not known beforehand is larger
_TRY_AGAIN = {408, 425, 429}  # statuses below 500 that pass by themselves


class DownloadProgress:
    """What is told while files are fetched; this one keeps it to itself."""

    def planned(self, missing: int, present: int) -> None:
        """Called once, with the bytes to be fetched and those there already, before the first."""

    def file(self, path: Path) -> None:
        """A file is begun, or gone on with."""

    def advance(self, size: int) -> None:
        """So many bytes came; a negative number did not count, and have to come again."""

    def waiting(self, seconds: float, reason: str) -> None:
        """The connection failed, and is tried again after that time."""

    def checking(self, path: Path) -> None:
        """All bytes are there, and are held against their checksums."""


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How long to put up with a server."""

    tries: int = 5  # one after the other that bring no byte more
    first_wait: float = 1.0  # seconds before the second try; doubled for each one after it
    longest_wait: float = 30.0
    connect: float = 20.0  # seconds for a connection
    read: float = 60.0  # seconds between two pieces of an answer
    sleep: Callable[[float], object] = time.sleep


class Unavailable(Exception):
    """An address does not have the file, or not in working order; another one may."""


class _Broken(Exception):
    """A try that failed; the next one may not."""

    def __init__(self, reason: str, wait: float = 0):
        super().__init__(reason)
        self.wait = wait  # seconds that the server asks for


def partial_of(path: Path) -> Path:
    """Where a file lies until it is whole."""
    return path.with_name(path.name + files.PARTIAL)


def _note_of(path: Path) -> Path:
    partial = partial_of(path)
    return partial.with_name(partial.name + ".json")


def clear(path: Path) -> None:
    """Delete what a kill may have left beside a file that has come whole."""
    with contextlib.suppress(OSError):
        _note_of(path).unlink(missing_ok=True)


def received(path: Path) -> int:
    """How many bytes of a file have come so far."""
    try:
        return partial_of(path).stat().st_size
    except OSError:
        return 0


def fetch(
    urls: Sequence[str],
    path: Path,
    check: Callable[[Path], object],
    *,
    size: int | None = None,
    checked_by_sum: bool = False,
    progress: DownloadProgress | None = None,
    patience: RetryPolicy | None = None,
) -> None:
    """Fetch a file from the first of the addresses that has it whole.

    Args:
        check: raises a UserError for a file, given by its path, that is not what it should be.
        size: of the file in bytes, if known.
        checked_by_sum: whether `check` knows every byte, so that what came from one address may
            be gone on with from another.

    Raises:
        UserError: no address has it, or it cannot be written. What has come is kept.
    """
    progress, patience = progress or DownloadProgress(), patience or RetryPolicy()
    reasons = []
    with requests.Session() as session:
        for url in urls:
            transfer = _Transfer(session, url, path, size, checked_by_sum, progress, patience)
            try:
                progress.file(path)
                transfer.run(check)
                return
            except Unavailable as error:
                reasons.append(str(error))
            except OSError as error:
                raise cannot_write(path, error) from error
    raise UserError(
        f"{path} could not be fetched: {'; '.join(reasons)}; check the address and the connection, "
        "then run the same command again: it goes on where it stopped."
    )


def size_at(urls: Sequence[str], patience: RetryPolicy | None = None) -> int | None:
    """Ask the servers how large a file is; None if none of them tells."""
    patience = patience or RetryPolicy()
    for url in urls:
        with contextlib.suppress(requests.RequestException, ValueError):
            answer = requests.head(
                url,
                allow_redirects=True,
                timeout=(patience.connect, patience.read),
                headers={"Accept-Encoding": "identity"},
            )
            if answer.status_code == 200 and "Content-Encoding" not in answer.headers:
                return _length(answer)
    return None


def check_space(folder: Path, missing: int) -> None:
    """Find out whether a folder's disk has room for so many bytes.

    Raises:
        UserError: it has not.
    """
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(place).free
    if missing > free:
        raise UserError(
            f"{folder} needs {in_bytes(missing)} more, but its disk has only {in_bytes(free)} "
            "free; make room, or choose a folder on another disk."
        )


def in_bytes(size: int) -> str:
    """A size in words: 497759232 -> "497.8 MB"."""
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB", "EB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{size:,} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


class _Transfer:
    """One file from one address."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        path: Path,
        size: int | None,
        checked_by_sum: bool,
        progress: DownloadProgress,
        patience: RetryPolicy,
    ):
        self.session, self.url, self.path, self.size = session, url, path, size
        self.checked_by_sum, self.progress, self.patience = checked_by_sum, progress, patience
        self.partial = partial_of(path)
        self.note = _note_of(path)
        self.glued = False  # whether the file is made of the answers to several tries

    def run(self, check: Callable[[Path], object]) -> None:
        """Fetch, check and name the file."""
        for last in (False, True):
            self.glued = False
            self._fetch_patiently()
            self.progress.checking(self.path)
            try:
                check(self.partial)
                break
            except UserError as error:
                self._discard()
                # Parts that did not belong together are fetched once more, in one piece.
                if last or not self.glued:
                    what = str(error).replace(str(self.partial), "the file").rstrip(".")
                    raise Unavailable(f"{self.url} sent what cannot be used ({what})") from error
        files.move_into_place(self.partial, self.path)
        self.note.unlink(missing_ok=True)

    def _fetch_patiently(self) -> None:
        furthest, tries = received(self.path), 0
        while True:
            try:
                return self._try_once()
            except _Broken as error:
                now = received(self.path)
                tries = 1 if now > furthest else tries + 1
                furthest = max(now, furthest)
                if tries >= self.patience.tries:
                    raise Unavailable(str(error)) from error
                wait = self.patience.first_wait * 2 ** (tries - 1)
                wait = min(max(wait, error.wait), self.patience.longest_wait)
                self.progress.waiting(wait, str(error))
                self.patience.sleep(wait)

    def _try_once(self) -> None:
        headers = {"Accept-Encoding": "identity"}  # parts of a compressed file fit nothing
        offset = received(self.path)
        url, version, known = read_note(self.note)
        if url != self.url:
            version, known = None, self.size
        # Without a version only a checksum can tell whether the parts belong together.
        resume = offset > 0 and bool(version or (self.checked_by_sum and self.size))
        if resume and offset == known:
            self.glued = True
            return  # all had come; only the check and the name are missing
        if resume:
            headers["Range"] = f"bytes={offset}-"
            if version:
                headers["If-Range"] = version
        with self._answer(headers) as answer:
            status = answer.status_code
            if resume and status in (206, 416):
                start, total = _content_range(answer)
                same_version = not version or _version(answer) in (version, None)
                if start != offset or (known and total != known) or not same_version:
                    self._discard()
                    raise _Broken(f"{self.url} has changed, or does not send what it is asked for")
                self.glued = True
            elif status == 200:
                total = self._size_sent(answer)
                self._discard()
                offset = 0
            elif status in _TRY_AGAIN or status >= 500:
                raise _Broken(self._status(answer), _retry_after(answer))
            else:
                raise Unavailable(self._status(answer))
            self._receive(answer, offset, total)

    @contextlib.contextmanager
    def _answer(self, headers: dict[str, str]) -> Iterator[requests.Response]:
        timeout = (self.patience.connect, self.patience.read)
        try:
            answer = self.session.get(self.url, headers=headers, stream=True, timeout=timeout)
        except (requests.exceptions.SSLError, requests.TooManyRedirects) as error:
            raise Unavailable(f"{self.url} could not be reached ({_cause(error)})") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Broken(f"{self.url} could not be reached ({_cause(error)})") from error
        except (requests.RequestException, ValueError) as error:
            raise Unavailable(f"{self.url} is no address to fetch from ({error})") from error
        with answer:
            yield answer

    def _size_sent(self, answer: requests.Response) -> int | None:
        """The size of the file that is about to come; None if it is not told."""
        encoding = answer.headers.get("Content-Encoding", "").lower()
        if encoding not in ("", "gzip"):
            raise Unavailable(f"{self.url} sends the file encoded as {encoding}")
        size = None if encoding else _length(answer)
        if self.size and size not in (self.size, None):
            raise Unavailable(
                f"{self.url} has {size:,} bytes where the file should have {self.size:,}"
            )
        return size

    def _receive(self, answer: requests.Response, offset: int, total: int | None) -> None:
        packed = "Content-Encoding" in answer.headers
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed else None
        most = self.size or max(total or 0, LARGEST_UNKNOWN)
        check_space(self.path.parent, (total or 0) - offset)
        version = None if packed else _version(answer)
        files.write_text(
            self.note, json.dumps({"url": self.url, "version": version, "size": total})
        )
        pieces = answer.raw.stream(CHUNK, decode_content=False)
        with open(self.partial, "ab") as file:
            while True:
                try:
                    piece = next(pieces, b"")
                    arrived = unpack.decompress(piece) if unpack else piece
                except (urllib3.exceptions.HTTPError, OSError, zlib.error) as error:
                    raise self._broke_off(offset, total) from error
                if not piece:
                    break
                offset += len(arrived)
                if offset > most:
                    break
                file.write(arrived)
                file.flush()  # so that a kill at any moment loses next to nothing
                self.progress.advance(len(arrived))
        if offset > most:
            self._discard()
            raise Unavailable(f"{self.url} sends more than {most:,} bytes")
        if (total and offset < total) or (unpack and not unpack.eof):
            raise self._broke_off(offset, total)
        if self.size and offset < self.size:
            raise self._broke_off(offset, self.size)

    def _broke_off(self, offset: int, total: int | None) -> _Broken:
        of_total = f" of {total:,}" if total else ""
        return _Broken(f"{self.url} broke off after {offset:,}{of_total} bytes")

    def _status(self, answer: requests.Response) -> str:
        reason = "".join(filter(str.isprintable, answer.reason or ""))[:60]
        return f"{self.url} was answered with status {answer.status_code} ({reason})"

    def _discard(self) -> None:
        """Forget what has come."""
        self.progress.advance(-received(self.path))
        self.note.unlink(missing_ok=True)
        self.partial.unlink(missing_ok=True)


def read_note(path: Path) -> tuple[str | None, str | None, int | None]:
    """Where a partial file came from, of which version, and its size; None for what is unknown."""
    try:
        note = files.read_json_object(path)
    except UserError:
        note = {}  # there is none, or a kill came in its way
    url, version, size = (note.get(name) for name in ("url", "version", "size"))
    return (
        url if isinstance(url, str) else None,
        version if isinstance(version, str) and re.fullmatch(r"[!-~][ -~]*", version) else None,
        size if type(size) is int and size >= 0 else None,
    )


def _version(answer: requests.Response) -> str | None:
    """What tells this version of a file from another, if the server vouches for every byte."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _length(answer: requests.Response) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _content_range(answer: requests.Response) -> tuple[int | None, int | None]:
    """Where the part begins that was sent, and the size of the whole; None where it is not told."""
    found = re.fullmatch(
        r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)", answer.headers.get("Content-Range", "")
    )
    if not found:
        return None, None
    start, total = found.groups()
    return (int(start) if start else None), (None if total == "*" else int(total))


def _retry_after(answer: requests.Response) -> float:
    seconds = answer.headers.get("Retry-After", "")
    return float(seconds) if re.fullmatch(r"[0-9]{1,6}", seconds) else 0.0


def _cause(error: BaseException) -> str:
    """What lies at the bottom of the exceptions that requests piles up."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    while inner := error.__cause__ or error.__context__:
        error = inner
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
