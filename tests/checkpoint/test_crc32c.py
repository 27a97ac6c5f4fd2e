"""CRC-32C against published values, a bitwise reference, and TensorFlow's own checksums."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2.checkpoint import index
from gpt2.checkpoint.crc32c import crc32c, masked

SCSI_READ = "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018"
SCSI_READ += "28000000 00000000 02000000 00000000"


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, appendix B.4, and the check value of the catalogue of CRC algorithms
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (bytes.fromhex(SCSI_READ), 0xD9963A56),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def bit_by_bit(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


# Around each width at which the work is cut differently, up to the widest rows twice and a rest.
@pytest.mark.parametrize("length", [1, 31, 32, 33, 255, 257, 4095, 16385, 65539, 2 * 65536 + 99])
def test_any_length_and_place_in_memory(length: int) -> None:
    data = np.random.default_rng(length).bytes(length + 3)
    for start in range(4):
        assert crc32c(memoryview(data)[start : start + length]) == bit_by_bit(
            data[start : start + length]
        )


def test_arrays_are_their_bytes() -> None:
    array = np.arange(3000, dtype=np.float32).reshape(60, 50)
    assert crc32c(array) == bit_by_bit(array.tobytes())
    assert crc32c(array.T) == bit_by_bit(array.T.tobytes())


def test_the_checksums_that_tensorflow_1_stored(shared_data) -> None:
    folder = shared_data / "toy-checkpoint"
    data = (folder / "model.ckpt.data-00000-of-00001").read_bytes()
    entries = index.read(folder / "model.ckpt.index").entries
    assert len(entries) == 40
    for entry in entries.values():
        assert masked(crc32c(data[entry.offset : entry.offset + entry.size])) == entry.crc32c
