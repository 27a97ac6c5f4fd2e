"""Attention over 8-bit keys and values in one pass, compiled by Numba.

Numba is an optional package whose import takes half a second; see `gpt2.generation.int8_cache`.
Loops are over arrays whose last axis is contiguous, so that LLVM makes vector instructions of them.
Sums may be reordered for that, but only by the compiler: the same numbers give the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LARGEST = np.float32(127)  # code of a key or value
LARGEST_QUERY = np.float32(8191)  # code of a query: products of 1,000 dimensions fit into 32 bits
ROWS = 8  # values that are added at once
AHEAD = 64  # rows of codes between the one that is requested from memory and the one in use
HEAD = 64  # dimensions of a head of the released models; loops up to a constant are unrolled

OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}
_compiled = njit(**OPTIONS)


@intrinsic
def _prefetch(typing: Any, address: Any) -> Any:
    """Request a line of memory, without waiting for it.

    Processors do so on their own, but the next lines only. With this, the codes are read at the
    speed of the memory.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        read, keep, data = number(0), number(3), number(1)
        builder.call(function, [pointer, read, keep, data])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@_compiled
def _encode(numbers, codes, largest):  # type: ignore[no-untyped-def]
    """Write numbers as codes up to `largest`, and return the scale; not finite if they are not."""
    # Without the sign, floats are in the order of their bits, and a largest integer is found in
    # vectors; NaN could not be ignored among floats.
    bits, most = numbers.view(np.int32), np.int32(0)
    for place in range(len(numbers)):
        most = max(most, np.int32(bits[place] & np.int32(0x7FFFFFFF)))
    if most >= np.int32(0x7F800000):
        return np.float32(np.nan)
    peak = np.int32(most).view(np.float32)
    inverse = largest / peak if peak > 0 else np.float32(0)
    for place in range(len(numbers)):
        codes[place] = np.int32(np.rint(numbers[place] * inverse))
    return peak / largest


@_compiled
def _dot(query, scale, keys, scales, logits, size):  # type: ignore[no-untyped-def]
    """Write the logits of a query [D] and keys [S, D], all of them codes; return the largest."""
    peak = np.float32(-np.inf)
    ahead = keys.ctypes.data + AHEAD * size
    for place in range(len(logits)):
        _prefetch(ahead + place * size)  # type: ignore[call-arg]
        total = np.int32(0)
        for column in range(size):
            total = np.int32(total + np.int32(query[column]) * np.int32(keys[place, column]))
        logits[place] = np.float32(total) * (scale * scales[place])
        peak = max(peak, logits[place])
    return peak


@_compiled
def _exponentials(logits, peak):  # type: ignore[no-untyped-def]
    """Replace logits by exp(logits - peak), and return the sum.

    The function of the C library is not a vector instruction. This is 2^n times the Taylor series
    at the remainder, with a relative error of 1e-6.
    """
    total = np.float32(0)
    for place in range(len(logits)):
        exponent = (logits[place] - peak) * np.float32(1.4426950408889634)  # of 2
        exponent = np.float32(-126) if exponent < -126 else exponent  # NaN stays
        whole = np.floor(exponent)
        rest = (exponent - whole) * np.float32(0.6931471805599453)
        series = np.float32(1 / 5040)
        for divisor in (720, 120, 24, 6, 2, 1, 1):
            series = series * rest + np.float32(1) / np.float32(divisor)
        power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
        logits[place] = series * power
        total += logits[place]
    return total


@_compiled
def _weighted_sum(weights, norm, values, scales, attended, size):  # type: ignore[no-untyped-def]
    """Write the sum of values [S, D], which are codes, weighted by weights / norm.

    Eight values at once, as the sums would otherwise be loaded and stored for each.
    """
    end = len(weights)
    for place in range(end):
        weights[place] *= scales[place] / norm
    attended[:] = 0
    ahead = values.ctypes.data + AHEAD * size
    for first in range(0, end // ROWS * ROWS, ROWS):
        for place in range(first, first + ROWS):
            _prefetch(ahead + place * size)  # type: ignore[call-arg]
        for column in range(size):
            total = np.float32(0)
            for place in range(first, first + ROWS):
                total += weights[place] * np.float32(values[place, column])
            attended[column] += total
    for place in range(end // ROWS * ROWS, end):
        for column in range(size):
            attended[column] += weights[place] * np.float32(values[place, column])


@functools.cache
def attend() -> Callable[..., np.ndarray]:
    """Return the compiled `_attend`, which takes seconds the first time and is kept on the disk."""
    long = types.int64
    places, cache, codes, scales = (
        types.Array(kind, dimensions, "C")
        for kind, dimensions in ((long, 1), (types.float32, 6), (types.int8, 6), (types.float32, 5))
    )
    query, filled = types.Array(types.float32, 3, "C"), types.Array(long, 2, "C")
    signature = query(query, long, places, places, cache, codes, scales, filled)
    try:
        return njit(signature, cache=True, **OPTIONS)(_attend)
    except Exception:  # no folder for it, a full disk, a damaged file: Numba documents no error
        return njit(signature, **OPTIONS)(_attend)


def _attend(query, layer, slots, lengths, cache, codes, scales, filled):  # type: ignore[no-untyped-def]
    """Return the attention output of new tokens, [T, H, D], after bringing the codes up to date.

    Args:
        query: float32 [T, H, D].
        layer: whose keys and values.
        slots, lengths: see `attention.decode_attention`.
        cache: keys and values, float32 [2, L, B, H, N, D].
        codes, scales: int8 [2, L, B, H, N, D] and float32 [2, L, B, H, N]; their product is close
            to the cache.
        filled: positions of each slot whose codes are up to date, [L, B].
    """
    tokens, heads, size = query.shape
    attended = np.empty((tokens, heads, size), np.float32)
    room = np.empty(lengths.max(), np.float32)
    query_codes = np.empty(size, np.int16)
    for token in range(tokens):
        slot, end = slots[token], lengths[token]
        for head in range(heads):
            for part in range(2):
                for place in range(filled[layer, slot], end):
                    scales[part, layer, slot, head, place] = _encode(
                        cache[part, layer, slot, head, place],
                        codes[part, layer, slot, head, place],
                        LARGEST,
                    )
            scale = _encode(query[token, head], query_codes, LARGEST_QUERY)
            scale *= np.float32(size) ** np.float32(-0.5)
            keys, values = codes[0, layer, slot, head], codes[1, layer, slot, head]
            key_scales, value_scales = scales[0, layer, slot, head], scales[1, layer, slot, head]
            weights, output = room[:end], attended[token, head]
            if size == HEAD:
                peak = _dot(query_codes, scale, keys, key_scales, weights, HEAD)
                total = _exponentials(weights, peak)
                _weighted_sum(weights, total, values, value_scales, output, HEAD)
            else:
                peak = _dot(query_codes, scale, keys, key_scales, weights, size)
                total = _exponentials(weights, peak)
                _weighted_sum(weights, total, values, value_scales, output, size)
        filled[layer, slot] = max(filled[layer, slot], end)
    return attended
