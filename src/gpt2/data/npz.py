"""Read and write `.npz` datasets in the format of 2019: one integer array of tokens per chunk."""

from __future__ import annotations

import io
import itertools
import math
import warnings
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from gpt2 import files, processes
from gpt2.errors import UserError, cannot_read, in_short
from gpt2.workspace import command_line

_PIECE = 16 << 20  # bytes decompressed at a time
_BLOCK = 2**17  # tokens compressed at a time
_LEVEL = 5  # of the compression of blocks: half the time of zlib's default, 6, and 5 % larger
_AHEAD = 2 * processes.MOST_BY_DEFAULT  # blocks that are compressed or wait for it


def compact_type(n_vocab: int) -> np.dtype:
    """Return the integer type that holds the ids of a vocabulary in memory: uint16 or int32."""
    return np.dtype(np.uint16 if n_vocab <= 2**16 else np.int32)


def write_parts(
    path: Path,
    parts: Iterable[tuple[np.ndarray, bool]],
    comment: Callable[[], bytes] = lambda: b"",
) -> int:
    """Write chunks of tokens and return the number of tokens.

    The file has the arrays of 64-bit integers of `numpy.savez_compressed`, as in 2019. A chunk of
    more than `_BLOCK` tokens is compressed in blocks, while the next tokens are made, and takes 5 %
    more space; shorter ones have the bytes that NumPy writes.

    Args:
        path: the file; replaced atomically.
        parts: tokens of a chunk, integers of shape [tokens], and whether they are its last.
        comment: called at the end, for the archive's comment, which NumPy ignores.

    Raises:
        UserError: the file cannot be written.
    """
    tokens = 0
    with (
        files.atomic_write(path) as file,
        zipfile.ZipFile(file, "w") as archive,
        ThreadPoolExecutor(processes.check_count(None)) as pool,
    ):
        blocks = _compressed(_blocks(parts), pool)
        for number, first in enumerate(blocks):
            name = f"arr_{number}.npy"
            tokens += _write_array(file, archive, name, itertools.chain([first], blocks))
        archive.comment = comment()
    return tokens


class _Block(NamedTuple):
    """Consecutive tokens of a chunk: `_BLOCK` of them, or fewer at its end."""

    tokens: np.ndarray
    first: bool  # whether the chunk begins with them
    last: bool  # whether it ends with them

    def compressed(self) -> _Compressed:
        """Return the tokens as 64-bit integers, together with the header if they are all."""
        data = self.tokens.astype("<i8").tobytes()
        if self.first and self.last:  # all of a chunk, as NumPy compresses it
            content = _deflated(_header(len(self.tokens)) + data, True)
        else:
            content = _deflated(data, self.last, _LEVEL)
        return _Compressed(content, len(self.tokens), zlib.crc32(data), self.last)


class _Compressed(NamedTuple):
    """A compressed block; those of a chunk, one after the other, are one stream."""

    content: bytes
    length: int  # tokens
    crc: int  # CRC-32 of the tokens as 64-bit integers
    last: bool


def _blocks(parts: Iterable[tuple[np.ndarray, bool]]) -> Iterator[_Block]:
    """Yield the tokens of each chunk in blocks that do not depend on where its parts end."""
    held: list[np.ndarray] = []
    first = True
    for part, ends in parts:
        tokens = np.concatenate([*held, part])
        while len(tokens) > _BLOCK:
            yield _Block(tokens[:_BLOCK], first, False)
            tokens, first = tokens[_BLOCK:], False
        if ends:
            yield _Block(tokens, first, True)
        held, first = [] if ends else [tokens], first or ends


def _compressed(blocks: Iterable[_Block], pool: ThreadPoolExecutor) -> Iterator[_Compressed]:
    """Yield the blocks compressed in threads, a bounded number of them ahead."""
    waiting: deque[Future[_Compressed]] = deque()
    for block in blocks:
        waiting.append(pool.submit(block.compressed))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_array(
    file: IO[bytes], archive: zipfile.ZipFile, name: str, blocks: Iterable[_Compressed]
) -> int:
    """Write the blocks of an array, up to its last, and return their number of tokens.

    The header of an array has its length, which is known after the last block. The header of more
    than one block is therefore not compressed, and overwritten at the end.
    """
    info = zipfile.ZipInfo(name)
    written: list[_Compressed] = []
    # Python's zipfile takes no compressed data. The entry is declared as not compressed, so that it
    # writes them unchanged, and gets what is true when it is complete.
    with archive.open(info, "w", force_zip64=True) as entry:
        for block in blocks:
            if not written and not block.last:
                entry.write(_stored(_header(0)))
            entry.write(block.content)
            written.append(block._replace(content=b""))
            if block.last:
                break
    length = sum(block.length for block in written)
    header = _header(length)
    info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(header) + 8 * length
    info.CRC = zlib.crc32(header)
    for block in written:
        info.CRC = _crc_of_both(info.CRC, block.crc, 8 * block.length)
    file.seek(info.header_offset)
    file.write(info.FileHeader(zip64=True) + (_stored(header) if len(written) > 1 else b""))
    return length


def _header(length: int) -> bytes:
    """Return the header of an array of 64-bit integers, which NumPy pads to 128 bytes."""
    header = io.BytesIO()
    fields = {"descr": "<i8", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def _deflated(data: bytes, last: bool, level: int = -1) -> bytes:
    """Return a part of a deflate stream that begins and ends at whole bytes, as in pigz."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def _stored(data: bytes) -> bytes:
    """Return a part of a deflate stream whose size depends only on that of the data."""
    return _deflated(data, False, level=0)


def _crc_of_both(first: int, second: int, size: int) -> int:
    """Return the CRC-32 of two byte strings, one after the other.

    CRC-32 is linear: what comes before some bytes changes it as it does before as many zeros.

    Args:
        first, second: the CRC-32 of each.
        size: of the second, in bytes.
    """
    zeros = bytes(size)
    return zlib.crc32(zeros, first) ^ zlib.crc32(zeros) ^ second


def read_comment(path: Path) -> bytes:
    """Return the comment of the archive; empty if the file is no archive.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment
    except zipfile.BadZipFile:
        return b""
    except OSError as error:
        raise cannot_read(path, error) from error


def read(path: Path, n_vocab: int) -> Iterator[np.ndarray]:
    """Yield the chunks of an `.npz` file, arrays of `compact_type(n_vocab)`, shape [tokens].

    Raises:
        UserError: the file is not a readable `.npz` file, or a chunk is not a list of ids below
            `n_vocab`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():  # by entry, as two may have the same name
                chunk = _read_array(archive, info)
                name = info.filename.removesuffix(".npy")
                yield _checked(path, in_short(name), chunk, n_vocab)
    except UserError:
        raise
    except Exception as error:  # zipfile and NumPy raise many types for damaged files
        raise UserError(
            f"{path}: not a .npz dataset, or damaged ({in_short(error)}). Encode the text again "
            f"with {command_line('encode')}."
        ) from error


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Return an array as `numpy.load` does, but allocate only what the file really holds."""
    name = info.filename
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy does not use")
    with archive.open(info) as entry:
        shape, fortran_order, dtype = read_header(entry, name)
        size = math.prod(shape) * dtype.itemsize  # bytes
        if min(shape, default=0) < 0 or size > info.file_size:
            raise ValueError(f"the header of {name} promises more numbers than the file has")
        content = bytearray()
        while len(content) < size and (piece := entry.read(min(_PIECE, size - len(content)))):
            content += piece
        if len(content) < size:
            raise ValueError(f"{name} is truncated")
        if entry.read(1):  # zipfile compares the checksum only at the end of the entry
            raise ValueError(f"{name} has data after its array")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of a `.npy` file; the numbers follow.

    Returns:
        The shape, whether the order is Fortran's, and the type.

    Raises:
        ValueError: the file is not a `.npy` file of numbers; NumPy raises other types, too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers written by Python 2
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{name} has a format version that NumPy does not use for numbers")
    if header[2].hasobject:
        raise ValueError(f"{name} contains Python objects, not numbers")
    return header


def _checked(path: Path, name: str, chunk: np.ndarray, n_vocab: int) -> np.ndarray:
    if chunk.ndim != 1 or chunk.dtype.kind not in "iu":
        raise UserError(
            f"{path}: {name} is an array of {in_short(chunk.dtype)} with {chunk.ndim} dimensions; "
            f"expected a list of token ids. Encode the text again with {command_line('encode')}."
        )
    if chunk.size and not 0 <= chunk.min() <= chunk.max() < n_vocab:
        worst = chunk.max() if chunk.max() >= n_vocab else chunk.min()
        raise UserError(
            f"{path}: {name} contains token id {worst}, but the model's vocabulary ends at "
            f"{n_vocab - 1}. Encode the text again with this model's --model_name."
        )
    return chunk.astype(compact_type(n_vocab))
