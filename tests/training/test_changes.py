"""Effects of each train flag on resume, and the notices about changed flags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gpt2.commands.train import COMMAND
from gpt2.training import changes
from gpt2.training.changes import ON_RESUME, describe_changes, describe_schedule
from gpt2.training.settings import TrainerSettings

DOCS = Path(__file__).parents[2] / "docs" / "training.md"
FLAGS = {option.name: option for option in COMMAND.options}
OTHER = {int: 7, float: 0.25, str: "other", bool: True}


def test_every_flag_of_train_has_an_entry_and_is_in_the_docs() -> None:
    assert ON_RESUME.keys() == FLAGS.keys()
    table = DOCS.read_text(encoding="utf-8").split("<!-- on resume -->")[1]
    documented = {
        flag: effect
        for flags, effect in re.findall(r"^\| (`--.*`) \| (.*) \|$", table, re.M)
        for flag in re.findall(r"--(\w+)", flags)
    }
    assert documented == ON_RESUME


@pytest.mark.parametrize("flag", FLAGS)
def test_a_changed_flag_is_named_if_it_changes_the_training(flag: str) -> None:
    option = FLAGS[flag]
    old: dict[str, Any] = {name: o.default for name, o in FLAGS.items()} | {"dataset": "a.txt"}
    old["model_name"] = "117M"
    new = old | {flag: OTHER[option.kind]}
    call = {"flags": old, "seed": 3}
    assert describe_changes(call, old, 11) == []
    sentences = describe_changes(call, new, 11)
    reported = ON_RESUME[flag] in (changes.APPLIED, changes.RESET) or flag == "model_name"
    assert len(sentences) == reported
    if reported:
        assert f"--{flag} " in sentences[0] and str(OTHER[option.kind]).lower() in sentences[0]


@pytest.mark.parametrize("call", [{}, {"flags": 3}, {"flags": {}}, {"flags": {"seed": []}}])
def test_a_foreign_record_reports_no_changes(call: dict[str, Any]) -> None:
    assert describe_changes(call, {"learning_rate": 1.0}, 2) == []
    assert describe_schedule(call, TrainerSettings(), 2) is None


def test_a_resumed_run_keeps_its_seed_without_a_notice() -> None:
    call = {"flags": {"seed": None}, "seed": 3}
    assert describe_changes(call, {"seed": None}, 2) == []
    assert re.search("--seed .*3.* 4 ", describe_changes(call, {"seed": 4}, 2)[0])


def test_a_schedule_with_another_end_says_both_learning_rates() -> None:
    flags = {"learning_rate": 0.001, "lr_schedule": "cosine", "warmup_steps": 0, "max_steps": 10}
    settings = TrainerSettings(learning_rate=0.001, lr_schedule="cosine", schedule_steps=20)
    said = describe_schedule({"flags": flags}, settings, 10)
    assert re.search(r"2\.45e-05 at step 10 to 0\.0005 at step 11.*step 20.*step 10\b", said)
    same = {"flags": flags | {"max_steps": None}, "last_step": 20}
    assert describe_schedule(same, settings, 10) is None
    constant = {"flags": flags | {"lr_schedule": "constant"}}
    assert "constant" in describe_schedule(constant, settings, 10)
    assert describe_schedule(constant, TrainerSettings(), 10) is None
