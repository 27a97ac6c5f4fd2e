"""convert to_peft and from_peft from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2.checkpoint.folder import ModelFolder
from tests.commands.toolkit_copy import Home, Toolkit

CONVERT = "python src/convert.py"
TRAIN = "python src/train.py --dataset text.npz --batch_size 2 --learning_rate 0.02 --save_every 4"
LORA = f"{TRAIN} --run_name low --lora_rank 2 --lora_alpha 3"


@pytest.fixture(scope="module")
def runs(home: Home) -> Path:
    """Folder with the run `low`, trained with LoRA, and the run `full`, trained without."""
    toolkit = home.toolkit
    for done in toolkit.run_all(f"{LORA} --max_steps 5", f"{TRAIN} --run_name full --max_steps 1"):
        assert done.code == 0, done
    return toolkit.root / "checkpoint"


@pytest.fixture
def adapted(toolkit: Toolkit, runs: Path) -> Toolkit:
    """A copy of the toolkit with both runs."""
    for name in ("low", "full"):
        shutil.copytree(runs / name, toolkit.root / "checkpoint" / name)
    return toolkit


def test_a_run_is_the_same_model_after_both_ways(adapted: Toolkit) -> None:
    done = adapted.run(f"{CONVERT} to_peft low adapter").succeeds()
    assert "Wrote adapter, a LoRA adapter" in done.out
    config = json.loads((adapted.root / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 3)
    assert config["base_model_name_or_path"] == "openai-community/gpt2"  # train's default
    adapted.run(f"{CONVERT} from_peft adapter models/merged").succeeds()
    expected = ModelFolder(adapted.root / "checkpoint" / "low").weights()
    base = ModelFolder(adapted.root / "models" / "117M").weights()
    for name, values in ModelFolder(adapted.root / "models" / "merged").weights().items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)
        assert name.endswith("/w") != np.array_equal(values, base[name])
    sample = "python src/generate_unconditional_samples.py --model_name merged --nsamples 1"
    adapted.run(f"{sample} --length 5 --seed 1").succeeds()


def test_an_earlier_checkpoint_has_an_adapter_of_its_own(adapted: Toolkit) -> None:
    for name, out in (("low/model-4", "earlier"), ("low/model-5", "last")):
        adapted.run(f"{CONVERT} to_peft {name} {out}").succeeds()
    earlier, last = (
        (adapted.root / out / "adapter_model.safetensors").read_bytes()
        for out in ("earlier", "last")
    )
    assert earlier != last


def test_an_adapter_that_exists_needs_overwrite(adapted: Toolkit) -> None:
    adapted.run(f"{CONVERT} to_peft low adapter").succeeds()
    adapted.run(f"{CONVERT} to_peft low adapter").says(1, "already exists")
    adapted.run(f"{CONVERT} to_peft low adapter --overwrite").succeeds()


def test_what_cannot_be_converted_is_one_sentence_and_writes_nothing(adapted: Toolkit) -> None:
    root = adapted.root
    shutil.copytree(root / "checkpoint" / "low", root / "checkpoint" / "stateless")
    for path in (root / "checkpoint" / "stateless").glob("state-*"):
        path.unlink()
    adapted.run(f"{CONVERT} to_peft low adapter").succeeds()
    shutil.copytree(root / "adapter", root / "other")
    config = root / "other" / "adapter_config.json"
    config.write_text(config.read_text().replace("openai-community/gpt2", "someone/model"))
    for words, code, sentence in (
        ("to_peft full out", 1, "trained without LoRA"),
        ("to_peft 117M out", 1, "no resume state"),
        ("to_peft stateless out", 1, "no resume state"),
        ("to_peft low out --base full", 1, "is not the model that .* was trained from"),
        ("to_peft low out --base nothing", 1, "no model 'nothing'"),
        ("to_peft low", 2, "missing: OUT"),
        ("from_peft nowhere out", 1, "nowhere: there is no such folder"),
        ("from_peft models/117M out", 1, "adapter_config.json is missing"),
        ("from_peft other out", 1, "names the base model 'someone/model'. Set base"),
        ("from_peft adapter models/117M", 1, "already exists"),
        ("from_peft adapter", 2, "missing: NAME"),
    ):
        adapted.run(f"{CONVERT} {words}").says(code, sentence)
    assert not (root / "out").exists()
    assert not (root / "models" / "out").exists()


def test_a_run_of_a_base_model_that_changed_is_refused(adapted: Toolkit) -> None:
    shutil.rmtree(adapted.root / "models" / "117M")
    shutil.copytree(adapted.root / "checkpoint" / "full", adapted.root / "models" / "117M")
    adapted.run(f"{CONVERT} to_peft low adapter").says(1, "was trained from.*Set base")
    assert not (adapted.root / "adapter").exists()
