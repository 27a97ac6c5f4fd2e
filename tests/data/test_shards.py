"""A folder of shards gives back its chunks from the disk, and says so when it is damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import shards
from gpt2.errors import UserError
from tests.data.conftest import whole_chunks

CHUNKS = [[0, 1, 2], [3], [4, 5, 6, 7], [8, 9]]


def arrays(*chunks: list[int]) -> list[np.ndarray]:
    return [np.array(chunk, np.int32) for chunk in chunks]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four chunks in three shards: a new one begins when one has four tokens or more."""
    parts = [([0, 1], False), ([2], True), ([3], True), ([4, 5, 6], False), ([7], True)]
    parts += [([], True), ([8, 9], True)]
    path = tmp_path / "tokens"
    as_arrays = ((np.array(part, np.int32), ends) for part, ends in parts)
    assert shards.write_parts(path, as_arrays, 300, shard=4) == 10
    return path


def test_chunks_come_back_as_views_of_the_files(folder: Path) -> None:
    assert sorted(file.name for file in folder.iterdir()) == [
        "shard-00000.npy",
        "shard-00001.npy",
        "shard-00002.npy",
        "shards.json",
    ]
    # The files are NumPy's own: they can be read without this program.
    assert np.load(folder / "shard-00000.npy").tolist() == [0, 1, 2, 3]
    assert np.load(folder / "shard-00001.npy").tolist() == [4, 5, 6, 7]
    assert np.load(folder / "shard-00002.npy").tolist() == [8, 9]
    chunks = shards.read(folder, 300)
    assert [chunk.tolist() for chunk in chunks] == CHUNKS
    assert {chunk.dtype for chunk in chunks} == {np.dtype(np.uint16)}
    for chunk in chunks:
        assert not chunk.flags.owndata
        assert not chunk.flags.writeable


def test_large_vocabularies_have_wider_tokens(tmp_path: Path) -> None:
    ids = [0, 65535, 65536, 99999]
    shards.write_parts(tmp_path / "wide", whole_chunks(arrays(ids)), 100000)
    [chunk] = shards.read(tmp_path / "wide", 100000)
    assert chunk.tolist() == ids
    assert chunk.dtype == np.uint32


def test_no_chunks_are_an_empty_folder(tmp_path: Path) -> None:
    assert shards.write_parts(tmp_path / "none", [], 10) == 0
    assert shards.read(tmp_path / "none", 10) == []


def test_only_a_folder_with_an_index_is_one_of_shards(folder: Path) -> None:
    assert shards.is_shards(folder)
    assert not shards.is_shards(folder.parent)
    assert not shards.is_shards(folder / "shards.json")


def test_nothing_is_left_of_a_folder_that_was_not_finished(tmp_path: Path) -> None:
    def breaking() -> object:
        yield np.arange(5)
        raise UserError("a file vanished")

    with pytest.raises(UserError, match="a file vanished"):
        shards.write_parts(tmp_path / "broken", whole_chunks(breaking()), 300)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_written_over(folder: Path) -> None:
    with pytest.raises(UserError, match=r"tokens already exists.*another folder"):
        shards.write_parts(folder, whole_chunks(arrays([1])), 300)
    assert [chunk.tolist() for chunk in shards.read(folder, 300)] == CHUNKS


def change(folder: Path, **entries: object) -> None:
    index = json.loads((folder / "shards.json").read_text())
    (folder / "shards.json").write_text(json.dumps(index | entries))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: os.truncate(folder / "shard-00001.npy", 131), "shard-00001.npy is damaged"),
        (lambda folder: os.truncate(folder / "shard-00001.npy", 3), "shard-00001.npy is damaged"),
        (lambda folder: (folder / "shard-00002.npy").unlink(), "shard-00002.npy is damaged"),
        (
            lambda folder: (folder / "shard-00000.npy").open("ab").write(b"xy"),
            "shard-00000.npy is damaged .138 bytes, expected 136",
        ),
        (
            lambda folder: np.save(folder / "shard-00000.npy", np.zeros(4)),
            "shard-00000.npy is damaged .*float64",
        ),
        (lambda folder: os.truncate(folder / "shards.json", 9), "shards.json is not valid JSON"),
        (lambda folder: change(folder, version=2), r"version 2 .*only 1\. Encode"),
        (lambda folder: change(folder, type="float32"), "shards.json is damaged"),
        (lambda folder: change(folder, chunk_lengths=[[3, -1]]), "shards.json is damaged"),
        (lambda folder: change(folder, chunk_lengths=[4]), "shards.json is damaged"),
        (lambda folder: change(folder, chunk_lengths=[[3, 2]]), "shard-00000.npy is damaged"),
        (lambda folder: change(folder, n_vocab=None), "shards.json is damaged"),
        (lambda folder: change(folder, n_vocab=301), "301 tokens, but the model has 300"),
    ],
)
def test_damage_is_told_in_a_sentence(folder: Path, damage: object, sentence: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=sentence):
        shards.read(folder, 300)
