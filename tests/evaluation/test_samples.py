"""Every form in which samples are written is read, and what holds none is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.evaluation.samples import read_samples, run_samples

TRAINED = """======== SAMPLE 1 ========
first
 two lines

======== SAMPLE 2 ========


======== SAMPLE 3 ========
third = last
"""
SHOWN = f"""Model prompt >>> {"=" * 40} SAMPLE 1 {"=" * 40}
not a sample's line: it does not begin with one
{"=" * 40} SAMPLE 2 {"=" * 40}
one
{"=" * 80}
Model prompt >>> {"=" * 40} SAMPLE 1 {"=" * 40}
{"=" * 40} SAMPLE 1 {"=" * 40}
two
{"=" * 80}
"""
SIMPLE = f"one\n{'=' * 20}\ntwo\nlines\n{'=' * 20}\n\n{'=' * 20}\n"
LINES = "".join(
    json.dumps({"text": text, "prompt": "of no interest"}, ensure_ascii=False) + "\n"
    for text in ("one\n", "", "line\N{LINE SEPARATOR}separator")
)


@pytest.mark.parametrize(
    ("content", "samples"),
    [
        (TRAINED, ["first\n two lines", "", "third = last"]),
        (SHOWN, ["one", "two"]),
        (SIMPLE, ["one", "two\nlines", ""]),
        (SIMPLE.rpartition("\n\n")[0], ["one", "two\nlines"]),
        (f"one\n{'=' * 20}\ntwo\n", ["one", "two"]),
        (LINES, ["one\n", "", "line\N{LINE SEPARATOR}separator"]),
        (LINES.rstrip("\n"), ["one\n", "", "line\N{LINE SEPARATOR}separator"]),
        (LINES + '{"text": "cut o', ["one\n", "", "line\N{LINE SEPARATOR}separator"]),
        ("{\n  a brace\n}\n", ["{\n  a brace\n}"]),
        (f"a line of {'=' * 20}\n{'=' * 19}\n", [f"a line of {'=' * 20}\n{'=' * 19}"]),
        ("\ufeffWindows\r\nlines\r\n", ["Windows\nlines"]),
    ],
)
def test_the_samples_of_a_file(tmp_path: Path, content: str, samples: list[str]) -> None:
    path = tmp_path / "samples"
    path.write_bytes(content.encode())
    assert read_samples(path) == samples


def test_samples_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    path.write_bytes("café".encode("latin-1"))
    assert read_samples(path, ReaderSettings("latin-1")) == ["café"]
    with pytest.raises(UserError, match="samples"):
        read_samples(path)


@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff"])
def test_a_file_without_samples_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "none.txt").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"none\.txt: no samples"):
        read_samples(tmp_path / "none.txt")


@pytest.mark.parametrize("line", ['{"prompt": "a"}', '{"text": 3}', "[1]", "plain", '{"text": "a'])
def test_a_line_of_json_without_a_text_is_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{line}\n{{"text": "b"}}\n')
    with pytest.raises(UserError, match=r"samples\.jsonl line 3: not a JSON object"):
        read_samples(path)


def test_the_samples_of_a_run_come_in_the_order_of_steps(tmp_path: Path) -> None:
    for name in ("samples-20", "samples-100", "samples-3", "samples-x", "other-4"):
        (tmp_path / name).touch()
    assert [path.name for path in run_samples(tmp_path)] == [
        "samples-3",
        "samples-20",
        "samples-100",
    ]
    for folder in (tmp_path / "gone", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(
            UserError, match=f"{re.escape(str(folder))}: no samples .*--sample_every"
        ):
            run_samples(folder)


def test_a_folder_named_like_a_sample_file_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "samples-5").mkdir()
    with pytest.raises(UserError, match="no samples found"):
        run_samples(tmp_path)
    (tmp_path / "samples-3").write_text("a")
    (tmp_path / f"samples-{'9' * 200}").write_text("a")  # more digits than a step has
    assert run_samples(tmp_path) == [tmp_path / "samples-3"]
