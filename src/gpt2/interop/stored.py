"""Tensors that lie in a file: where, of which type, and how to read one as float32."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt2.checkpoint.bundle import from_bfloat16
from gpt2.errors import UserError, cannot_read

# Bytes per element of every type that PyTorch stores; only those in `_FLOATS` can be weights.
WIDTHS = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2,
    "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
_FLOATS = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_MOST_DIMENSIONS = 8


def elements(shape: Sequence[object]) -> int:
    """Return the number of elements of a shape from a file.

    Raises:
        ValueError: it has too many dimensions, or a size is not a whole number below 2^63; products
            of many or of huge numbers would take forever.
    """
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor of {len(shape)} dimensions")
    sizes = [size for size in shape if type(size) is int and 0 <= size < 2**63]
    if len(sizes) < len(shape):
        raise ValueError("a tensor with a size that is not a whole number below 2^63")
    return math.prod(sizes)


@dataclasses.dataclass
class Storage:
    """A run of elements in a file, which one or several tensors are views of.

    Attributes:
        path: the file.
        dtype: a key of `WIDTHS`.
        elements: how many.
        offset: bytes from the start of the file.
    """

    path: Path
    dtype: str
    elements: int
    offset: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self.elements * WIDTHS[self.dtype]


class StoredTensor:
    """A tensor in a file, read when it is needed."""

    def __init__(
        self,
        storage: Storage,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None = None,
        start: int = 0,
    ):
        """Represent a view of a storage.

        Args:
            strides: elements from one index to the next, by dimension; None for row-major order.
            start: elements before the first one.

        Raises:
            ValueError: it reaches beyond the storage, or has more elements than it.
        """
        count = elements(shape)
        if strides is None:
            strides = tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
        if len(shape) != len(strides) or start < 0:
            raise ValueError("a tensor of an impossible shape")
        reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        self._span = reach + 1 if count else 0  # elements from the first to the last
        if min(strides, default=0) < 0 or self._span < count:
            raise ValueError("a tensor whose elements overlap")
        if start + self._span > storage.elements:
            raise ValueError("a tensor beyond the end of its storage")
        self.storage, self.shape, self.strides, self.start = storage, shape, strides, start

    @property
    def dtype(self) -> str:
        """The type of the elements, such as float16."""
        return self.storage.dtype

    def read(self, name: str) -> np.ndarray:
        """Return the values as a float32 array, all of them finite.

        Args:
            name: of the tensor, for messages.

        Raises:
            UserError: the file cannot be read, the type is not a float, or a value is not finite.
        """
        path = self.storage.path
        if self.dtype not in _FLOATS:
            raise UserError(f"{path}: tensor {name} is {self.dtype}; expected floating point.")
        width = WIDTHS[self.dtype]
        offset = self.storage.offset + self.start * width
        try:
            values = np.fromfile(path, _FLOATS[self.dtype], self._span, offset=offset)
        except OSError as error:
            raise cannot_read(path, error) from error
        if len(values) != self._span:
            raise UserError(f"{path}: cut off in tensor {name}. Copy or download it again.")
        strides = [stride * width for stride in self.strides]
        values = np.lib.stride_tricks.as_strided(values, self.shape, strides)
        if self.dtype == "bfloat16":
            values = from_bfloat16(values)
        values = np.asarray(values, np.float32, order="C")
        if not np.isfinite(values).all():
            raise UserError(
                f"{path}: tensor {name} contains NaN, infinite values or values beyond float32."
            )
        return values
