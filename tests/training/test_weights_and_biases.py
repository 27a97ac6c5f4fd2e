"""--wandb, with a stand-in for the package that writes down what it is told."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from gpt2.errors import UserError
from gpt2.training.loggers import WandbLogger, load_wandb


class Wandb(types.ModuleType):
    """Has the four names of the package that are used."""

    def __init__(self, online: bool = True):
        super().__init__("wandb")
        self.online = online
        self.told: list[tuple] = []

    def Html(self, text: str) -> str:
        return f"Html({text})"

    def init(self, mode: str | None = None, **known: object) -> Wandb:
        if not self.online and mode != "offline":
            raise ConnectionError("no network")
        self.told.append(("init", mode, known))
        return self

    def log(self, values: dict, step: int) -> None:
        if values.get("loss") == 13:
            raise RuntimeError("the run is closed")
        self.told.append(("log", step, values))

    def finish(self) -> None:
        self.told.append(("finish",))


def test_a_run_there_has_the_config_the_numbers_and_the_samples(tmp_path, monkeypatch) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    logger = WandbLogger("poems", "run1", tmp_path, {"seed": 1})
    logger.log_metrics(1, loss=2.5)
    logger.log_samples(1, "<|endoftext|> & so on")
    with pytest.raises(UserError, match="refuses the numbers: the run is closed"):
        logger.log_metrics(2, loss=13)
    logger.close()
    known = {"project": "poems", "name": "run1", "dir": str(tmp_path), "config": {"seed": 1}}
    assert wandb.told == [
        ("init", None, known),
        ("log", 1, {"loss": 2.5}),
        ("log", 1, {"samples": "Html(<pre>&lt;|endoftext|&gt; &amp; so on</pre>)"}),
        ("finish",),
    ]


def test_without_a_network_it_is_kept_on_the_disk(tmp_path: Path, monkeypatch) -> None:
    wandb = Wandb(online=False)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    WandbLogger("poems", "run1", tmp_path, {})
    assert [told[:2] for told in wandb.told] == [("init", "offline")]


def test_without_the_package_it_is_told_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        load_wandb()
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))  # a folder of that name
    with pytest.raises(UserError, match="pip install wandb"):
        load_wandb()
