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

import numpy as np

from gpt2 import files
from gpt2.errors import UserError, cannot_read, quoted
from gpt2.interop.stored import WIDTHS, Storage, StoredTensor

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
        return _parse(json.loads(content), path, 8 + length, size)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a valid safetensors file ({quoted(str(error), 200)}). Copy or download "
            "it again."
        ) from error


def _parse(header: dict, path: Path, start: int, size: int) -> dict[str, StoredTensor]:
    """Return the tensors of a header whose data begin at byte `start` of the file."""
    header.pop("__metadata__", None)
    tensors, places = {}, []
    for name, entry in header.items():
        dtype, shape = entry["dtype"], entry["shape"]
        begin, end = entry["data_offsets"]
        if dtype not in _TYPES:
            raise ValueError(f"tensor {name} has the unknown type {dtype}")
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError(f"tensor {name} has a size or an offset that is not a whole number")
        storage = Storage(path, _TYPES[dtype], math.prod(shape), start + begin)
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
