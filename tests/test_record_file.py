"""Files of JSON records are resumed with the same settings only, whatever a kill has left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpt2.errors import UserError
from gpt2.jsonl import RecordFile

SETTINGS = {"length": 3, "logit_bias": {5: 1.0}, "stop": ("a",)}


def write(path: Path, *numbers: int) -> None:
    with RecordFile(path, SETTINGS, read=lambda record: record["number"]) as file:
        for number in numbers:
            file.append({"number": number, "text": "é\u2028"})


def test_a_file_is_resumed_after_its_last_complete_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, 1, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    file = RecordFile(path, SETTINGS, read=lambda record: record["number"])
    assert file.records == [1, 2]
    write(path, 3)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["number"] for line in lines[:-1]] == [1, 2, 3]
    assert json.loads(lines[2])["settings"] == json.loads(json.dumps(SETTINGS))


def test_a_file_can_be_opened_several_times(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "out.jsonl", SETTINGS, read=dict, key="origin")
    assert not file.records and not (tmp_path / "out.jsonl").exists()
    for number in (1, 2):
        with file:
            file.append({"number": number})
    again = RecordFile(tmp_path / "out.jsonl", SETTINGS, read=dict, key="origin")
    assert [record["number"] for record in again.records] == [1, 2]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"length": 4}, r"out\.jsonl line 1: .*length 3, not 4"),
        ({"seed": 1}, r"out\.jsonl line 1: .*seed None, not 1"),
        ({"logit_bias": {}}, r"out\.jsonl line 1: .*logit_bias \{'5': 1\.0\}, not \{\}"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, changed: dict, sentence: str) -> None:
    write(tmp_path / "out.jsonl", 1)
    with pytest.raises(UserError, match=sentence):
        RecordFile(tmp_path / "out.jsonl", SETTINGS | changed, read=dict)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "1", "{}", '{"settings": 3, "number": 1}', '{"settings": "ab"}', "[" * 10**5],
)
def test_a_line_that_is_not_a_record_is_refused_by_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "out.jsonl"
    write(path, 1)
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=r"out\.jsonl line 2: not a sample"):
        RecordFile(path, SETTINGS, read=lambda record: record["number"])


def test_settings_that_earlier_versions_did_not_record_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write(path, 1)
    new = SETTINGS | {"model_fingerprint": "a"}
    with pytest.raises(UserError, match="model_fingerprint None, not 'a'"):
        RecordFile(path, new, read=dict)
    with RecordFile(path, new, read=dict, later=["model_fingerprint"]) as file:
        assert file.unknown == {"model_fingerprint"}
        file.append({"number": 2})
    with pytest.raises(UserError, match=r"line 2: .*model_fingerprint 'a', not 'b'\. Advice"):
        other = SETTINGS | {"model_fingerprint": "b"}
        RecordFile(path, other, read=dict, later=["model_fingerprint"], advice="Advice")


def test_overwriting_deletes_other_records_when_the_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("something else\n")
    file = RecordFile(path, SETTINGS, read=dict, overwrite=True)
    assert not file.records and path.read_text() == "something else\n"
    for number in (1, 2):  # the second time, its own record stays
        with file:
            file.append({"number": number})
    assert [record["number"] for record in RecordFile(path, SETTINGS, read=dict).records] == [1, 2]


def test_every_line_is_valid_json_in_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with RecordFile(path, {"stop": "\ud800"}, read=dict) as file:
        file.append({"text": "é"})
        for number in (float("nan"), float("inf")):
            with pytest.raises(UserError, match="finite"):
                file.append({"logprob": number})
    (record,) = RecordFile(path, {"stop": "\ud800"}, read=dict).records
    assert record == {"text": "é", "settings": {"stop": "\ud800"}}


@pytest.mark.parametrize("content", ["my only copy of a poem", '{"a": 1}', "[1,2,3]", "x" * 9000])
def test_a_file_of_one_unfinished_line_that_is_no_record_is_kept(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "poem.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=r"poem\.txt.*not samples"):
        RecordFile(path, {}, lambda record: record)
    assert path.read_text() == content


def test_the_start_of_a_first_record_that_a_kill_cut_off_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"number": 1, "sample": 0, "pro')
    with RecordFile(path, {}, lambda record: record) as records:
        records.append({"number": 1})
    assert path.read_text() == '{"number": 1, "settings": {}}\n'


def test_a_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a file"):
        RecordFile(Path(os.devnull), {}, lambda record: record)
