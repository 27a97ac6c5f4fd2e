"""Settings of a training are checked in one sentence, without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2.checks import LARGEST_COUNT
from gpt2.commands import train
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Option, build
from gpt2.data.datasets import DatasetSettings
from gpt2.errors import UserError
from gpt2.generation.completions import LONGEST
from gpt2.hparams import HParams
from gpt2.training.memory import estimate
from gpt2.training.session import training_settings
from gpt2.training.settings import LoopSettings, TrainerSettings, learning_rate

SIZES = HParams(n_vocab=50, n_ctx=8, n_embd=16, n_head=2, n_layer=12)
SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"optimizer": "adamant"}, "optimizer .*adam, adamw, sgd, adafactor, not 'adamant'"),
        ({"lr_schedule": "step"}, "lr_schedule .*constant, linear, cosine, not 'step'"),
        ({"precision": "fp8"}, "precision .*fp32, bf16, fp16, auto, not 'fp8'"),
        ({"learning_rate": 0.0}, "learning_rate .*above 0, not 0.0"),
        ({"learning_rate": math.nan}, "learning_rate .*above 0, not nan"),
        ({"learning_rate": math.inf}, "learning_rate .*above 0 and at most 3.4e.38, not inf"),
        ({"clip_norm": 0.0}, "clip_norm .*above 0, not 0.0"),
        ({"lora_alpha": -1.0}, "lora_alpha .*above 0, not -1.0"),
        ({"weight_decay": -0.1}, "weight_decay .*at least 0, not -0.1"),
        ({"weight_decay": math.nan}, "weight_decay .*at least 0, not nan"),
        ({"dropout": 1.0}, "dropout .*at least 0 and below 1, not 1.0"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum .*at least 0 and below 1"),
        ({"momentum": 0.9}, "momentum .* sgd; adam has its own"),
        ({"noise": 1.5}, "noise .*from 0 to 1, not 1.5"),
        ({"warmup_steps": -1}, "warmup_steps .*whole number .*0, not -1"),
        ({"lora_rank": -1}, "lora_rank .*whole number .*0, not -1"),
        ({"lr_schedule": "cosine"}, "lr_schedule cosine .*max_steps or epochs"),
        (
            {"lr_schedule": "linear", "schedule_steps": 10, "warmup_steps": 10},
            r"warmup_steps \(10\) .* 10 steps",
        ),
        ({"train_layers": ""}, "train_layers: ''"),
        ({"train_layers": "eight"}, "train_layers: 'eight'.* 8-11 or 0,5-7"),
        ({"train_layers": "7-5"}, "'7-5'.*ascending"),
        ({"train_layers": "1,,2"}, "'1,,2'"),
        ({"train_layers": "-1"}, "'-1'"),
        ({"train_layers": "²"}, "'²'"),
    ],
)
def test_an_invalid_setting_is_an_error_of_one_sentence(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        TrainerSettings(**settings)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"train_layers": "8-12"}, "train_layers.* 12.* 0 to 11"),
        ({"lora_rank": 17}, r"lora_rank \(17\) .*16"),
    ],
)
def test_a_layer_or_rank_that_the_model_lacks_is_an_error(
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


def test_all_tensors_are_trained_by_default() -> None:
    assert TrainerSettings().trained_tensors(SIZES) == list(SIZES.tensor_shapes())


def test_settings_do_not_import_tensorflow() -> None:
    code = "import sys, gpt2.training.settings; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=SOURCE, check=True)


@pytest.mark.parametrize("name", ["sample_length", "sample_num"])
def test_samples_of_a_training_have_the_limits_of_the_samplers(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} .*from 0 to 1"):
        LoopSettings(**{name: LONGEST + 1})


EXTREMES = (
    *("0", "-0.0", "-1", "1", "0.5", "0.99999999999999999", "1e16", "1e39", "3e38", "1e308"),
    *("-1e308", "1e309", "5e-324", "1e-300", "1e-45", "nan", "inf", "-inf"),
    *("9" * 400, "-" + "9" * 400, str(2**31), str(2**53), str(2**63)),
)
OTHERS = (
    ["--optimizer=sgd", "--val_dataset=x", "--val_every=1"],
    ["--lr_schedule=cosine", "--max_steps=50", "--epochs=2"],
)
NUMERIC = [option for option in train.COMMAND.options if option.kind in (int, float)]


@pytest.mark.parametrize("option", NUMERIC, ids=lambda option: option.name)
def test_extreme_numbers_are_refused_in_a_sentence_or_can_be_computed_with(option: Option) -> None:
    hparams = HParams(n_layer=1)
    for number, others in itertools.product(EXTREMES, OTHERS):
        kept = [word for word in others if not word.startswith(f"{option.flag}=")]
        try:
            values = train.COMMAND.parse(["--dataset=x", f"{option.flag}={number}", *kept], "train")
            settings, loop = training_settings(vars(values))
            settings.trained_tensors(hparams)
            build(DatasetSettings, values, line_by_line=values.lines)
        except (UserError, UsageError) as error:
            assert option.name in str(error) or "schedule" in str(error)
            continue
        estimate(hparams, settings, loop.batch_size, 1024, loop.accumulate_gradients, None)
        for epoch, done, examples in itertools.product((1, 10**6), (0, 10), (None, 10**6)):
            last = loop.last_step(epoch, done, examples)
            assert last is None or 0 <= last <= LARGEST_COUNT
            with contextlib.suppress(UserError):  # a warm-up that is longer than the training
                planned = dataclasses.replace(settings, schedule_steps=last or 50)
                assert all(math.isfinite(learning_rate(planned, n)) for n in (1, 2, 50, 1000))
