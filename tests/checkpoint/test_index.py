"""The reader of `.index` files against TensorFlow's, and against files made up to do harm."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2.checkpoint import index
from gpt2.checkpoint.crc32c import crc32c, masked
from gpt2.errors import UserError
from tests.fuzz.index_files import Block, entry, number, table


def as_tensorflow_reads(prefix: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    reader = tf.compat.v1.train.NewCheckpointReader(str(prefix))
    dtypes = reader.get_variable_to_dtype_map()
    shapes = reader.get_variable_to_shape_map()
    return {name: (tuple(shape), dtypes[name].name) for name, shape in shapes.items()}


def as_read_here(prefix: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    entries = index.read(prefix.with_name(prefix.name + ".index")).entries
    return {name: (entry.shape, entry.dtype) for name, entry in entries.items()}


@pytest.mark.parametrize("folder", ["toy-checkpoint", "openai-117M-index"])
def test_files_of_tensorflow_1_say_the_same_to_both(shared_data: Path, folder: str) -> None:
    prefix = shared_data / folder / "model.ckpt"
    assert as_read_here(prefix) == as_tensorflow_reads(prefix)


def test_the_checksums_are_those_known_of_the_released_117m(shared_data: Path) -> None:
    entries = index.read(shared_data / "openai-117M-index" / "model.ckpt.index").entries
    assert entries["model/wte"].crc32c == 0x0E298522
    assert entries["model/wpe"].crc32c == 0x2ACFB8F1
    assert entries["model/h0/attn/c_attn/w"].crc32c == 0x863D710D


def test_every_type_scalars_and_hundreds_of_blocks_say_the_same_to_both(tmp_path: Path) -> None:
    types = (
        "float32 float64 int32 uint8 int16 int8 int64 bool bfloat16 uint16 float16 uint32 uint64"
    )
    tensors: Mapping[str, tf.Tensor] = {
        f"{name}/{'long name ' * 20}/{shape}": tf.zeros(shape, name)
        for name in types.split()
        for shape in ((), (0,), (3,), (2, 0, 5), (1, 2, 3, 4, 5))
    } | {"text": tf.constant(["some", "text"]), "Grüße": tf.zeros([2])}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    assert as_read_here(tmp_path / "m") == as_tensorflow_reads(tmp_path / "m")


# --- made-up files ---


def read(tmp_path: Path, content: bytes) -> index.Index:
    path = tmp_path / "m.index"
    path.write_bytes(content)
    return index.read(path)


def test_the_files_made_up_here_are_read_when_nothing_is_wrong_with_them(tmp_path: Path) -> None:
    found = read(tmp_path, table([(b"a", entry((2, 3), offset=5, crc=9)), (b"b", entry((4,)))]))
    assert found.shards == 1
    assert found.entries == {
        "a": index.Entry((2, 3), "float32", 0, 5, 24, 9),
        "b": index.Entry((4,), "float32", 0, 0, 16, 0),
    }


HUGE = 10**12
LONG = b"n" * 4000
WRONG: dict[str, bytes] = {
    "negative dimension": table([(b"a", entry((-1,), size=4))]),
    "negative size": table([(b"a", entry((1,), size=-4))]),
    "negative offset": table([(b"a", entry((1,), offset=-4))]),
    "size that is not the shape's": table([(b"a", entry((3,), size=4))]),
    "shard beyond the last": table([(b"a", entry((1,), shard=1))]),
    "too many dimensions": table([(b"a", entry((1,) * 255))]),
    "names out of order": table([(b"b", entry((1,))), (b"a", entry((1,)))]),
    "a name twice": table([(b"a", entry((1,))), (b"a", entry((1,)))]),
    "no header": table([(b"a", entry((1,)))], header=None),
    "big-endian": table([(b"a", entry((1,)))], header=b"\x08\x01\x10\x01"),
    "no data files": table([(b"a", entry((1,)))], header=b""),
    "10^12 data files": table([(b"a", entry((1,)))], header=b"\x08" + number(HUGE)),
    "a name that is no UTF-8": table([(b"\xff", entry((1,)))]),
    "a number for a shape": table([(b"a", b"\x10\x05")]),
    "a message for a type": table([(b"a", b"\x0a\x00")]),
    "a group": table([(b"a", b"\x0b")]),
    "a field beyond the end": table([(b"a", b"\x12" + number(HUGE))]),
    "a number without end": table([(b"a", b"\xff" * 11)]),
    "a value of 10^12 bytes": table(Block(b"\x00\x01" + number(HUGE) + b"a" + bytes(20))),
    "a name of 10^12 bytes": table(Block(b"\x00" + number(HUGE) + b"\x00" + bytes(20))),
    "a name that shares 10^12 bytes": table(Block(number(HUGE) + b"\x01\x00a" + bytes(20))),
    "10^9 restarts": table(Block(bytes(20) + struct.pack("<I", 10**9))),
    "a compressed block": table([(b"a", entry((1,)))], kind=1),
    "a block beyond the end": table([(b"a", entry((1,)))], place=(HUGE, 10)),
    "a block of 10^12 bytes": table([(b"a", entry((1,)))], place=(0, HUGE)),
    # Four bytes in the file for each name of four thousand: a gigabyte of names.
    "shortened names": table(
        Block(
            b"\x00" + number(len(LONG)) + b"\x00" + LONG
            + b"".join(
                number(3997) + b"\x03\x00" + struct.pack(">I", n)[1:] for n in range(1 << 18)
            )
            + struct.pack("<II", 0, 1)
        )
    ),
    "more than an index ever has": table([]) + bytes(5 << 20),
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_one_sentence_and_little_memory(tmp_path: Path, what: str) -> None:
    tracemalloc.start()
    with pytest.raises(UserError, match=r"m\.index: not a TensorFlow checkpoint index"):
        read(tmp_path, WRONG[what])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 << 20


def test_a_tensor_of_a_million_million_numbers_is_only_a_number(tmp_path: Path) -> None:
    found = read(tmp_path, table([(b"a", entry((HUGE,)))])).entries["a"]
    assert found.size == 4 * HUGE


def test_every_flipped_bit_is_noticed(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "toy-checkpoint" / "model.ckpt.index").read_bytes()
    expected = read(tmp_path, whole)
    seed = int(np.random.default_rng().integers(1 << 30))
    print("seed", seed)
    random = np.random.default_rng(seed)
    for place in random.permutation(len(whole) - 100)[:300]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(random.integers(8))
        try:
            assert read(tmp_path, bytes(flipped)) == expected  # a block of statistics, unread
        except UserError:
            continue


def test_the_block_maker_agrees_with_tensorflow(tmp_path: Path) -> None:
    # Or "one sentence" above might be about the tests' own mistakes.
    path = tmp_path / "m.index"
    path.write_bytes(table([(b"a", entry((2, 3), crc=masked(crc32c(bytes(24)))))]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(24))
    reader = tf.compat.v1.train.NewCheckpointReader(str(tmp_path / "m"))
    np.testing.assert_array_equal(reader.get_tensor("a"), np.zeros((2, 3)))
