"""The `.npz` files of 2019: one integer array of tokens for each chunk."""

from __future__ import annotations

import math
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from gpt2 import files
from gpt2.errors import UserError, in_short

_PIECE = 16 << 20  # bytes unpacked at a time

_IN_MEMORY = 2**25  # bytes of a chunk that is being written; more go to the disk
_BLOCK = 2**20  # tokens that are converted at a time


def compact_type(n_vocab: int) -> np.dtype:
    """The smallest integer type that the training code keeps tokens of such a vocabulary in."""
    return np.dtype(np.uint16 if n_vocab <= 2**16 else np.int32)


def write(path: Path, chunks: Iterable[np.ndarray]) -> int:
    """Write chunks of tokens; see `write_parts`."""
    return write_parts(path, ((chunk, True) for chunk in chunks))


def write_parts(path: Path, parts: Iterable[tuple[np.ndarray, bool]]) -> int:
    """Write chunks of tokens, of any size, as `numpy.savez_compressed` would.

    They are stored as 64-bit integers, so that the file is the one of 2019 to the byte. An array
    begins with its length; so a long chunk waits in a file without a name until its end is known.

    Args:
        parts: some tokens of a chunk, and whether they are its last.

    Returns:
        How many tokens were written.
    """
    tokens = length = number = 0
    writing: Future | None = None
    with (
        files.atomic_write(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ThreadPoolExecutor(1) as pool,  # compressing takes as long as tokenising
    ):
        waiting = _nameless(path.parent)
        for part, ends in parts:
            waiting.write(part.astype(np.int32).tobytes())
            length += len(part)
            if ends:
                if writing:
                    writing.result()
                writing = pool.submit(_write_array, archive, number, waiting, length)
                waiting = _nameless(path.parent)
                tokens += length
                length = 0
                number += 1
        waiting.close()
        if writing:
            writing.result()
    return tokens


def _nameless(folder: Path) -> IO[bytes]:
    """A file in memory or, when it grows, without a name on the disk that the result is for."""
    return tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=folder)


def _write_array(archive: zipfile.ZipFile, number: int, tokens: IO[bytes], length: int) -> None:
    """Write 32-bit integers from a file as the 64-bit array that NumPy would write."""
    header = {"descr": "<i8", "fortran_order": False, "shape": (length,)}
    with tokens, archive.open(f"arr_{number}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array_header_1_0(entry, header)
        tokens.seek(0)
        while some := tokens.read(4 * _BLOCK):
            entry.write(np.frombuffer(some, np.int32).astype("<i8").tobytes())


def read(path: Path, n_vocab: int) -> Iterator[np.ndarray]:
    """The chunks of an `.npz` file, as arrays of `compact_type(n_vocab)`, each of shape [tokens].

    Raises:
        UserError: it is no such file, or a chunk is not a list of ids below `n_vocab`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                chunk = _read_array(archive, name)
                yield _checked(path, in_short(name.removesuffix(".npy")), chunk, n_vocab)
    except UserError:
        raise
    except Exception as error:  # zipfile and NumPy have a dozen kinds for what is broken
        raise UserError(
            f"{path} is not a file of encoded text ({in_short(error)}); make it anew with "
            "src/encode.py."
        ) from error


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """As `numpy.load`, but nothing is allocated for numbers that only the header promises."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in a way that NumPy does not use")
    with archive.open(info) as entry:
        shape, fortran_order, dtype = read_header(entry, name)
        size = math.prod(shape) * dtype.itemsize  # bytes
        if min(shape, default=0) < 0 or size > info.file_size:
            raise ValueError(f"{name} promises more numbers than it has")
        content = bytearray()
        while len(content) < size and (piece := entry.read(min(_PIECE, size - len(content)))):
            content += piece
        if len(content) < size:
            raise ValueError(f"{name} ends before its array does")
        if entry.read(1):  # only at the end of the entry is its checksum compared
            raise ValueError(f"{name} goes on after its array")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the order is Fortran's, and type of a `.npy` file; the numbers follow.

    Raises:
        ValueError: it is no such file, or is not of numbers; NumPy raises others, too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a header is in the words of Python 2
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{name} is of a version that NumPy does not write for numbers")
    if header[2].hasobject:
        raise ValueError(f"{name} holds objects of Python, not numbers")
    return header


def _checked(path: Path, name: str, chunk: np.ndarray, n_vocab: int) -> np.ndarray:
    if chunk.ndim != 1 or chunk.dtype.kind not in "iu":
        raise UserError(
            f"{path}: {name} is an array of {in_short(chunk.dtype)} with {chunk.ndim} dimensions, "
            "not a list of token ids; make the file anew with src/encode.py."
        )
    if chunk.size and not 0 <= chunk.min() <= chunk.max() < n_vocab:
        worst = chunk.max() if chunk.max() >= n_vocab else chunk.min()
        raise UserError(
            f"{path}: {name} holds the token id {worst}, but the model's vocabulary ends at "
            f"{n_vocab - 1}; encode the text with this model's --model_name."
        )
    return chunk.astype(compact_type(n_vocab))
