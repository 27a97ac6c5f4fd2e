"""The commands of convert for TensorFlow 1, GGUF, SavedModel and LiteRT, and info and compare."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.commands.toolkit_copy import Home, Toolkit

CONVERT = "python src/convert.py"


def test_a_model_goes_to_every_format_and_back(toolkit: Toolkit) -> None:
    """In one process, which imports TensorFlow once."""
    pytest.importorskip("gguf")
    folder = toolkit.root / "checkpoint" / "run1"
    shutil.copytree(toolkit.root / "models" / "117M", folder)
    (folder / "hparams.json").unlink()
    lines = {
        "tf1": "from_tf1 checkpoint/run1 old --n_head 2",
        "gguf": "to_gguf 117M out.gguf --type f32",
        "q8_0": "to_gguf 117M small.gguf --type q8_0",
        "from_gguf": "from_gguf out.gguf models/back",
        "same": "compare 117M back --json",
        "same file": "compare old out.gguf",
        "different": "compare 117M small.gguf",
        "savedmodel": "to_savedmodel 117M serving/1",
        "info": "info 117M --json",
        "table": "info back",
    }
    (toolkit.root / "serving").mkdir()
    dones = toolkit.run_in_one_process(*(f"{CONVERT} {line}" for line in lines.values()))
    done = dict(zip(lines, dones, strict=True))
    for each in dones:
        assert each.code == 0, each
    data = "model.ckpt.data-00000-of-00001"
    original = (toolkit.root / "models" / "117M" / data).read_bytes()
    for name in ("old", "back"):
        assert (toolkit.root / "models" / name / data).read_bytes() == original
    assert "n_head 2 as given" in done["tf1"].err
    assert "parameters" in done["from_gguf"].out
    compared = json.loads(done["same"].out)
    assert compared["same_weights"] and compared["same_vocabulary"] and compared["same_hparams"]
    assert "Same weights: 16 tensors are equal" in done["same file"].out
    assert "model/wte" in done["different"].out or "tensors differ" in done["different"].out
    assert (toolkit.root / "serving" / "1" / "saved_model.pb").is_file()
    described = json.loads(done["info"].out)
    assert described["hparams"]["n_embd"] == 16 and len(described["tensors"]) == 16
    assert "transformers, CTranslate2, vLLM" in described["loads_in"]
    assert "model/h0/attn/c_attn/w" in done["table"].out and "1x16x48" in done["table"].out


REFUSED = {
    "to_gguf 117M out.gguf --type q5_0": (2, "--type must be one of f32, f16, bf16, q8_0, q4_0"),
    "to_gguf 117M": (2, "OUT.gguf"),
    "to_gguf nobody out.gguf": (1, "no model 'nobody'"),
    "to_gguf 117M there.gguf": (1, "there.gguf: exists already.*--overwrite"),
    "to_gguf 117M models/117M/hparams.json --overwrite": (2, "must end in .gguf"),
    "to_gguf 117M none/out.gguf": (1, "there is no folder"),
    "from_gguf text.txt new": (1, "text.txt: not a GGUF file"),
    "from_gguf none.gguf new": (1, "none.gguf cannot be read"),
    "from_gguf text.txt 117M": (1, "117M.*already exists"),
    "from_tf1 none new": (1, "none: not a checkpoint"),
    "from_tf1 models new": (1, "no checkpoint in the folder models"),
    "from_tf1 models/117M new --n_head 3": (1, "divisible by n_head .3"),
    "from_tf1 models/117M new --vocabulary nobody": (1, "no model 'nobody'"),
    "from_tf1 models/117M 117M": (1, "117M.*already exists"),
    "from_tf1 models/117M models/117M --overwrite": (1, "117M: holds the checkpoint to convert"),
    "from_tf1 models/117M ''": (1, "output without a name"),
    "to_savedmodel 117M -": (1, "cannot be standard output"),
    "to_savedmodel 117M text.txt/out": (1, "text.txt is not a folder"),
    "to_litert 117M ''": (1, "output without a name"),
    "to_hf 117M -": (1, "cannot be standard output"),
    "from_hf models/none new": (1, "models/none: there is no such folder or file"),
    "to_savedmodel 117M models": (1, "models cannot be written"),
    "to_litert 117M models --overwrite": (1, "models cannot be written"),
    "to_litert 117M out --quantize int4": (2, "--quantize must be one of none, int8"),
    "info nobody": (1, "no model 'nobody'"),
    "compare 117M none.gguf": (1, "none.gguf cannot be read"),
    "compare 117M": (2, "MODEL_B"),
}


@pytest.fixture(scope="module")
def refusals(home: Home, no_tensorflow: str) -> dict[str, object]:
    (home.toolkit.root / "there.gguf").touch()
    before = home.toolkit.contents("models")
    dones = home.toolkit.run_in_one_process(*(f"{no_tensorflow} {CONVERT} {r}" for r in REFUSED))
    assert home.toolkit.contents("models") == before
    return dict(zip(REFUSED, dones, strict=True))


@pytest.mark.parametrize("line", REFUSED)
def test_bad_input_is_one_sentence_without_tensorflow(refusals: dict, line: str) -> None:
    refusals[line].says(*REFUSED[line])
