"""Read and write `.npz` datasets in the format of 2019: one integer array of tokens per chunk."""

from __future__ import annotations

import math
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from gpt2 import files
from gpt2.errors import UserError, cannot_read, in_short
from gpt2.workspace import command_line

_PIECE = 16 << 20  # bytes decompressed at a time
_IN_MEMORY = 2**25  # bytes of an unfinished chunk that are kept in memory; more go to disk
_BLOCK = 2**20  # tokens converted at a time


def compact_type(n_vocab: int) -> np.dtype:
    """Return the integer type that holds the ids of a vocabulary in memory: uint16 or int32."""
    return np.dtype(np.uint16 if n_vocab <= 2**16 else np.int32)


def write_parts(
    path: Path,
    parts: Iterable[tuple[np.ndarray, bool]],
    comment: Callable[[], bytes] = lambda: b"",
) -> int:
    """Write chunks of tokens and return the number of tokens.

    The file is byte for byte that of `numpy.savez_compressed` with 64-bit integers, as in 2019. An
    array starts with its length, so a long chunk is kept in an unnamed file until it is complete.

    Args:
        path: the file; replaced atomically.
        parts: tokens of a chunk, integers of shape [tokens], and whether they are its last.
        comment: called at the end, for the archive's comment, which NumPy ignores.

    Raises:
        UserError: the file cannot be written.
    """
    tokens = length = number = 0
    writing: Future | None = None
    with (
        files.atomic_write(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ThreadPoolExecutor(1) as pool,  # compression takes as long as tokenization
    ):
        waiting = _unnamed_file(path.parent)
        for part, ends in parts:
            waiting.write(part.astype(np.int32).tobytes())
            length += len(part)
            if ends:
                if writing:
                    writing.result()
                writing = pool.submit(_write_array, archive, number, waiting, length)
                waiting = _unnamed_file(path.parent)
                tokens += length
                length = 0
                number += 1
        waiting.close()
        if writing:
            writing.result()
        archive.comment = comment()
    return tokens


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


def _unnamed_file(folder: Path) -> IO[bytes]:
    """Return a file in memory that moves to an unnamed file in `folder` when it grows."""
    return tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(folder))


def _write_array(archive: zipfile.ZipFile, number: int, tokens: IO[bytes], length: int) -> None:
    """Write the 32-bit integers of a file as a 64-bit array in NumPy's format."""
    header = {"descr": "<i8", "fortran_order": False, "shape": (length,)}
    with tokens, archive.open(f"arr_{number}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array_header_1_0(entry, header)
        tokens.seek(0)
        while some := tokens.read(4 * _BLOCK):
            entry.write(np.frombuffer(some, np.int32).astype("<i8").tobytes())


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
