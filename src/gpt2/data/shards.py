"""A folder of encoded text that training reads where it lies: tokens stay on the disk.

It holds `shard-00000.npy`, ... (each one flat array of tokens) and `shards.json`, which says how
long the chunks are that follow each other in every shard. A chunk lies in one shard, whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import numpy as np

from gpt2 import files
from gpt2.data import npz
from gpt2.errors import UserError, in_short, quoted

INDEX = "shards.json"
VERSION = 1
SHARD = 2**28  # tokens after which the next chunk begins another shard

_TYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}


def is_shards(folder: Path) -> bool:
    """Whether there is a folder of shards under that name."""
    return (Path(folder) / INDEX).is_file()


def write(folder: Path, chunks: Iterable[np.ndarray], n_vocab: int) -> int:
    """Write chunks of tokens; see `write_parts`."""
    return write_parts(folder, ((chunk, True) for chunk in chunks), n_vocab)


def write_parts(
    folder: Path,
    parts: Iterable[tuple[np.ndarray, bool]],
    n_vocab: int,
    *,
    shard: int = SHARD,
) -> int:
    """Write chunks of tokens, of any size, into a new folder, holding one part at a time.

    The folder appears under its name when all is written. Empty chunks are left out.

    Args:
        parts: some tokens of a chunk, and whether they are its last.
        n_vocab: of the vocabulary; all tokens are below it.
        shard: tokens after which the next chunk begins another shard.

    Returns:
        How many tokens were written.

    Raises:
        UserError: there is something under that name, or it cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(
            f"{folder} exists already; delete it if it is not needed, or write elsewhere."
        )
    name = "uint16" if n_vocab <= 2**16 else "uint32"
    lengths: list[list[int]] = []  # of the chunks in each shard
    with files.atomic_folder(folder) as partial:
        waiting = iter(parts)
        ended = False
        while not ended:
            path = partial / _name(len(lengths))
            with open(path, "wb") as file:
                chunks, ended = _fill(file, waiting, _TYPES[name], shard)
            if chunks:
                lengths.append(chunks)
            else:
                path.unlink()
        index = {
            "version": VERSION,
            "type": name,
            "n_vocab": n_vocab,
            "chunk_lengths": lengths,
        }
        (partial / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return sum(map(sum, lengths))


def _fill(
    file: IO[bytes], parts: Iterable[tuple[np.ndarray, bool]], dtype: np.dtype, shard: int
) -> tuple[list[int], bool]:
    """Write one shard; returns the lengths of its chunks, and whether there are no more parts."""
    _write_header(file, dtype, 0)
    chunks: list[int] = []
    length = size = 0
    ended = True
    for part, ends in parts:
        file.write(np.ascontiguousarray(part, dtype=dtype).data)
        length += len(part)
        if ends:
            if length:
                chunks.append(length)
            size += length
            length = 0
            if size >= shard:
                ended = False
                break
    if length:  # the last chunk, whose end nobody told
        chunks.append(length)
    file.seek(0)
    _write_header(file, dtype, sum(chunks))
    return chunks, ended


def _write_header(file: IO[bytes], dtype: np.dtype, length: int) -> None:
    """NumPy fills its header up to 128 bytes, whatever the length: it can be written over."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def read(
    folder: Path, n_vocab: int, progress: Callable[[int], object] = lambda size: None
) -> list[np.ndarray]:
    """The chunks, each a read-only view of shape [tokens] into the mapped file.

    Sizes and types are checked; the tokens themselves are not read.

    Args:
        n_vocab: tokens the model knows.
        progress: called with the size in bytes of each file of the folder.

    Raises:
        UserError: it is no such folder, is damaged, or was made with a larger vocabulary.
    """
    folder = Path(folder)
    index = files.read_json_object(folder / INDEX)
    if index.get("version") != VERSION:
        raise UserError(
            f"{folder / INDEX} is of the version {quoted(index.get('version'))}, of which this "
            f"program knows only {VERSION}; make the folder anew with src/encode.py."
        )
    dtype, lengths = _TYPES.get(str(index.get("type"))), index.get("chunk_lengths")
    if (
        dtype is None
        or type(index.get("n_vocab")) is not int
        or not isinstance(lengths, list)
        or not all(isinstance(chunks, list) and chunks for chunks in lengths)
        or not all(type(length) is int and length > 0 for chunks in lengths for length in chunks)
    ):
        raise _damaged(folder / INDEX, "its entries are not those of an index of shards")
    if index["n_vocab"] > n_vocab:
        raise UserError(
            f"{folder} was encoded with a vocabulary of {index['n_vocab']} tokens, but the model "
            f"knows {n_vocab}; encode the text with this model's --model_name."
        )
    views: list[np.ndarray] = []
    for number, chunks in enumerate(lengths):
        path = folder / _name(number)
        tokens = _map(path, dtype, sum(chunks))
        views += np.split(tokens, np.cumsum(chunks)[:-1])
        progress(path.stat().st_size)
    progress((folder / INDEX).stat().st_size)
    return views


def _map(path: Path, dtype: np.dtype, length: int) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            shape, _, found = npz.read_header(file, path.name)
            offset, size = file.tell(), os.fstat(file.fileno()).st_size
    except Exception as error:  # NumPy has several kinds for what is broken
        raise _damaged(path, in_short(error) or type(error).__name__) from error
    # Before anything is mapped, as the file may promise any number.
    if found != dtype or shape != (length,):
        raise _damaged(path, in_short(f"it holds {shape} of {found}, not {(length,)} of {dtype}"))
    end = offset + length * dtype.itemsize
    if size != end:
        raise _damaged(path, f"it has {size} bytes, not {end}")
    # Slices of the plain type are made several times faster.
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def _name(number: int) -> str:
    return f"shard-{number:05}.npy"


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged ({reason}); make the folder anew with src/encode.py.")
