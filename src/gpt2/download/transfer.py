"""Download of one file over an unreliable connection, with retries and resume.

Received data lie in NAME.partial; NAME.partial.json stores their URL and version. The next try asks
for the rest of the same version (RFC 9110, sections 13.1.5 and 14). If the server has another
version by now or does not support ranges, it sends the whole file.
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
from gpt2.errors import UserError, cannot_write, in_short

CHUNK = 1 << 16  # bytes taken from the network at a time
LARGEST_UNKNOWN = 64 << 20  # bytes; limit for a file of unknown size
_TRY_AGAIN = {408, 425, 429}  # temporary errors below status 500


class DownloadProgress:
    """Receiver of progress events; the base class ignores them."""

    def planned(self, missing: int, present: int) -> None:
        """Handle the plan: bytes to download and bytes already received. Called once, first."""

    def file(self, path: Path) -> None:
        """Handle the start or resume of a file."""

    def advance(self, size: int) -> None:
        """Handle received bytes; a negative number of them was discarded."""

    def waiting(self, seconds: float, reason: str) -> None:
        """Handle a failed try; the next one starts after `seconds`."""

    def checking(self, path: Path) -> None:
        """Handle the start of a file's verification."""


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Retries, waits and timeouts (seconds)."""

    tries: int = 5  # consecutive ones without a new byte
    first_wait: float = 1.0  # before the second try; doubled for each later one
    longest_wait: float = 30.0
    connect: float = 20.0  # timeout of a connection
    read: float = 60.0  # timeout between two pieces of a response
    sleep: Callable[[float], object] = time.sleep


class Unavailable(Exception):
    """A URL does not have the file, or only a broken one; another URL may have it."""


class _Broken(Exception):
    """A failed try that is worth repeating."""

    def __init__(self, reason: str, wait: float = 0):
        super().__init__(reason)
        self.wait = wait  # seconds requested by the server


def partial_of(path: Path) -> Path:
    """Return the path of a file while it is incomplete."""
    return path.with_name(path.name + files.PARTIAL)


def _note_of(path: Path) -> Path:
    partial = partial_of(path)
    return partial.with_name(partial.name + ".json")


def clear(path: Path) -> None:
    """Delete the note that a kill may have left beside a complete file."""
    with contextlib.suppress(OSError):
        _note_of(path).unlink(missing_ok=True)


def received(path: Path) -> int:
    """Return the number of bytes of a file received so far."""
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
    """Download a file from the first URL that has it complete.

    Args:
        check: raises UserError if the file at a path is not the expected one.
        size: size of the file (bytes), if known.
        checked_by_sum: whether `check` verifies every byte, so that a partial file from one URL
            may be resumed from another.

    Raises:
        UserError: no URL has it, or it cannot be written. Received data are kept.
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
        f"{path} could not be downloaded: {'; '.join(reasons)}. Check the URL and the connection, "
        "then run the same command again to resume."
    )


def size_at(urls: Sequence[str], patience: RetryPolicy | None = None) -> int | None:
    """Return the size of a file according to the servers, or None if unknown."""
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
    """Check that a folder's disk has room for `missing` bytes.

    Raises:
        UserError: it has not enough.
    """
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(place).free
    if missing > free:
        raise UserError(
            f"{folder}: {in_bytes(missing)} needed, but only {in_bytes(free)} free on its disk. "
            "Free some space, or choose a folder on another disk."
        )


def in_bytes(size: int) -> str:
    """Return a size with its unit.

    Example:
        >>> in_bytes(497759232)
        '497.8 MB'
    """
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB", "EB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{size:,} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


class _Transfer:
    """The download of one file from one URL."""

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
        self.glued = False  # whether the file consists of several responses

    def run(self, check: Callable[[Path], object]) -> None:
        """Download and verify the file, and give it its name."""
        for last in (False, True):
            self.glued = False
            self._fetch_patiently()
            self.progress.checking(self.path)
            try:
                check(self.partial)
                break
            except UserError as error:
                self._discard()
                # Parts of different versions: download once more, in one piece.
                if last or not self.glued:
                    what = str(error).replace(str(self.partial), "the file").rstrip(".")
                    raise Unavailable(f"{self.url} sent an unusable file ({what})") from error
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
        headers = {"Accept-Encoding": "identity"}  # ranges of a compressed file cannot be joined
        offset = received(self.path)
        url, version, known = read_note(self.note)
        if url != self.url:
            version, known = None, self.size
        # Without a version, only a checksum can prove that the parts belong together.
        resume = offset > 0 and bool(version or (self.checked_by_sum and self.size))
        if resume and offset == known:
            self.glued = True
            return  # all bytes are there; verification and renaming remain
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
                    raise _Broken(f"{self.url} has changed, or ignores the requested range")
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
            raise Unavailable(f"{self.url} is not a valid URL ({in_short(error)})") from error
        with answer:
            yield answer

    def _size_sent(self, answer: requests.Response) -> int | None:
        """Return the size of the file in a response, or None if unknown."""
        encoding = answer.headers.get("Content-Encoding", "").lower()
        if encoding not in ("", "gzip"):
            raise Unavailable(f"{self.url} uses the unsupported encoding {in_short(encoding, 40)}")
        size = None if encoding else _length(answer)
        if self.size and size not in (self.size, None):
            raise Unavailable(f"{self.url} has {size:,} bytes; expected {self.size:,}")
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
                file.flush()  # so that a kill loses next to nothing
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
        return _Broken(f"{self.url}: connection lost after {offset:,}{of_total} bytes")

    def _status(self, answer: requests.Response) -> str:
        reason = "".join(filter(str.isprintable, answer.reason or ""))[:60]
        return f"{self.url}: HTTP status {answer.status_code} ({reason})"

    def _discard(self) -> None:
        """Delete the received data."""
        self.progress.advance(-received(self.path))
        self.note.unlink(missing_ok=True)
        self.partial.unlink(missing_ok=True)


def read_note(path: Path) -> tuple[str | None, str | None, int | None]:
    """Return URL, version and size of a partial file, None for each that is unknown."""
    try:
        note = files.read_json_object(path)
    except UserError:
        note = {}  # missing, or torn by a kill
    url, version, size = (note.get(name) for name in ("url", "version", "size"))
    return (
        url if isinstance(url, str) else None,
        version if isinstance(version, str) and re.fullmatch(r"[!-~][ -~]*", version) else None,
        size if type(size) is int and size >= 0 else None,
    )


def _version(answer: requests.Response) -> str | None:
    """Return a strong validator of the file's version, or None (RFC 9110, section 8.8)."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _length(answer: requests.Response) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _content_range(answer: requests.Response) -> tuple[int | None, int | None]:
    """Return the start of the part sent and the size of the file, None for each unknown."""
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
    """Return the innermost of the nested exceptions of requests as text."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    while inner := error.__cause__ or error.__context__:
        error = inner
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
