"""Files of JSON lines: only complete lines count, one writer at a time, errors are reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpt2 import jsonl
from gpt2.errors import UserError


def test_lines_are_added_behind_the_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert jsonl.complete_lines(path) == []
    # A line separator of Unicode inside a line; the half of a character at the end.
    whole = 'one\N{LINE SEPARATOR}"\x85"\r\n\nthree\n'
    path.write_bytes((whole + "hal").encode() + "é".encode()[:1])
    lines = jsonl.complete_lines(path)
    assert lines == ['one\N{LINE SEPARATOR}"\x85"\r', "", "three"]
    with jsonl.open_append(path, lines) as file:
        file.write("four é\n")
    assert path.read_bytes() == (whole + "four é\n").encode()


def test_lines_that_cannot_be_used_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"latin .*UTF-8 text \(byte 3\)"):
        jsonl.complete_lines(tmp_path / "latin")
    with pytest.raises(UserError, match="cannot be read"):
        jsonl.complete_lines(tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        jsonl.open_append(tmp_path, [])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device of a full disk")
def test_a_line_for_which_there_is_no_room_is_reported() -> None:
    sentence = "/dev/full cannot be written: No space left on device"
    with pytest.raises(UserError, match=sentence), open("/dev/full", "a") as file:
        jsonl.append_line(file, "line")
    assert file.closed


def test_two_processes_do_not_add_lines_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with jsonl.open_append(path, []) as file:
        with pytest.raises(UserError, match=r"nother process is writing .*lines"):
            jsonl.open_append(path, [])
        jsonl.append_line(file, "one")
    # It has ended, but what it wrote is not what this one knows.
    with pytest.raises(UserError, match=r"nother process is writing .*lines"):
        jsonl.open_append(path, [])
    assert path.read_text() == "one\n"
    jsonl.open_append(path, ["one"]).close()


def test_half_a_line_that_a_kill_left_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n{"a": ')
    lines = jsonl.complete_lines(path)
    with jsonl.open_append(path, lines) as file:
        jsonl.append_line(file, '{"a": 2}')
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'
