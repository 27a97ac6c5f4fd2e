"""Untrusted files are read or refused with one message; see also `make fuzz`."""

from __future__ import annotations

import builtins
import io
import pickle
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpt2 import files
from gpt2.checkpoint import folder
from gpt2.data import npz
from gpt2.errors import UserError
from gpt2.workspace import Workspace
from tests.fuzz.engine import Finding, Reader, fuzz
from tests.fuzz.readers import readers

READERS = readers()
HUGE = 10**12


@pytest.mark.parametrize("name", READERS)
def test_a_malformed_or_generated_file_is_read_or_refused(name: str) -> None:
    figures = fuzz(READERS[name], 300, random.SystemRandom().randrange(1 << 30))
    assert figures.inputs == 300
    assert figures.refused > 30 or READERS[name].forgives


@pytest.mark.parametrize("name", READERS)
def test_the_valid_files_are_read(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    for other, content in reader.beside:
        (tmp_path / other).write_bytes(content)
    path = tmp_path / reader.file
    path.write_bytes(reader.wraps[-1](reader.seeds[-1]))
    reader.read(path)


# The harness itself finds the bugs of a reader.


def without_check(path: Path) -> None:
    if path.read_bytes().startswith(b"ab"):
        raise UserError("No.")
    raise KeyError("anything but a UserError")


def two_lines(path: Path) -> None:
    raise UserError("One.\nTwo.")


@pytest.mark.parametrize("read", [without_check, two_lines])
def test_a_bug_in_a_reader_is_found(read, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with pytest.raises(Finding, match=r"KeyError|more than one line"):
        fuzz(Reader([b"abcdef"], read, "file", st.binary()), 200, 1, kept)
    assert kept.is_file()


# Sizes that a file declares but does not have.


def npy(shape: tuple[int, ...], content: bytes, descr: str = "<i8") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def archive(content: bytes, packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as writer:
        writer.writestr("arr_0.npy", content)
    return file.getvalue()


def declaring(size: int) -> bytes:
    """Return an archive whose directory declares the size, too."""
    content = archive(npy((size // 8,), b""), zipfile.ZIP_STORED)
    place = content.index(b"PK\x01\x02")
    return content[: place + 20] + struct.pack("<II", size, size) + content[place + 28 :]


@pytest.mark.parametrize(
    "content",
    [
        archive(npy((HUGE,), b"")),
        archive(npy((2**62, 4), b"")),
        archive(npy((2**32, 2**32), b"")),
        archive(npy((-1,), b"\0" * 8)),
        archive(npy((1,), b"\0" * 8, "<U999999999")),
        declaring(3 << 30),
        archive(npy((5,), b"\0" * 40), zipfile.ZIP_LZMA),
    ],
    ids=["10^12", "beyond 64 bits", "overflowing", "negative", "wide", "both sizes", "lzma"],
)
def test_declared_sizes_allocate_no_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokens.npz"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"not a .npz dataset"):
        list(npz.read(path, 300))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 40 << 20


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("trapped"),)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("called on an untrusted file")

    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (builtins, "eval"),
        (builtins, "exec"),
    ):
        monkeypatch.setattr(module, name, refuse)
    path = tmp_path / "tokens.npz"
    np.savez(path, np.array([Trap()], dtype=object))
    with pytest.raises(UserError, match="contains Python objects"):
        list(npz.read(path, 300))
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**5, '{"n_ctx": ' + "9" * 10**5 + "}"])
def test_json_of_any_depth_and_length_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "hparams.json").write_text(text)
    with pytest.raises(UserError, match="is not valid JSON"):
        files.read_json_object(tmp_path / "hparams.json")


# Names that point outside the folder.


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".", "a/..", "a/.", "a\0b"]
)
def test_a_checkpoint_file_names_only_files_of_its_folder(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for place in (tmp_path, run):
        for stem in ("run", "passwd", ".", ".."):
            (place / f"{stem}.index").write_bytes(b"must not be opened")
    (run / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    try:
        prefix = folder.latest_checkpoint(run)
    except UserError:
        return
    pytest.fail(f"{name} was resolved to {prefix}")


@given(st.text(max_size=12))
@example("../x")
@example("..")
@example("a/b")
@example("a\\b")
@example("C:")
@example("")
@example("\0")
def test_a_name_is_a_folder_of_the_workspace_or_is_refused(name: str) -> None:
    workspace = Workspace(Path("/w/models"))
    for place, parent in (
        (workspace.new_model_folder, workspace.models),
        (workspace.run_folder, workspace.checkpoint),
        (workspace.samples_folder, workspace.samples),
    ):
        try:
            path = place(name)
        except UserError as error:
            assert "not a valid name" in str(error)
        else:
            assert path.parent == parent
            assert path.name == name not in ("", ".", "..")
