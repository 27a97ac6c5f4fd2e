"""A file or folder appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

import pytest

from gpt2 import files, locks
from gpt2.errors import UserError
from tests.signals_at_each_line import failing_after, interrupted
from tests.support import waiting

SOURCES = Path(files.__file__).parent.parent


def contents(folder: Path) -> dict[str, str]:
    """What lies in a folder: names and texts."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else "a folder"
        for path in folder.rglob("*")
    }


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that turns out to be full when data is forced onto it."""

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def dies(code: str, folder: Path) -> None:
    """Run code in another process, in which it ends with os._exit(9): no `finally` comes after."""
    program = f"import os\nfrom pathlib import Path\nfrom gpt2 import files\n{code}"
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = waiting.run([sys.executable, "-c", program], cwd=folder, env=environment)
    assert done.returncode == 9, done.stderr


def test_a_written_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with files.atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert contents(tmp_path) == {"file": "new"}


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    for kind in (ZeroDivisionError, KeyboardInterrupt, UserError):
        with pytest.raises(kind), files.atomic_write(path) as file:
            file.write(b"half")
            raise kind
        assert contents(tmp_path) == {"file": "old"}


def test_a_kill_leaves_the_old_file_and_a_leftover_that_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    dies(
        "with files.atomic_write(Path('file')) as file:\n"
        "    file.write(b'half'); file.flush(); os._exit(9)",
        tmp_path,
    )
    assert path.read_text() == "old"
    [leftover] = set(tmp_path.iterdir()) - {path}
    assert leftover.read_text() == "half"
    files.remove_leftovers(tmp_path)
    assert contents(tmp_path) == {"file": "old"}


def test_a_full_disk_leaves_the_old_file_and_is_told(tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    sentence = r"file cannot be written: No space left on device.*disk space"
    with pytest.raises(UserError, match=sentence), files.atomic_write(path) as file:
        file.write(b"new")
    assert contents(tmp_path) == {"file": "old"}


def test_data_is_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        inode = os.fstat(descriptor).st_ino
        events.append("folder" if inode == tmp_path.stat().st_ino else "file")

    def replace(source: Path, target: Path) -> None:
        events.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_text(tmp_path / "file", "text")
    assert events == ["file", "rename", "folder"] or os.name == "nt"


@pytest.mark.parametrize("name", ["folder", ".", "..", "folder/", "missing/file", "other/file"])
def test_a_file_that_cannot_be_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here" / "folder").mkdir(parents=True)
    (tmp_path / "here" / "folder" / "kept").write_text("kept")
    (tmp_path / "here" / "other").write_text("a file")
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match=r"cannot be written: .*permissions"):
        files.write_text(Path(name), "text")
    assert contents(tmp_path) == before


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with files.atomic_write(path) as first:
        first.write(b"first, and longer")
        with files.atomic_write(path) as second:
            second.write(b"second")
        assert path.read_text() == "second"
    assert contents(tmp_path) == {"file": "first, and longer"}


def test_text_is_written_as_utf8_with_its_line_ends(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "naïve\r\nlines\n\u2028")
    assert (tmp_path / "file").read_bytes() == "naïve\r\nlines\n\u2028".encode()


def test_a_new_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "models" / "new"
    with files.atomic_folder(path) as folder:
        (folder / "a").write_text("1")
        (folder / "b").write_text("2")
        assert not path.exists()
    assert contents(tmp_path / "models") == {"new": "a folder", "new/a": "1", "new/b": "2"}


def test_an_exception_leaves_no_folder(tmp_path: Path) -> None:
    for kind in (ZeroDivisionError, KeyboardInterrupt, UserError):
        with pytest.raises(kind), files.atomic_folder(tmp_path / "new") as folder:
            (folder / "a").write_text("1")
            raise kind
        assert contents(tmp_path) == {}


def test_a_kill_leaves_no_folder_of_that_name(tmp_path: Path) -> None:
    dies(
        "with files.atomic_folder(Path('new').absolute()) as folder:\n"
        "    (folder / 'a').write_text('1'); os._exit(9)",
        tmp_path,
    )
    assert not (tmp_path / "new").exists()
    [leftover] = tmp_path.iterdir()
    assert leftover.name.endswith(files.PARTIAL)


def test_a_full_disk_leaves_no_folder_and_is_told(tmp_path: Path, full_disk: None) -> None:
    with (
        pytest.raises(UserError, match="new cannot be written: No space left on device"),
        files.atomic_folder(tmp_path / "new") as folder,
    ):
        (folder / "a").write_text("1")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_lies_under_a_new_folders_name_is_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "new"
    if kind == "folder":
        path.mkdir()
        (path / "kept").write_text("kept")
    else:
        path.write_text("kept")
    before = contents(tmp_path)
    with (
        pytest.raises(UserError, match="new cannot be written"),
        files.atomic_folder(path) as folder,
    ):
        (folder / "a").write_text("1")
    assert contents(tmp_path) == before


def test_a_new_folders_files_are_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new"
    events = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        events.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with files.atomic_folder(path) as folder:
        (folder / "a").write_text("1")
        file_inode, folder_inode = (folder / "a").stat().st_ino, folder.stat().st_ino
    before = {inode for inode, named in events if not named}
    after = {inode for inode, named in events if named}
    if os.name != "nt":
        assert before == {file_inode, folder_inode}  # the folder, as it lists its files
        assert after == {tmp_path.stat().st_ino}


def test_a_folder_is_made_with_those_above_it_and_may_exist(tmp_path: Path) -> None:
    for _ in range(2):
        files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(UserError, match=f"{name} cannot be written"):
            files.make_folder(tmp_path / name)


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    files.partial_path(tmp_path / "model-5.index").write_text("half")
    files.remove_leftovers(tmp_path)
    assert contents(tmp_path) == {"kept": "kept"}


def test_text_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"na\xefve")
    with pytest.raises(UserError, match=r"latin .*UTF-8 text \(byte 2\)"):
        files.read_small_text(tmp_path / "latin")
    for name in ("gone", ""):
        with pytest.raises(UserError, match="cannot be read: "):
            files.read_small_text(tmp_path / name)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_text_with_a_byte_order_mark_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    mark = "\N{ZERO WIDTH NO-BREAK SPACE}" if encoding.endswith("-be") else ""
    (tmp_path / "file").write_bytes((mark + '{"a": "Grüße 你好"}').encode(encoding))
    assert files.read_small_text(tmp_path / "file") == '{"a": "Grüße 你好"}'
    assert files.read_json_object(tmp_path / "file") == {"a": "Grüße 你好"}


def test_line_ends_of_all_systems_become_newlines() -> None:
    assert files.decode_small_text(b"a\r\nb\rc\nd\r\r\n", "pipe") == "a\nb\nc\nd\n\n"
    assert files.decode_small_text("a\r\n".encode("utf-16"), "pipe") == "a\n"
    # Other characters that end a line in Unicode stay.
    assert files.decode_small_text("a\x85\u2028b".encode(), "pipe") == "a\x85\u2028b"
    assert files.decode_small_text(b"", "pipe") == ""


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"%PDF-1.7\n...", "PDF"),
        (b"PK\x03\x04\x14\x00[Content_Types].xml", r"zip .*\.docx"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(20), r"\.doc"),
        (b"{\\rtf1 text}", "RTF"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        ("Wörter ohne Zeichen".encode("utf-16-le"), "UTF-16 .*byte order mark.*UTF-8"),
        ("Wörter ohne Zeichen".encode("utf-16-be"), "UTF-16 .*byte order mark.*UTF-8"),
        (b"text with one \0 in it", "binary data.*byte at 14"),
        (b"caf\xe9", r"UTF-8 text \(byte 3\)"),
        (b"\xff\xfea", r"UTF-16 text \(byte 2\)"),
        (b"\xff\xfe\x00\x00\xff\xff\xff\xff", r"UTF-32 text \(byte 4\)"),
    ],
)
def test_content_that_is_not_text_is_named(tmp_path: Path, content: bytes, facts: str) -> None:
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"notes\.txt.*{facts}"):
        files.read_small_text(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=rf"^standard input.*{facts}"):
        files.decode_small_text(content, "standard input")


def test_a_file_that_is_too_large_is_refused_before_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_TEXT", 1 << 20)
    with open(tmp_path / "disk.img", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match=r"disk\.img: larger than 1 MiB"):
        files.read_small_text(tmp_path / "disk.img")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ('{"a": 1}{', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is not valid JSON"),
        ("[1]", "must hold a JSON object, not an array"),
        ("null", "must hold a JSON object, not null"),
        ("false", "must hold a JSON object, not false"),
        ('"text"', "must hold a JSON object, not a string"),
        ("1.5", "must hold a JSON object, not a number"),
    ],
    ids=range(10),
)
def test_json_that_is_no_object_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"file\.json {sentence}"):
        files.read_json_object(path)


@pytest.mark.parametrize("name", ["", "-", ".", "/dev/full", "folder", "missing/file", "file/file"])
def test_an_output_that_is_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError):
        files.check_writable(name)
    if name in ("", "-", "/dev/full", "file/file"):
        with pytest.raises(UserError):
            files.check_folder_writable(name)
    assert sorted(os.listdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    "name", ["a\0b", "\ud800.json", "x" * 300, "x" * 250, "a\0b/c", "x" * 5000]
)
def test_an_output_whose_name_no_file_can_have_is_refused_before_the_work(name: str) -> None:
    for check in (files.check_writable, files.check_folder_writable):
        with pytest.raises(UserError, match="cannot be written") as caught:
            check(name)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


def test_outputs_that_can_be_written_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert files.check_writable("new") == Path("new")
    assert files.check_writable("./-") == Path("-")
    assert files.check_writable(tmp_path / "file") == tmp_path / "file"
    assert files.check_folder_writable("a/b/c/") == Path("a/b/c")
    assert os.listdir() == ["file"]


def test_a_json_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text('{"a": [1, "ï"]}', encoding="utf-8")
    assert files.read_json_object(tmp_path / "file.json") == {"a": [1, "ï"]}


@pytest.mark.parametrize("write", ["atomic_write(Path('new'))", "atomic_folder(Path('new'))"])
def test_the_next_writer_clears_away_what_kills_left_but_not_what_is_being_written(
    tmp_path: Path, write: str
) -> None:
    both = "files.atomic_write(Path('text.npz')), files.atomic_folder(Path('old'))"
    dies(f"with {both}:\n    os._exit(9)", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    mine = tmp_path / f"mine.{'0' * 13}{files.PARTIAL}"  # of another form, so not ours
    mine.write_text("mine")
    with (
        files.atomic_write(tmp_path / "file") as file,
        files.atomic_folder(tmp_path / "folder") as folder,
    ):
        file.write(b"half")
        file.flush()
        dies(f"with files.{write}: pass\nos._exit(9)", tmp_path)
        assert len(list(tmp_path.iterdir())) == 4
        (folder / "a").write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", mine.name, "new"]


def test_where_no_lock_tells_a_leftover_is_known_by_its_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "lock_state", lambda descriptor: None)
    old, fresh = files.partial_path(tmp_path / "new"), files.partial_path(tmp_path / "new")
    for folder in (old, fresh):
        folder.mkdir()
    long_ago = time.time() - 2 * files.ABANDONED
    os.utime(old, (long_ago, long_ago))
    files.write_text(tmp_path / "file", "text")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "file", fresh])


@pytest.mark.parametrize("writer", [files.atomic_write, files.atomic_folder])
def test_a_signal_as_soon_as_a_temporary_file_exists_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer
) -> None:
    for line in interrupted(lambda: writer(tmp_path / "new")):
        assert not list(tmp_path.glob("*.partial")), line
    if (tmp_path / "new").is_dir():
        (tmp_path / "new").rmdir()

    def of_partial(path: str) -> bool:
        return path.endswith(".partial")

    monkeypatch.setattr(files, "open", failing_after(open, of_partial), raising=False)
    monkeypatch.setattr(Path, "mkdir", failing_after(Path.mkdir, of_partial))
    with pytest.raises(KeyboardInterrupt), writer(tmp_path / "new"):
        pass
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_of_replaceable_files_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a").write_text("old")
    with files.atomic_folder(tmp_path / "new", ["a", "b"]) as folder:
        (folder / "b").write_text("new")
    assert contents(tmp_path) == {"new": "a folder", "new/b": "new"}


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "diary").write_text("kept")
    with (
        pytest.raises(UserError, match="diary"),
        files.atomic_folder(tmp_path / "new", ["a"]),
    ):
        pytest.fail("the block is not entered")
    assert (tmp_path / "new" / "diary").read_text() == "kept"


def test_a_failed_rename_brings_the_replaced_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a").write_text("old")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if files.PARTIAL in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(UserError, match="Input/output error"),
        files.atomic_folder(tmp_path / "new", ["a"]) as folder,
    ):
        (folder / "a").write_text("new")
    assert (tmp_path / "new" / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_end_at_once_leaves_nothing_unfinished_but_a_forks(tmp_path: Path) -> None:
    """Ctrl+C after TensorFlow has been loaded runs no code of the writers."""
    program = """
import os, signal, sys
from pathlib import Path
from gpt2 import files
from gpt2.commands.signals import prepare_tensorflow
out = Path(sys.argv[1])
prepare_tensorflow()
with files.atomic_folder(out / "folder") as folder, files.atomic_write(out / "file") as file:
    with files.atomic_write(folder / "inner") as inner:
        if hasattr(os, "fork") and os.fork() == 0:
            signal.raise_signal(signal.SIGINT)
        if hasattr(os, "fork"):
            os.wait()
            assert len(list(out.iterdir())) == 2 and len(list(folder.iterdir())) == 1
        signal.raise_signal(signal.SIGINT)
"""
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    done = waiting.run([sys.executable, "-c", program, tmp_path], env=environment)
    assert done.returncode == 130 and "interrupted" in done.stderr, done
    assert list(tmp_path.iterdir()) == []
