"""The checksum of TensorFlow's files: CRC-32C (Castagnoli), and the mask it is stored under.

A CRC is linear: the register after some bytes is the exclusive or of the effect of each byte on an
empty register. So the data are split into rows of L words and NumPy processes all L columns at
once, each as a message of its own whose next word comes 4 L bytes later. The L registers are
combined at the end. This is as fast as reading from the disk.
"""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # RFC 3720, appendix B.4, with its bits reversed
_MASK = 0xA282EAD8  # added by TensorFlow, since a CRC of data that contain their CRC is weak
_ALL_ONES = 0xFFFFFFFF
_WIDEST = 14  # L = 2**14: the registers and tables fit the L2 cache


def masked(crc: int) -> int:
    """Return a checksum as TensorFlow stores it (lib/hash/crc32c.h)."""
    return ((crc >> 15 | crc << 17) + _MASK) & _ALL_ONES


def crc32c(data: bytes | np.ndarray) -> int:
    """Return the CRC-32C of bytes or of an array's memory.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    rest = np.frombuffer(data, np.uint8)  # [bytes]
    register = _ALL_ONES
    for log_columns in range(_WIDEST, 2, -1):
        row = 4 << log_columns  # bytes
        whole = len(rest) // row * row
        if whole:
            register = _rows(register, rest[:whole], log_columns)
            rest = rest[whole:]
    table = _tables(0, 8)[0]
    for byte in rest.tolist():
        register = int(table[(register ^ byte) & 0xFF]) ^ register >> 8
    return register ^ _ALL_ONES


def _rows(register: int, data: np.ndarray, log_columns: int) -> int:
    """Return the register after data that are whole rows of 2**log_columns words."""
    rows = data.reshape(-1, 4 << log_columns)  # a view: [rows, 4 L]
    registers = np.zeros(1 << log_columns, "<u4")  # [L]
    for number, row in enumerate(rows):
        words = row.view("<u4") if row.ctypes.data % 4 == 0 else row.copy().view("<u4")
        if number == 0:
            registers ^= words
            registers[0] ^= np.uint32(register)
        else:
            registers = _advanced(registers, log_columns + 2) ^ words
    # The first half of the words lies 4 L / 2 bytes before the second, and so on down to one word.
    for log_half in reversed(range(log_columns)):
        first, second = registers[: 1 << log_half], registers[1 << log_half :]
        registers = _advanced(first, log_half + 2) ^ second
    return int(_advanced(registers, 2)[0])


def _advanced(registers: np.ndarray, log_zeros: int) -> np.ndarray:
    """Return the registers after 2**log_zeros more zero bytes."""
    # Larger tables need fewer lookups, which pays only for many registers.
    bits, parts = (16, "<u2") if len(registers) >= 1 << 12 else (8, "u1")
    columns = registers.view(parts).reshape(len(registers), -1).T
    looked_up = map(np.take, _tables(log_zeros, bits), columns)
    return functools.reduce(np.bitwise_xor, looked_up)


@functools.cache
def _tables(log_zeros: int, bits: int) -> list[np.ndarray]:
    """Return the register after 2**log_zeros zero bytes, for each value of each `bits` of it."""
    columns = _columns(log_zeros)
    tables = []
    for start in range(0, 32, bits):
        table = np.zeros(1 << bits, np.uint32)
        for bit in range(bits):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ np.uint32(columns[start + bit])
        tables.append(table)
    return tables


@functools.cache
def _columns(log_zeros: int) -> tuple[int, ...]:
    """Return the register after 2**log_zeros zero bytes, for each single bit of it."""
    if log_zeros == 0:
        columns = []
        for bit in range(32):
            register = 1 << bit
            for _ in range(8):
                register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
            columns.append(register)
        return tuple(columns)
    half = _columns(log_zeros - 1)

    def twice(register: int) -> int:
        bits = (half[bit] for bit in range(32) if register >> bit & 1)
        return functools.reduce(int.__xor__, bits, 0)

    return tuple(map(twice, half))
