"""Files of tokens: the arrays of 2019 when written, nothing but lists of ids when read."""

from __future__ import annotations

import binascii
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import npz
from gpt2.errors import UserError
from tests.data.conftest import whole_chunks

CHUNKS = [[1, 2, 3], [], [50256] * 1000, list(range(300)), [0]]


@pytest.mark.parametrize("given", [np.uint16, np.int32, np.int64])
def test_a_file_of_short_chunks_is_numpys_to_the_byte(tmp_path: Path, given: type) -> None:
    # Twelve, so that names with two digits occur.
    chunks = [np.array(chunk, np.int64) for chunk in [*CHUNKS, *CHUNKS, [7], [8]]]
    np.savez_compressed(tmp_path / "numpy.npz", *chunks)
    tokens = npz.write_parts(
        tmp_path / "ours.npz", whole_chunks(chunk.astype(given) for chunk in chunks)
    )
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()
    assert tokens == 2 * 1304 + 2


@pytest.mark.parametrize("length", [99, 100, 101, 200, 201, 12_345])
def test_a_long_chunk_is_numpys_array_wherever_its_parts_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(npz, "_BLOCK", 100)
    monkeypatch.setattr(npz, "_AHEAD", 3)
    chunk, short = np.random.default_rng(0).integers(0, 50257, length), np.arange(7)
    array = io.BytesIO()
    np.save(array, chunk)
    divisions = [[], [length // 3], range(50, length, 50), [100, 100, 101], [length]]
    files = []
    for cuts in divisions:
        path = tmp_path / "tokens.npz"
        *parts, last = np.split(chunk.astype(np.uint16), cuts)
        parts = [*((part, False) for part in parts), (last, True), (short, True)]
        assert npz.write_parts(path, parts) == length + 7
        files.append(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert archive.read("arr_0.npy") == array.getvalue()
            info = archive.getinfo("arr_0.npy")
        assert binascii.crc32(array.getvalue()) == info.CRC
        assert info.file_size == len(array.getvalue())
        with np.load(path) as arrays:
            assert np.array_equal(arrays["arr_1"], short)
        assert [found.tolist() for found in npz.read(path, 50257)] == [
            chunk.tolist(),
            short.tolist(),
        ]
    assert set(files) == {files[0]}


def test_the_headers_of_an_archive_with_a_long_chunk_agree(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npz"
    npz.write_parts(path, whole_chunks([np.arange(300_000)]))
    with zipfile.ZipFile(path) as archive:
        [info] = archive.infolist()
    # Local header: after 14 bytes CRC and two sizes that refer to the field for ZIP64 at its end.
    local = path.read_bytes()[: 30 + len("arr_0.npy") + 20]
    assert struct.unpack_from("<H", local, 8) == (zipfile.ZIP_DEFLATED,)
    assert struct.unpack_from("<III", local, 14) == (info.CRC, 0xFFFFFFFF, 0xFFFFFFFF)
    assert struct.unpack("<HHQQ", local[-20:]) == (1, 16, info.file_size, info.compress_size)


def test_a_long_chunk_takes_little_more_space_than_numpys(tmp_path: Path) -> None:
    words = np.random.default_rng(0).zipf(1.2, 500_000)
    tokens = words[words < 50257]
    npz.write_parts(tmp_path / "ours.npz", whole_chunks([tokens]))
    np.savez_compressed(tmp_path / "numpy.npz", tokens)
    sizes = [(tmp_path / name).stat().st_size for name in ("ours.npz", "numpy.npz")]
    assert sizes[0] <= 1.07 * sizes[1]


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npz"
    npz.write_parts(path, whole_chunks(np.array(chunk, np.uint16) for chunk in CHUNKS))
    chunks = list(npz.read(path, 50257))
    assert [chunk.tolist() for chunk in chunks] == CHUNKS
    assert {chunk.dtype for chunk in chunks} == {np.dtype(np.uint16)}


def test_no_chunks_make_a_file_without_chunks(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npz"
    assert npz.write_parts(path, []) == 0
    assert list(npz.read(path, 10)) == []


def test_a_failure_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npz"
    path.write_bytes(b"old")

    def chunks():
        yield np.array([1, 2])
        raise UserError("a later file is not UTF-8")

    with pytest.raises(UserError, match="not UTF-8"):
        npz.write_parts(path, whole_chunks(chunks()))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, ">i4", "<u2", np.int64, np.uint64])
def test_every_integer_type_is_read(tmp_path: Path, dtype) -> None:
    np.savez(tmp_path / "tokens.npz", np.array([0, 5, 100], dtype))
    [chunk] = npz.read(tmp_path / "tokens.npz", 101)
    assert chunk.tolist() == [0, 5, 100]
    assert chunk.dtype == np.uint16


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.array([1.0, 2.0]), "arr_0 is an array of float64 with 1 dimensions"),
        (np.array([[1, 2]]), "arr_0 is an array of int64 with 2 dimensions"),
        (np.array(3), "arr_0 is an array of int64 with 0 dimensions"),
        (np.array([True]), "arr_0 is an array of bool"),
        (np.array(["1"]), "arr_0 is an array of <U1"),
        (np.array([5, -1]), "arr_0 contains token id -1, .* ends at 9"),
        (np.array([5, 10]), "arr_0 contains token id 10, .* ends at 9"),
        (np.array([-7, 2**40]), "arr_0 contains token id 1099511627776"),
        (np.array([2**64 - 1], np.uint64), "arr_0 contains token id 18446744073709551615"),
    ],
    ids=str,
)
def test_arrays_that_are_no_lists_of_ids_are_refused(
    tmp_path: Path, array: np.ndarray, sentence: str
) -> None:
    path = tmp_path / "tokens.npz"
    np.savez(path, array)
    with pytest.raises(UserError, match=rf"tokens\.npz: {sentence}.*Encode"):
        list(npz.read(path, 10))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    trap, path = tmp_path / "unpickled", tmp_path / "tokens.npz"
    np.savez(path, np.array([1, 2]), np.array([Payload(trap)], dtype=object))
    with pytest.raises(UserError, match=r"tokens\.npz: not a .npz dataset.*encode\.py"):
        list(npz.read(path, 10))
    assert not trap.exists()
    with np.load(path, allow_pickle=True) as archive:  # the trap works
        archive["arr_1"]
    assert trap.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_under_the_name_of_an_npz_is_never_unpickled(
    tmp_path: Path, protocol: int
) -> None:
    trap, path = tmp_path / "unpickled", tmp_path / "tokens.npz"
    path.write_bytes(pickle.dumps(Payload(trap), protocol=protocol))
    with pytest.raises(UserError, match=r"tokens\.npz: not a .npz dataset"):
        list(npz.read(path, 10))
    assert not trap.exists()
    pickle.loads(path.read_bytes())  # the trap works
    assert trap.exists()


def test_a_single_array_under_the_name_of_an_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(5))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(UserError, match=r"one\.npz: not a .npz dataset.*encode\.py"):
        list(npz.read(tmp_path / "one.npz", 10))


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tokens here")
    with pytest.raises(UserError, match=r"tokens\.npz: not a .npz dataset"):
        list(npz.read(path, 10))


def test_an_array_with_something_behind_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npz"
    array = io.BytesIO()
    np.lib.format.write_array(array, np.arange(5))
    for behind in (b"", b"\0", array.getvalue()):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("arr_0.npy", array.getvalue() + behind)
        if behind:
            with pytest.raises(UserError, match=r"arr_0\.npy has data after its array"):
                list(npz.read(path, 10))
        else:
            assert [chunk.tolist() for chunk in npz.read(path, 10)] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("content", [b"", b"PK", b"plain text\n" * 50, b"\x93NUMPY", b"\0" * 500])
def test_files_that_are_no_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokens.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"tokens\.npz: not a .npz dataset.*encode\.py"):
        list(npz.read(path, 10))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.npz"):
        list(npz.read(tmp_path / "gone.npz", 10))


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.npz", tmp_path / "cut.npz"
    npz.write_parts(whole, whole_chunks([np.arange(200), np.arange(100, 300)]))
    content = whole.read_bytes()
    for size in range(len(content)):
        cut.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"cut\.npz: not a .npz dataset"):
            list(npz.read(cut, 300))


def test_no_single_damaged_byte_changes_a_token_or_goes_without_a_sentence(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.npz", tmp_path / "damaged.npz"
    npz.write_parts(whole, whole_chunks([np.arange(20), np.arange(10, 30)]))
    content = whole.read_bytes()
    tokens = [list(range(20)), list(range(10, 30))]
    for place in range(len(content)):
        for flipped in (0x01, 0x80):
            copy = bytearray(content)
            copy[place] ^= flipped
            damaged.write_bytes(copy)
            try:
                # No vocabulary so small that a wrong token could be told by its id.
                chunks = [chunk.tolist() for chunk in npz.read(damaged, 2**31)]
            except UserError:
                continue
            # The damage has hit what says nothing about the tokens, such as a date, or where a
            # chunk is listed: one may be missing then, but none is another.
            assert all(chunk in tokens for chunk in chunks), place


def test_a_damaged_header_of_an_array_gives_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npz"
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(5))
    for place in range(buffer.tell() - 5 * 8):
        for flipped in (0x01, 0x09, 0x20, 0x7F, 0x80):
            array = bytearray(buffer.getvalue())
            array[place] ^= flipped
            with zipfile.ZipFile(path, "w") as archive:  # whose checksum is right
                archive.writestr("arr_0.npy", bytes(array))
            try:
                list(npz.read(path, 2**63))
            except UserError as error:
                assert "tokens.npz" in str(error)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_arrays_of_one_name_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for number in (1, 2):
            with archive.open("arr_0.npy", "w") as entry:
                np.lib.format.write_array(entry, np.array([number]))
    assert [chunk.tolist() for chunk in npz.read(path, 3)] == [[1], [2]]
