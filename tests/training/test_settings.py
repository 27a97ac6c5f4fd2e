"""Settings of a step are checked in one sentence, before TensorFlow is loaded."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.training.settings import TrainerSettings

SIZES = HParams(n_vocab=50, n_ctx=8, n_embd=16, n_head=2, n_layer=12)
SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"optimizer": "adamant"}, "no optimizer 'adamant'; there are adam, adamw, sgd, adafactor"),
        ({"lr_schedule": "step"}, "no lr_schedule 'step'; there are constant, linear, cosine"),
        ({"precision": "fp8"}, "no precision 'fp8'; there are fp32, bf16, fp16, auto"),
        ({"learning_rate": 0.0}, "learning_rate should be a number above 0, not 0.0"),
        ({"learning_rate": math.nan}, "learning_rate should be a number above 0, not nan"),
        ({"learning_rate": math.inf}, "learning_rate should be a number above 0, not inf"),
        ({"clip_norm": 0.0}, "clip_norm should be a number above 0"),
        ({"lora_alpha": -1.0}, "lora_alpha should be a number above 0"),
        ({"weight_decay": -0.1}, "weight_decay should be a number of at least 0, not -0.1"),
        ({"weight_decay": math.nan}, "weight_decay should be a number of at least 0, not nan"),
        ({"dropout": 1.0}, "dropout should be at least 0 and below 1, not 1.0"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum should be at least 0 and below 1"),
        ({"momentum": 0.9}, "momentum is for the optimizer sgd, and adam has its own"),
        ({"noise": 1.5}, "noise should be a share from 0 to 1, not 1.5"),
        ({"warmup_steps": -1}, "warmup_steps should be a whole number of at least 0"),
        ({"lora_rank": -1}, "lora_rank should be a whole number of at least 0"),
        ({"lr_schedule": "cosine"}, "cosine needs to know when the training ends.*--max_steps"),
        (
            {"lr_schedule": "linear", "schedule_steps": 10, "warmup_steps": 10},
            "warm-up of 10 steps leaves nothing of a training of 10; give fewer",
        ),
        ({"train_layers": ""}, "train_layers should be numbers and rising ranges.*not ''"),
        ({"train_layers": "eight"}, "such as 8-11 or 0,5-7, not 'eight'"),
        ({"train_layers": "7-5"}, "rising ranges of layers.*not '7-5'"),
        ({"train_layers": "1,,2"}, "not '1,,2'"),
        ({"train_layers": "-1"}, "not '-1'"),
        ({"train_layers": "²"}, "not '²'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        TrainerSettings(**settings)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"train_layers": "8-12"}, "train_layers asks for layer 12.*layers are 0 to 11"),
        ({"lora_rank": 17}, "lora_rank is 17.*no more than rank 16"),
    ],
)
def test_what_the_model_does_not_have_is_refused(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        TrainerSettings(**settings).trained_tensors(SIZES)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("3", {3}), ("8-11", {8, 9, 10, 11}), ("0,5-7", {0, 5, 6, 7}), (" 1 - 2 , 2", {1, 2})],
)
@pytest.mark.parametrize("blocks_only", [False, True])
def test_only_the_named_layers_are_trained(
    layers: str, expected: set[int], blocks_only: bool
) -> None:
    settings = TrainerSettings(train_layers=layers, only_train_transformer_layers=blocks_only)
    names = settings.trained_tensors(SIZES)
    assert len(names) == 12 * len(expected)
    assert {name.split("/")[1] for name in names} == {f"h{layer}" for layer in expected}


def test_lora_trains_the_four_matrices_of_each_chosen_layer() -> None:
    names = TrainerSettings(lora_rank=4, train_layers="2").trained_tensors(SIZES)
    matrices = ["attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj"]
    assert names == [f"model/h2/{matrix}/w" for matrix in matrices]
    assert len(TrainerSettings(lora_rank=4).trained_tensors(SIZES)) == 12 * 4


def test_everything_is_trained_unless_told_otherwise() -> None:
    assert TrainerSettings().trained_tensors(SIZES) == list(SIZES.tensor_shapes())


def test_settings_and_schedules_do_without_tensorflow() -> None:
    code = "import sys, gpt2.training.settings; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=SOURCE, check=True)
