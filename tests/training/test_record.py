"""What is written down of a call: it tells data apart, and reads them once only."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from gpt2.errors import UserError
from gpt2.training import run_log


def test_data_are_known_by_the_sha256_of_their_files_in_order(tmp_path: Path) -> None:
    for name, content in {"a.txt": b"one", "b.txt": b"two"}.items():
        (tmp_path / name).write_bytes(content)
    found = run_log.data_in_short([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert (found["files"], found["bytes"]) == (2, 6)
    assert found["sha256"] == hashlib.sha256(b"onetwo").hexdigest()
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        run_log.data_in_short([tmp_path / "gone.txt"])


def test_data_that_have_not_changed_are_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    run_log.add_call(tmp_path, data={"text": run_log.data_in_short([file])})
    known = run_log.last_data(tmp_path)["text"]
    marked = known | {"sha256": "as before"}
    assert run_log.data_in_short([file], marked) == marked
    changed = file.stat().st_mtime_ns
    file.write_text("two")
    os.utime(file, ns=(changed + 1, changed + 1))
    assert run_log.data_in_short([file], marked)["sha256"] == hashlib.sha256(b"two").hexdigest()
    file.write_text("three")
    os.utime(file, ns=(changed, changed))
    assert run_log.data_in_short([file], marked)["sha256"] == hashlib.sha256(b"three").hexdigest()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"calls": 3}', '{"calls": [3]}', '{"calls": [{"data": 3}]}']
)
def test_a_config_that_is_not_ours_stops_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / run_log.CONFIG).write_text(content)
    assert run_log.last_data(tmp_path) == {}
    run_log.add_call(tmp_path, seed=1)
    assert json.loads((tmp_path / run_log.CONFIG).read_text())["calls"][-1]["seed"] == 1


@pytest.mark.parametrize("known", [None, 3, {}, {"files": 1}])
def test_what_was_known_before_may_be_anything(tmp_path: Path, known: object) -> None:
    (tmp_path / "a.txt").write_text("one")
    found = run_log.data_in_short([tmp_path / "a.txt"], known)
    assert found["sha256"] == hashlib.sha256(b"one").hexdigest()


def test_calls_are_read_as_they_were_written(tmp_path: Path) -> None:
    for number in (1, 2):
        run_log.add_call(tmp_path, seed=number, flags={"batch_size": number})
    assert [call["seed"] for call in run_log.read_calls(tmp_path)] == [1, 2]
    for content in ("{}", '{"calls": 1}', '{"calls": [1]}'):
        (tmp_path / run_log.CONFIG).write_text(content)
        with pytest.raises(UserError, match="names no calls"):
            run_log.read_calls(tmp_path)
