"""Reader and writer of the `.index` of a checkpoint: a sorted table of where each tensor lies.

The file is a table in LevelDB's format (https://github.com/google/leveldb, doc/table_format.md):
blocks of keys and values, a block that lists the blocks, and a footer of 48 bytes that ends in a
magic number. A key is a tensor's name; a value is a BundleEntryProto, a protocol buffer (see
tensorflow/core/protobuf/tensor_bundle.proto). The key "" comes first and has a BundleHeaderProto.

It is not read by TensorFlow because the file may come from anybody: no memory is allocated from a
number in the file, and every fault ends as one `UserError`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gpt2.checkpoint.crc32c import crc32c, masked
from gpt2.errors import UserError, cannot_read

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes
_TRAILER = 5  # bytes after a block: how it is compressed, and its checksum

# Limits against malicious files; GPT-2 of any size needs less than a hundredth of these.
_MOST_BYTES = 4 << 20
_MOST_NAMES = 16 << 20  # bytes of all names together, which the file shortens
_LONGEST_NAME = 4096
_MOST_DIMENSIONS = 254  # TensorFlow's own limit

# tensorflow/core/framework/types.proto; a type that is missing has no fixed size here.
_TYPES = {
    1: ("float32", 4),
    2: ("float64", 8),
    3: ("int32", 4),
    4: ("uint8", 1),
    5: ("int16", 2),
    6: ("int8", 1),
    7: ("string", 0),
    9: ("int64", 8),
    10: ("bool", 1),
    14: ("bfloat16", 2),
    17: ("uint16", 2),
    19: ("float16", 2),
    22: ("uint32", 4),
    23: ("uint64", 8),
}


class Entry(NamedTuple):
    """Type, shape and location of one tensor."""

    shape: tuple[int, ...]
    dtype: str
    shard: int  # number of the data file
    offset: int  # bytes from the start of that file
    size: int  # bytes
    crc32c: int  # masked


class Index(NamedTuple):
    """The content of an `.index` file."""

    shards: int  # number of data files
    entries: dict[str, Entry]  # sorted by name


def read(path: Path) -> Index:
    """Return the content of an `.index` file.

    Raises:
        UserError: it is unreadable, corrupted or another kind of file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        return _parse(content)
    except (ValueError, IndexError, struct.error) as error:
        raise UserError(
            f"{path}: not a TensorFlow checkpoint index, or corrupted. Copy or download it again."
        ) from error


def _parse(content: bytes) -> Index:
    if not _FOOTER <= len(content) <= _MOST_BYTES:
        raise ValueError("too short or too long")
    footer = content[-_FOOTER:]
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("no table")
    _, place = _handle(footer, 0)  # of the metaindex block, which is empty
    (start, size), _ = _handle(footer, place)
    shards: int | None = None
    entries: dict[str, Entry] = {}
    before, names = b"", 0
    for _, value in _block(content, start, size):
        (start, size), _ = _handle(value, 0)
        for key, entry in _block(content, start, size):
            if shards is None:
                if key:
                    raise ValueError("no header")
                shards = _shards(entry)
                continue
            names += len(key)
            if key <= before or names > _MOST_NAMES:
                raise ValueError("the names are out of order or too long")
            before = key
            if key[0]:  # a part of a tensor in several slices has a key of another kind
                name = key.decode("utf-8")
                if not name.isprintable():
                    raise ValueError("a name that TensorFlow does not give")
                entries[name] = _entry(entry, shards)
    if shards is None:
        raise ValueError("no header")
    return Index(shards, entries)


def _block(content: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values in a block, whose keys omit the prefix shared with the previous."""
    end = start + size
    if not 0 <= start <= end <= len(content) - _FOOTER - _TRAILER or size < 4:
        raise ValueError("a block beyond the end")
    (checksum,) = struct.unpack_from("<I", content, end + 1)
    if masked(crc32c(content[start : end + 1])) != checksum:
        raise ValueError("a wrong checksum")
    if content[end] != 0:
        raise ValueError("a compressed block, which TensorFlow does not write")
    block = content[start:end]
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    stop = size - 4 - 4 * restarts
    if stop < 0:
        raise ValueError("more restarts than the block has room for")
    place, key = 0, b""
    while place < stop:
        shared, place = _number(block, place)
        added, place = _number(block, place)
        length, place = _number(block, place)
        if shared > len(key) or shared + added > _LONGEST_NAME or place + added + length > stop:
            raise ValueError("a key or a value beyond the end")
        key = key[:shared] + block[place : place + added]
        place += added
        yield key, block[place : place + length]
        place += length


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Return the start and size of a block, and the position behind them."""
    start, place = _number(data, place)
    size, place = _number(data, place)
    return (start, size), place


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Return a varint (groups of seven bits), and the position behind it."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, place
    raise ValueError("a number that does not end")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and raw value of each field of a protocol buffer."""
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _number(message, place)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, place = _number(message, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("a field of no known kind")
        if place + length > len(message):
            raise ValueError("a field beyond the end")
        content = message[place : place + length]
        yield tag >> 3, content if kind == 2 else int.from_bytes(content, "little")
        place += length


def _whole(value: int | bytes) -> int:
    """Return the value of a field that must be a number of at least 0."""
    if not isinstance(value, int) or value >= 1 << 63:
        raise ValueError("a field that is not a number, or a negative one")
    return value


def _bytes(value: int | bytes) -> bytes:
    """Return the value of a field that must hold bytes."""
    if not isinstance(value, bytes):
        raise ValueError("a number in the place of a message")
    return value


def _shards(message: bytes) -> int:
    """Return the number of data files according to the header."""
    shards, order = 0, 0
    for field, value in _fields(message):
        if field == 1:
            shards = _whole(value)
        elif field == 2:
            order = _whole(value)
    if not 1 <= shards <= 99999 or order != 0:
        raise ValueError("no data files, or big-endian ones")
    return shards


def _entry(message: bytes, shards: int) -> Entry:
    dtype = shard = offset = size = checksum = 0
    shape: list[int] = []
    for field, value in _fields(message):
        if field == 1:
            dtype = _whole(value)
        elif field == 2:
            shape = _shape(_bytes(value))
        elif field == 3:
            shard = _whole(value)
        elif field == 4:
            offset = _whole(value)
        elif field == 5:
            size = _whole(value)
        elif field == 6:
            checksum = _whole(value)
    name, width = _TYPES.get(dtype, (f"number {dtype}", 0))
    if shard >= shards:
        raise ValueError("a data file beyond the last")
    elements = math.prod(shape)
    if width and size not in (elements * width, 0):
        raise ValueError("a size that is not the shape's")
    return Entry(tuple(shape), name, shard, offset, size, checksum)


def _shape(message: bytes) -> list[int]:
    shape = []
    for field, dimension in _fields(message):
        if field == 2:
            sizes = [_whole(value) for number, value in _fields(_bytes(dimension)) if number == 1]
            shape.append(sizes[-1] if sizes else 0)
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError("too many dimensions")
    return shape


# --- writing ---

_HEADER = b"\x08\x01\x1a\x02\x08\x01"  # one data file, little-endian, version 1
_RESTART = 16  # a key in so many is written in full


def table(entries: Mapping[str, Entry]) -> bytes:
    """Return an `.index` with these tensors, all in one data file, as TensorFlow writes it."""
    keys = sorted(entries)  # Unicode sorts as UTF-8 does
    pairs = [(name.encode("utf-8"), _entry_bytes(entries[name])) for name in keys]
    written = _written_block([(b"", _HEADER), *pairs])
    meta_handle = _varint(len(written)) + _varint(8)
    place = len(written)
    written += _written_block([])
    data_handle = _varint(0) + _varint(place - _TRAILER)
    index_place = len(written)
    # The last block is listed under the shortest key behind its own: one byte.
    last = bytes([pairs[-1][0][0] + 1]) if pairs else b""
    written += _written_block([(last, data_handle)])
    index_handle = _varint(index_place) + _varint(len(written) - index_place - _TRAILER)
    footer = (meta_handle + index_handle).ljust(_FOOTER - 8, b"\0")
    return written + footer + struct.pack("<Q", _MAGIC)


def _written_block(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a block of keys, each without what it shares with the one before, and its trailer."""
    block, restarts, before = bytearray(), [0], b""
    for number, (key, value) in enumerate(pairs):
        if number and number % _RESTART == 0:
            restarts.append(len(block))
            before = b""
        shared = _shared(before, key)
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
        block += key[shared:] + value
        before = key
    block += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts)) + b"\0"
    return bytes(block) + struct.pack("<I", masked(crc32c(bytes(block))))


def _shared(first: bytes, second: bytes) -> int:
    """Return the length of the longest common prefix."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))


def _entry_bytes(entry: Entry) -> bytes:
    """Return a BundleEntryProto; fields that are 0 are left out, as protocol buffers do."""
    number_of = {name: number for number, (name, _) in _TYPES.items()}
    sizes = [b"\x08" + _varint(size) if size else b"" for size in entry.shape]
    shape = b"".join(b"\x12" + _varint(len(size)) + size for size in sizes)
    written = b"\x08" + _varint(number_of[entry.dtype]) + b"\x12" + _varint(len(shape)) + shape
    for field, value in ((4, entry.offset), (5, entry.size)):
        if value:
            written += _varint(field << 3) + _varint(value)
    return written + (b"\x35" + struct.pack("<I", entry.crc32c) if entry.crc32c else b"")


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
