"""Exported files load with the Hugging Face libraries, where these are installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.checkpoint.run import RunFolder
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.interop import from_huggingface, hub_tokenizer, model_card, safetensors_file
from gpt2.interop import to_huggingface as to_hf
from gpt2.interop.from_huggingface import ReadingOptions
from gpt2.interop.weights import open_model_folder
from gpt2.tokenizer import train_vocabulary
from gpt2.training import run_log

TEXT = "the cat sat on the mat, and the hat sat on the cat. " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A small model with a vocabulary of its own and two special tokens."""
    tokens, merges = train_vocabulary([TEXT], 280, special_tokens=["<|poem|>"])
    hparams = HParams(n_vocab=len(tokens), n_ctx=8, n_embd=8, n_head=2, n_layer=2)
    random = np.random.default_rng(3)
    weights = {
        name: random.normal(size=shape).astype(np.float32)
        for name, shape in hparams.tensor_shapes().items()
    }
    path = tmp_path_factory.mktemp("models") / "small"
    write_model_folder(path, hparams, tokens, merges, weights)
    return ModelFolder(path)


def write(path: Path, folder: ModelFolder, dtype: str = "fp32", overwrite: bool = False) -> Path:
    to_hf.write(path, open_model_folder(folder), "---\n---\n", dtype, overwrite)
    return path


def test_a_model_is_the_same_after_both_ways(tmp_path: Path, folder: ModelFolder) -> None:
    back = from_huggingface.open_model(write(tmp_path / "out", folder), ReadingOptions())
    assert back.hparams == folder.hparams
    assert back.vocabulary == folder.tokenizer().vocabulary
    assert back.merges == folder.tokenizer().merges
    for name, values in folder.weights().items():
        np.testing.assert_array_equal(back.read(name), values)


@pytest.mark.parametrize(("dtype", "bits"), [("fp16", 11), ("bf16", 8)])
def test_a_smaller_type_rounds_to_its_precision(
    dtype: str, bits: int, tmp_path: Path, folder: ModelFolder
) -> None:
    out = write(tmp_path / "out", folder, dtype)
    back = from_huggingface.open_model(out, ReadingOptions())
    for name, values in folder.weights().items():
        np.testing.assert_allclose(back.read(name), values, rtol=2.0**-bits, atol=1e-7)
    written = json.loads((out / "config.json").read_text())["torch_dtype"]
    assert written == to_hf.DTYPES[dtype]


def test_a_value_beyond_a_types_range_is_refused_by_its_tensor(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"wte.*70000.*float16"):
        safetensors_file.write(
            tmp_path / "m.safetensors", {"wte": (1,)}, "float16", lambda name: np.float32([7e4])
        )
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_read_by_the_safetensors_package(tmp_path: Path, folder: ModelFolder) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    found = safetensors.load_file(write(tmp_path / "out", folder) / "model.safetensors")
    weights = folder.weights()
    assert len(found) == len(weights)  # the head is not stored twice
    np.testing.assert_array_equal(found["transformer.wte.weight"], weights["model/wte"])
    np.testing.assert_array_equal(
        found["transformer.h.1.attn.c_attn.weight"], weights["model/h1/attn/c_attn/w"][0]
    )
    np.testing.assert_array_equal(found["transformer.ln_f.weight"], weights["model/ln_f/g"])


def test_the_file_of_the_safetensors_package_is_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = {
        "a": np.arange(6, dtype=np.float16).reshape(2, 3),
        "b": np.float64([0.5]),
        "c": np.float32([]).reshape(0, 2),
        "d": np.array([True]),
    }
    safetensors.save_file(arrays, tmp_path / "m.safetensors", {"format": "np"})
    found = safetensors_file.read(tmp_path / "m.safetensors")
    assert found.keys() == arrays.keys()
    for name in "abc":
        np.testing.assert_array_equal(found[name].read(name), arrays[name].astype(np.float32))
    with pytest.raises(UserError, match="tensor d is bool"):
        found["d"].read("d")


def test_an_output_that_exists_is_replaced_only_if_asked_for(
    tmp_path: Path, folder: ModelFolder
) -> None:
    out = write(tmp_path / "out", folder)
    with pytest.raises(UserError, match="already exists"):
        write(out, folder)
    write(out, folder, overwrite=True)
    (out / "diary.txt").write_text("kept")
    with pytest.raises(UserError, match=r"diary\.txt"):
        write(out, folder, overwrite=True)
    assert (out / "diary.txt").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_merge_without_its_token_is_refused_before_anything_is_written(
    tmp_path: Path, folder: ModelFolder
) -> None:
    model = open_model_folder(folder)
    token = "".join(model.merges[0])
    del model.vocabulary[token]
    with pytest.raises(UserError, match="has no token"):
        to_hf.write(tmp_path / "out", model, "")
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_without_endoftext_names_none(tmp_path: Path) -> None:
    tokens, merges = train_vocabulary([TEXT], 270)
    tokens = {token: number for token, number in tokens.items() if token != "<|endoftext|>"}
    hub_tokenizer.write(tmp_path, tokens, merges, 8)
    config = files.read_json_object(tmp_path / "tokenizer_config.json")
    assert "eos_token" not in config
    assert config["tokenizer_class"] != "GPT2Tokenizer"  # which would add the token


# --- the model card ---


def a_run(path: Path, folder: ModelFolder) -> ModelFolder:
    """A run of 20 steps that was validated twice."""
    run = RunFolder(path)
    run.adopt(folder)
    run.save(20, folder.weights(), folder.hparams)
    facts = {"files": 1, "bytes": 1234, "changed": 5, "sha256": "ab" * 32}
    flags = {"model_name": "117M", "dataset": "data/poems|1.txt"}
    run_log.add_call(path, flags=flags, steps_before=0, data={"data/poems|1.txt": facts})
    history = [{"step": n, "loss": 3.0, "average": 3.0} for n in range(1, 21)]
    history += [{"step": 10, "val_loss": 4.0}, {"step": 20, "val_loss": 2.0}]
    (path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    return ModelFolder(path)


def test_the_card_has_the_facts_of_the_run(tmp_path: Path, folder: ModelFolder) -> None:
    run = a_run(tmp_path / "run1", folder)
    card = model_card.model_card("run1", run, model_card.run_facts(run))
    for fact in ("117M", "20", "ab" * 32, "2.0000", "7.39", r"poems\|1.txt", "Fill in the license"):
        assert fact in card


def test_the_front_matter_is_what_the_hub_expects(tmp_path: Path, folder: ModelFolder) -> None:
    yaml = pytest.importorskip("yaml")
    run = a_run(tmp_path / "run1", folder)
    card = model_card.model_card("run1", run, model_card.run_facts(run))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["base_model"] == "openai-community/gpt2"
    assert front["pipeline_tag"] == "text-generation"
    (result,) = front["model-index"][0]["results"]
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics == {"loss": 2.0, "perplexity": pytest.approx(np.exp(2), abs=1e-3)}
    assert result["dataset"]["name"] == "poems|1.txt"
    hub = pytest.importorskip("huggingface_hub")
    (evaluated, _) = hub.ModelCard(card).data.eval_results
    assert evaluated.metric_value == 2.0


def test_a_model_without_a_run_has_a_card_of_its_sizes(folder: ModelFolder) -> None:
    card = model_card.model_card("small", folder, model_card.run_facts(folder))
    assert "| layers | 2 |" in card
    assert "training steps" not in card
