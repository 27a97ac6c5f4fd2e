"""The loggers: event files read back by TensorFlow, and a stand-in for the package wandb."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path

import pytest
import tensorflow as tf

from gpt2.errors import UserError
from gpt2.training import loggers
from gpt2.training.loggers import TensorBoardLogger, WandbLogger, load_wandb

# --- TensorBoard ---


def read(path: Path) -> list[tf.compat.v1.Event]:
    return list(tf.compat.v1.train.summary_iterator(str(path)))


def test_samples_are_texts_in_tensorboard(tmp_path: Path) -> None:
    events = TensorBoardLogger(tmp_path)
    events.log_samples(20, "======== SAMPLE 1 ========\n* a\n")
    events.close()
    (path,) = tmp_path.iterdir()
    version, event = read(path)
    assert version.file_version == "brain.Event:2"
    (value,) = event.summary.value
    assert (event.step, value.tag) == (20, "samples")
    assert value.metadata.plugin_data.plugin_name == "text"
    # Indented, so that Markdown shows the text as it is.
    (text,) = tf.make_ndarray(value.tensor)
    assert text.decode() == "    ======== SAMPLE 1 ========\n    * a\n    "


def test_event_times_increase_even_if_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    for step, clock in enumerate((now, now - 5000, now - 90000)):
        monkeypatch.setattr(loggers.time, "time", lambda clock=clock: clock)
        events = TensorBoardLogger(tmp_path)
        events.log_metrics(step, loss=1.0)
        monkeypatch.setattr(loggers.time, "time", lambda: 0.0)
        events.log_metrics(step, loss=0.5)
        events.close()
    found = [event for path in sorted(tmp_path.iterdir()) for event in read(path)]
    steps = [event.step for event in found if event.summary.value]
    assert steps == [0, 0, 1, 1, 2, 2]
    times = [event.wall_time for event in found]
    assert times == sorted(times)


def test_a_write_error_is_reported_and_writing_is_retried_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.write_text("a file, where no other can be made")
    events = TensorBoardLogger(folder)
    with pytest.raises(UserError, match=r"run.*tfevents"):
        events.log_metrics(1, loss=1.0)
    folder.unlink()
    folder.mkdir()
    events.log_metrics(2, loss=1.0)  # too early to retry
    assert not list(folder.iterdir())
    monkeypatch.setattr(loggers, "RETRY", 0)
    events.log_metrics(3, loss=1.0)
    events.close()
    (path,) = folder.iterdir()
    assert [event.step for event in read(path)] == [0, 3]


# --- Weights & Biases ---


class Wandb(types.ModuleType):
    """A stand-in for the package that records its calls."""

    def __init__(self, online: bool = True):
        super().__init__("wandb")
        self.online = online
        self.calls: list[tuple] = []

    def Html(self, text: str) -> str:
        return f"Html({text})"

    def init(self, mode: str | None = None, **known: object) -> Wandb:
        if not self.online and mode != "offline":
            raise ConnectionError("no network")
        self.calls.append(("init", mode, known))
        return self

    def log(self, values: dict, step: int) -> None:
        if values.get("loss") == 13:
            raise RuntimeError("the run is closed")
        self.calls.append(("log", step, values))

    def finish(self) -> None:
        self.calls.append(("finish",))


def test_a_wandb_run_gets_config_metrics_and_samples(tmp_path, monkeypatch) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    logger = WandbLogger("poems", "run1", tmp_path, {"seed": 1})
    logger.log_metrics(1, loss=2.5)
    logger.log_samples(1, "<|endoftext|> & so on")
    with pytest.raises(UserError, match=r"Weights & Biases.*the run is closed"):
        logger.log_metrics(2, loss=13)
    logger.close()
    known = {"project": "poems", "name": "run1", "dir": str(tmp_path), "config": {"seed": 1}}
    assert wandb.calls == [
        ("init", None, known),
        ("log", 1, {"loss": 2.5}),
        ("log", 1, {"samples": "Html(<pre>&lt;|endoftext|&gt; &amp; so on</pre>)"}),
        ("finish",),
    ]


def test_without_network_the_run_is_stored_offline(tmp_path: Path, monkeypatch) -> None:
    wandb = Wandb(online=False)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    WandbLogger("poems", "run1", tmp_path, {})
    assert [call[:2] for call in wandb.calls] == [("init", "offline")]


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        load_wandb()
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))  # a folder of that name
    with pytest.raises(UserError, match="pip install wandb"):
        load_wandb()
