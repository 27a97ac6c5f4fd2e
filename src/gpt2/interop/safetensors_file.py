"""The safetensors format, read and written one tensor at a time.

    8 bytes   length of the header, little-endian
    header    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    data      the tensors in the order of their offsets, without gaps

Source: https://github.com/huggingface/safetensors#format. The package of that name is not used: it
writes only what is in memory as a whole, and its NumPy interface does not know bfloat16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt2 import files
from gpt2.errors import UserError, cannot_read, in_short
from gpt2.interop.stored import WIDTHS, Storage, StoredTensor, elements

_LARGEST_HEADER = 100_000_000  # bytes, the limit of the reference implementation
_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


def read(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a file by name, without reading their values.

    Raises:
        UserError: it is unreadable, cut off, or not a safetensors file.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_LARGEST_HEADER, size - 8):
                raise UserError(
                    f"{path}: not a safetensors file, or cut off (its header would have {length:,} "
                    f"bytes, the file has {size:,}). Copy or download it again."
                )
            content = file.read(length)
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        header = json.loads(content, object_pairs_hook=_unique)
        return _parse(header, path, 8 + length, size)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        # Only the texts of ValueError are written for people.
        why = str(error) if isinstance(error, ValueError) else "its header is corrupted"
        raise UserError(
            f"{path}: not a valid safetensors file ({in_short(why)}). Copy or download it again."
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, whose keys differ, since readers disagree on which of two counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in its header")
    return found


def _parse(header: Any, path: Path, start: int, size: int) -> dict[str, StoredTensor]:
    """Return the tensors of a header whose data begin at byte `start` of the file."""
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop("__metadata__", None)
    tensors, places = {}, []
    for name, entry in header.items():
        dtype, shape = entry["dtype"], entry["shape"]
        begin, end = entry["data_offsets"]
        if dtype not in _TYPES:
            raise ValueError(f"tensor {name} has the unknown type {dtype}")
        if not all(type(place) is int and 0 <= place <= size for place in (begin, end)):
            raise ValueError(f"tensor {name} has an offset beyond the end of the file")
        storage = Storage(path, _TYPES[dtype], elements(shape), start + begin)
        if end - begin != storage.size:
            raise ValueError(f"tensor {name} has {end - begin} bytes; expected {storage.size}")
        tensors[name] = StoredTensor(storage, tuple(shape))
        places.append((begin, end, name))
    last = 0
    for begin, end, name in sorted(places):
        if begin != last:
            raise ValueError(f"tensor {name} overlaps with another one, or leaves a gap")
        last = end
    if start + last != size:
        raise ValueError(f"the tensors end at byte {start + last}, the file has {size} bytes")
    return tensors


def write(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    read: Callable[[str], np.ndarray],
) -> None:
    """Write a file with one tensor in memory at a time.

    Args:
        shapes: shape of each tensor by name.
        dtype: float32, float16 or bfloat16.
        read: returns a tensor by its name, float32 of that shape.

    Raises:
        UserError: it cannot be written, or a value is too large for the type.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        end = place + math.prod(shape) * WIDTHS[dtype]
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [place, end]}
        place = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # aligns the data
    with files.atomic_write(path) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in shapes:
            file.write(_rounded(read(name), dtype, name).data)


def _rounded(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Return float32 values in another type, as contiguous bytes."""
    if dtype == "bfloat16":
        import ml_dtypes

        with np.errstate(over="ignore"):
            rounded = values.astype(ml_dtypes.bfloat16)
    else:
        with np.errstate(over="ignore"):
            rounded = values.astype(f"<f{WIDTHS[dtype]}", copy=False)
    if dtype != "float32" and not np.isfinite(rounded).all():
        largest = np.abs(values).max()
        raise UserError(
            f"Tensor {name} has values up to {largest:g}, too large for {dtype}. Use float32."
        )
    return np.ascontiguousarray(rounded).reshape(-1).view(np.uint8)
