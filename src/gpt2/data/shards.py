"""Read and write folders of shards: datasets that training maps from disk instead of loading.

A folder contains `shard-00000.npy`, ... (one flat array of tokens each) and `shards.json` with the
lengths of the chunks in each shard. No chunk spans two shards.
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
from gpt2.workspace import command_line

INDEX = "shards.json"
VERSION = 1
SHARD = 2**28  # tokens after which the next chunk starts another shard

_TYPES: dict[str, np.dtype] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}


def is_shards(folder: Path) -> bool:
    """Return whether the path is a folder of shards."""
    return (Path(folder) / INDEX).is_file()


def write_parts(
    folder: Path,
    parts: Iterable[tuple[np.ndarray, bool]],
    n_vocab: int,
    *,
    shard: int = SHARD,
) -> int:
    """Write chunks of tokens into a new folder and return the number of tokens.

    One part at a time is in memory. The folder appears under its name when it is complete. Empty
    chunks are left out.

    Args:
        folder: the folder to create.
        parts: tokens of a chunk, integers of shape [tokens], and whether they are its last.
        n_vocab: vocabulary size; all tokens are below it.
        shard: number of tokens after which the next chunk starts another shard.

    Raises:
        UserError: the path exists, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder} already exists. Delete it, or write to another folder.")
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
    """Write one shard; return the lengths of its chunks, and whether all parts are written."""
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
    if length:  # the last chunk, if none of its parts was marked as the last
        chunks.append(length)
    file.seek(0)
    _write_header(file, dtype, sum(chunks))
    return chunks, ended


def _write_header(file: IO[bytes], dtype: np.dtype, length: int) -> None:
    """Write a `.npy` header, which NumPy pads to 128 bytes, so that it can be overwritten later."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def read(
    folder: Path, n_vocab: int, progress: Callable[[int], object] = lambda size: None
) -> list[np.ndarray]:
    """Return the chunks, each a read-only view of shape [tokens] into a memory-mapped file.

    Sizes and types are checked; the tokens themselves are not read.

    Args:
        folder: the folder of shards.
        n_vocab: vocabulary size of the model.
        progress: called with the size of each file in bytes.

    Raises:
        UserError: the folder is damaged, or was encoded with a larger vocabulary.
    """
    folder = Path(folder)
    index = files.read_json_object(folder / INDEX)
    if index.get("version") != VERSION:
        raise UserError(
            f"{folder / INDEX}: version {quoted(index.get('version'))} is not supported, only "
            f"{VERSION}. Encode the text again with {command_line('encode')}."
        )
    dtype, lengths = _TYPES.get(str(index.get("type"))), index.get("chunk_lengths")
    if (
        dtype is None
        or type(index.get("n_vocab")) is not int
        or not isinstance(lengths, list)
        or not all(isinstance(chunks, list) and chunks for chunks in lengths)
        or not all(type(length) is int and length > 0 for chunks in lengths for length in chunks)
    ):
        raise _damaged(folder / INDEX, "entries are missing or invalid")
    if index["n_vocab"] > n_vocab:
        raise UserError(
            f"{folder} was encoded with a vocabulary of {index['n_vocab']} tokens, but the model "
            f"has {n_vocab}. Encode the text again with this model's --model_name."
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
    except Exception as error:  # NumPy raises several types for damaged files
        raise _damaged(path, in_short(error) or type(error).__name__) from error
    # Checked before mapping, because a damaged header may claim any size.
    if found != dtype or shape != (length,):
        raise _damaged(path, in_short(f"{shape} of {found}, expected {(length,)} of {dtype}"))
    end = offset + length * dtype.itemsize
    if size != end:
        raise _damaged(path, f"{size} bytes, expected {end}")
    # Slicing a plain array is several times faster than slicing a memmap.
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def _name(number: int) -> str:
    return f"shard-{number:05}.npy"


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is damaged ({reason}). Encode the text again with {command_line('encode')}."
    )
