"""Combinations of settings, and the files in which their samples are kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from gpt2.errors import UserError
from gpt2.evaluation.grid import Combination, CombinationFile, Origin, combinations
from gpt2.evaluation.samples import read_samples

ONE = Combination(temperature=0.5, top_k=3, top_p=1.0, repetition_penalty=1.0, length=4)
ORIGIN = Origin(model="abc", quantize="none", prompt="", seed=1)


def record(number: int, **changes: Any) -> dict[str, Any]:
    """A sample as it is kept."""
    return {
        "number": number,
        "prompt": "",
        "text": f"text {number}",
        "tokens": 3,
        "finish_reason": "length",
        "logprob": -6.0,
        "settings": {},
        "origin": {"model": "abc", "quantize": "none", "prompt": "", "seed": 1},
    } | changes


def written(folder: Path, *records: object, end: str = "\n") -> CombinationFile:
    """A file with these lines."""
    lines = "\n".join(map(json.dumps, records))
    (folder / f"{ONE.name}.jsonl").write_text(lines + end)
    return CombinationFile(folder, ONE, ORIGIN)


def varied(**changes: Any) -> list[Combination]:
    plain = {"temperature": [1], "top_k": [0], "top_p": [1], "repetition_penalty": [1]}
    return combinations(**(plain | {"length": [5]} | changes))


def test_every_combination_comes_once() -> None:
    found = varied(temperature=[0.5, 1, 1.0], length=[5, 10])
    assert [(one.temperature, one.length) for one in found] == [
        (0.5, 5),
        (0.5, 10),
        (1.0, 5),
        (1.0, 10),
    ]
    assert found[2].name == "temperature-1.0_top_k-0_top_p-1.0_repetition_penalty-1.0_length-5"
    assert len({one.name for one in found}) == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"temperature": [1, "hot"]}, "temperature .*at least 0"),
        ({"temperature": [-0.1]}, "temperature .*at least 0"),
        ({"top_k": [1.5]}, "top_k"),
        ({"top_p": [0.9, 1.1]}, "top_p"),
        ({"length": [-1]}, "length"),
        ({"length": [True]}, "length"),
        ({"top_k": []}, "top_k: no value"),
    ],
)
def test_values_that_make_no_sense_are_told(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        varied(**changes)


def test_what_is_missing_is_what_no_whole_line_has(tmp_path: Path) -> None:
    assert CombinationFile(tmp_path, ONE, ORIGIN).missing(2) == [0, 1]
    file = written(tmp_path, record(2), record(0), record(3), end='\n{"number": 1, "te')
    assert file.missing(4) == [1]
    assert file.missing(1) == []
    assert file.texts(1) == ["text 0"]


def test_perplexity_by_hand(tmp_path: Path) -> None:
    ended = record(1, tokens=1, finish_reason="endoftext", logprob=-4)
    file = written(tmp_path, record(0), ended, record(2))
    # 6 nats for three tokens; 4 for one and the end of text; the third does not count here.
    assert file.perplexity(2) == pytest.approx(math.exp(10 / 5))
    assert written(tmp_path, record(0, tokens=0, logprob=0)).perplexity(1) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 2}, "seed 2, not 1"),
        ({"prompt": "The"}, "prompt 'The', not ''"),
        ({"quantize": "int8"}, "quantize 'int8', not 'none'"),
        ({"model": "def"}, "model 'def', not 'abc'"),
    ],
)
def test_samples_of_another_origin_are_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    other = record(1)["origin"] | change
    with pytest.raises(UserError, match=f"line 2: .*{sentence}"):
        written(tmp_path, record(0), record(1, origin=other))


@pytest.mark.parametrize(
    "line", [{"text": "a"}, [1], {**record(0), "number": "x"}, record(0, origin={})]
)
def test_a_file_that_is_not_of_a_grid_is_refused(tmp_path: Path, line: object) -> None:
    with pytest.raises(UserError, match=r"length-4\.jsonl line 2: (not a sample|generated with)"):
        written(tmp_path, record(0), line)


def test_its_samples_are_read_like_any_others(tmp_path: Path) -> None:
    file = written(tmp_path, record(0), record(1, text=""))
    assert read_samples(file.path) == file.texts(2) == ["text 0", ""]
