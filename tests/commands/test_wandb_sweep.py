"""`examples/wandb_sweep.yaml`: an agent's command lines are those of `train`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gpt2.commands import train
from gpt2.training.session import training_settings
from tests.commands.test_train_watching import WANDB
from tests.commands.toolkit_copy import REPOSITORY, Toolkit

yaml = pytest.importorskip("yaml")
SWEEP: Mapping[str, Any] = yaml.safe_load(
    (REPOSITORY / "examples" / "wandb_sweep.yaml").read_text(encoding="utf-8")
)


def choices(parameter: Mapping[str, Any]) -> list[Any]:
    """Return the values of a parameter, or the ends of its range."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def arguments(parameters: Mapping[str, Any]) -> list[str]:
    """Return what an agent puts in place of ${args}."""
    return [f"--{name}={value}" for name, value in parameters.items()]


def test_train_takes_every_combination_of_the_sweep() -> None:
    names = list(SWEEP["parameters"])
    lists = [choices(SWEEP["parameters"][name]) for name in names]
    for values in itertools.product(*lists):
        parameters = dict(zip(names, values, strict=True))
        parsed = train.COMMAND.parse(arguments(parameters), "train.py")
        training_settings(vars(parsed))
        assert {name: getattr(parsed, name) for name in names} == parameters
        assert parsed.max_steps >= parsed.val_every  # there is a metric


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the sweep's command needs a shell")
def test_an_agent_gets_the_metric_of_the_sweep(toolkit: Toolkit) -> None:
    stand_in = toolkit.root / "stand_in"
    stand_in.mkdir()
    (stand_in / "wandb.py").write_text(WANDB)
    parameters = {name: choices(each)[0] for name, each in SWEEP["parameters"].items()}
    parameters |= {"max_steps": 2, "val_every": 2, "val_batch_count": 1}
    words = []
    for word in SWEEP["command"]:
        words += arguments(parameters) if word == "${args}" else [word]
    # The agent's environment has the Python of the tests as `python`.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"WANDB_RUN_ID": "x1", "PYTHONPATH": str(stand_in), "PATH": path}
    done = subprocess.run(words, cwd=toolkit.root, env=environment, capture_output=True)
    assert done.returncode == 0, done
    calls = [json.loads(line) for line in (toolkit.root / "wandb.jsonl").read_text().splitlines()]
    assert calls[0] == ["init", {"project": "gpt2", "name": "sweep-x1"}]
    assert SWEEP["metric"] == {"name": "val_loss", "goal": "minimize"}
    assert [call[1] for call in calls if call[0] == "log" and "val_loss" in call[2]] == [0, 2]
    assert (toolkit.root / "checkpoint" / "sweep-x1" / "model-2.index").is_file()
