"""A LiteRT program whose weights can be exchanged.

All layers of a model have the same program but for their weights, and converting one takes seconds.
So one is converted with weights that are easily recognized, and the others are copies of it with
their own weights at the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt2 import randomness
from gpt2.generation import int4

LEAST_PEAK = 5e-7  # of a row, for its scale

# Returns the arrays that a program stores for a matrix, float32 [out, in].
Layout = Callable[[np.ndarray], Sequence[np.ndarray]]


def as_float32(array: np.ndarray) -> Sequence[np.ndarray]:
    """Store an array as it is."""
    return [array]


def as_int8(matrix: np.ndarray) -> Sequence[np.ndarray]:
    """Store int8 numbers [out, in] and a float32 scale for each row, as LiteRT's converter does.

    Source: "LiteRT 8-bit quantization specification", symmetric and per axis: the largest weight of
    a row becomes 127, and halves are rounded away from zero.
    """
    peaks = np.abs(matrix).max(axis=1, keepdims=True).astype(np.float64)
    scales = np.maximum(peaks, LEAST_PEAK) / 127
    numbers = matrix / scales
    numbers = np.trunc(numbers + np.copysign(0.5, numbers), out=numbers)
    return [numbers.astype(np.int8), scales.astype(np.float32)]


def as_int4(matrix: np.ndarray) -> Sequence[np.ndarray]:
    """Store numbers of 4 bits and their scales; see `int4`."""
    numbers, scales = int4.quantize_blocks(matrix)
    return [int4.pack(numbers), scales]


@dataclass(frozen=True)
class Template:
    """A program, and the layout and places in bytes of each of its weights."""

    program: bytes
    places: Mapping[str, tuple[Layout, Sequence[int]]]

    @classmethod
    def of(
        cls, program: bytes, weights: Mapping[str, np.ndarray], layouts: Iterable[Layout]
    ) -> Template:
        """Find the weights in a program.

        Args:
            program: a program that was converted with `weights`.
            weights: arrays that `recognizable` made, by name.
            layouts: those that a matrix may have, as the converter leaves small ones in float32.

        Raises:
            LookupError: the program has none of the layouts of some array.
        """
        return cls(
            program, {name: _find(program, name, array, layouts) for name, array in weights.items()}
        )

    def filled(self, weights: Mapping[str, np.ndarray]) -> bytearray:
        """Return the program with other weights of the same names and shapes."""
        program = bytearray(self.program)
        for name, (layout, places) in self.places.items():
            for place, array in zip(places, layout(_stored(weights[name])), strict=True):
                stored = array.tobytes()
                program[place : place + len(stored)] = stored
        return program


def recognizable(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return random float32 weights of these shapes.

    Each row of a matrix, as it is stored, is whole numbers of which the largest is 127, times a
    number of 16 bits: every way to compute its int8 numbers and its scale gives these, exactly.
    """
    random = randomness.generator(0, randomness.WEIGHTS)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            weights[name] = random.standard_normal(shape, np.float32)
            continue
        rows, columns = shape if len(shape) == 2 else shape[:0:-1]
        matrix = random.integers(-127, 128, (rows, columns), np.int8).astype(np.float32)
        matrix[:, 0] = 127
        matrix *= random.integers(2**15, 2**16, (rows, 1)).astype(np.float32) / 2**16
        weights[name] = matrix if len(shape) == 2 else matrix.T[None]
    return weights


def _find(
    program: bytes, name: str, array: np.ndarray, layouts: Iterable[Layout]
) -> tuple[Layout, list[int]]:
    array = _stored(array)
    for layout in layouts if array.ndim == 2 else [as_float32]:
        places = [program.find(part.tobytes()) for part in layout(array)]
        if min(places) >= 0:
            return layout, places
    raise LookupError(f"{name} was not found in the program.")


def _stored(array: np.ndarray) -> np.ndarray:
    """Return a matrix [1, in, out] as the format stores it, [out, in], and others as they are."""
    return array[0].T if array.ndim == 3 else array
