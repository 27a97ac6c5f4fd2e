"""Creates `.index` files of any content with valid checksums."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

from gpt2.checkpoint.crc32c import crc32c, masked

HEADER = b"\x08\x01\x1a\x02\x08\x01"  # one data file, version 1
MAGIC = 0xDB4775248B80FB57


class Block(bytes):
    """The raw content of a block."""


def number(value: int) -> bytes:
    """Return a number as a varint of protocol buffers; negative ones as 64 bits."""
    value %= 1 << 64
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def field(tag: int, value: int | bytes) -> bytes:
    """Return a field of a protocol buffer."""
    if isinstance(value, int):
        return number(tag << 3) + number(value)
    return number(tag << 3 | 2) + number(len(value)) + value


def entry(
    shape: Sequence[int],
    *,
    dtype: int = 1,
    shard: int = 0,
    offset: int = 0,
    size: int | None = None,
    crc: int = 0,
) -> bytes:
    """Return a BundleEntryProto."""
    dimensions = b"".join(field(2, field(1, size)) for size in shape)
    size = 4 * math.prod(shape) if size is None else size
    return (
        field(1, dtype)
        + field(2, dimensions)
        + field(3, shard)
        + field(4, offset)
        + field(5, size)
        + number(6 << 3 | 5)
        + struct.pack("<I", crc)
    )


def pairs(content: Iterable[tuple[bytes, bytes]]) -> Block:
    """Return a block of keys and values without prefix compression."""
    content = b"".join(b"\0" + number(len(k)) + number(len(v)) + k + v for k, v in content)
    return Block(content + struct.pack("<II", 0, 1))


def block(content: bytes, kind: int = 0) -> bytes:
    """Return a block with its compression type and checksum."""
    return content + bytes([kind]) + struct.pack("<I", masked(crc32c(content + bytes([kind]))))


def table(
    content: Block | Sequence[tuple[bytes, bytes]],
    *,
    header: bytes | None = HEADER,
    kind: int = 0,
    place: tuple[int, int] | None = None,
) -> bytes:
    """Return an `.index` file of one block: keys and values, or the block itself.

    Args:
        kind: compression type in the trailer of the block.
        place: declared offset and size of the block.
    """
    if not isinstance(content, Block):
        content = pairs([*([] if header is None else [(b"", header)]), *content])
    start, size = place or (0, len(content))
    whole = block(content, kind)
    handles = []
    for other in (pairs([]), pairs([(b"\xff" * 5, number(start) + number(size))])):
        handles.append(number(len(whole)) + number(len(other)))
        whole += block(other)
    return whole + b"".join(handles).ljust(40, b"\0") + struct.pack("<Q", MAGIC)
