"""The five numbers, as OpenAI's files have them, and the tensors they imply."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from gpt2.checks import setting_of
from gpt2.errors import UserError
from gpt2.hparams import RELEASED, HParams


@pytest.mark.parametrize(
    ("n_layer", "n_embd", "n_head", "parameters"),
    [
        # What the released files hold.
        (12, 768, 12, 124_439_808),
        (24, 1024, 16, 354_823_168),
        (36, 1280, 20, 774_030_080),
        (48, 1600, 25, 1_557_611_200),
    ],
)
def test_released_models_have_the_parameters_they_are_known_for(
    n_layer: int, n_embd: int, n_head: int, parameters: int
) -> None:
    hparams = HParams(n_embd=n_embd, n_head=n_head, n_layer=n_layer)
    hparams.check()
    assert hparams.parameters == parameters
    assert len(hparams.tensor_shapes()) == 4 + 12 * n_layer
    assert f"{round(parameters / 1e6)}M" == RELEASED[n_layer, n_embd]


def test_tensors_come_in_the_order_of_the_file() -> None:
    names = list(HParams(n_layer=12).tensor_shapes())
    assert names == sorted(names)
    assert [name.split("/")[1] for name in names[::12]][:5] == ["h0", "h1", "h10", "h11", "h2"]
    assert names[-4:] == ["model/ln_f/b", "model/ln_f/g", "model/wpe", "model/wte"]


def test_openais_file_is_read(shared_data: Path) -> None:
    assert HParams.load(shared_data / "openai-117M-index" / "hparams.json") == HParams()


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    hparams = HParams(n_vocab=61, n_ctx=16, n_embd=24, n_head=3, n_layer=2)
    hparams.save(tmp_path / "hparams.json")
    assert HParams.load(tmp_path / "hparams.json") == hparams
    assert json.loads((tmp_path / "hparams.json").read_text()) == {
        "n_vocab": 61,
        "n_ctx": 16,
        "n_embd": 24,
        "n_head": 3,
        "n_layer": 2,
    }


def test_numbers_left_out_keep_gpt2s_and_unknown_ones_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "hparams.json"
    path.write_text('{"n_layer": 3, "precision": "float32", "n_ctx": 50}')
    assert HParams.load(path) == HParams(n_layer=3, n_ctx=50)


@pytest.mark.parametrize("name", ["n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"])
@pytest.mark.parametrize(
    "value", ["0", "-1", "12.0", '"12"', "true", "null", "[12]", "NaN", "16777217", "1" + "0" * 400]
)
def test_a_bad_number_is_named_with_its_file(tmp_path: Path, name: str, value: str) -> None:
    path = tmp_path / "hparams.json"
    path.write_text(f'{{"{name}": {value}}}')
    shown = re.escape(value.replace('"', "'").capitalize() if value.islower() else value)[:40]
    shown = {"NaN": "nan", '"12"': "'12'", "null": "None"}.get(value, shown)
    with pytest.raises(UserError, match=rf"hparams\.json: {name} .*from 1 to [\d,]+, not {shown}"):
        HParams.load(path)


@pytest.mark.parametrize(
    ("name", "largest"),
    [("n_layer", 1000), ("n_ctx", 2**20), ("n_embd", 2**16), ("n_vocab", 2**24)],
)
def test_the_largest_plausible_number_is_taken_and_one_more_is_not(name: str, largest: int) -> None:
    small = HParams(n_vocab=5, n_ctx=5, n_embd=1, n_head=1, n_layer=1)
    dataclasses.replace(small, **{name: largest}).check()
    with pytest.raises(UserError, match=f"{name} .*from 1 to {largest:,}, not {largest + 1}"):
        dataclasses.replace(small, **{name: largest + 1}).check()


def test_a_model_of_more_than_a_million_million_parameters_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hparams.json"
    path.write_text('{"n_embd": 65536, "n_head": 1, "n_layer": 1000}')
    with pytest.raises(UserError, match=r"n_embd \(65536\).*n_layer \(1000\).*1,000,000,000,000"):
        HParams.load(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_saved_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "hparams.json"
    path.write_bytes('{\r\n"n_layer": 3\r\n}'.encode(encoding))
    assert HParams.load(path) == HParams(n_layer=3)


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path: Path) -> None:
    hparams = HParams(n_layer=np.int64(3))
    hparams.check()
    hparams.save(tmp_path / "hparams.json")
    assert HParams.load(tmp_path / "hparams.json") == HParams(n_layer=3)


def test_every_number_says_what_it_is_for_flags() -> None:
    for field in dataclasses.fields(HParams):
        assert setting_of(field).help
    declared = {field.name: setting_of(field) for field in dataclasses.fields(HParams)}
    assert declared["n_ctx"].help == "context window (tokens)"
    assert "divide n_embd" in declared["n_head"].help


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    HParams(n_embd=24, n_head=8).check()
    path = tmp_path / "hparams.json"
    path.write_text('{"n_embd": 24, "n_head": 5}')
    with pytest.raises(UserError, match=r"hparams\.json: n_embd \(24\) .*n_head \(5\)"):
        HParams.load(path)
