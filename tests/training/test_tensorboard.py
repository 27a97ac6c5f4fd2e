"""Event files, read back with TensorFlow's own reader."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import tensorflow as tf

from gpt2.errors import UserError
from gpt2.training import loggers
from gpt2.training.loggers import TensorBoardLogger


def read(path: Path) -> list[tf.compat.v1.Event]:
    return list(tf.compat.v1.train.summary_iterator(str(path)))


def test_samples_are_texts_to_tensorboard(tmp_path: Path) -> None:
    events = TensorBoardLogger(tmp_path)
    events.log_samples(20, "======== SAMPLE 1 ========\n* a\n")
    events.close()
    (path,) = tmp_path.iterdir()
    version, event = read(path)
    assert version.file_version == "brain.Event:2"
    (value,) = event.summary.value
    assert (event.step, value.tag) == (20, "samples")
    assert value.metadata.plugin_data.plugin_name == "text"
    # Indented, which is how Markdown leaves a text as it is.
    (text,) = tf.make_ndarray(value.tensor)
    assert text.decode() == "    ======== SAMPLE 1 ========\n    * a\n    "


def test_a_clock_that_is_set_back_changes_neither_order_nor_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    for step, told in enumerate((now, now - 5000, now - 90000)):
        monkeypatch.setattr(loggers.time, "time", lambda told=told: told)
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


def test_a_folder_that_is_full_is_told_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.write_text("a file, where no other can be made")
    events = TensorBoardLogger(folder)
    with pytest.raises(UserError, match=r"tfevents.* cannot be written"):
        events.log_metrics(1, loss=1.0)
    folder.unlink()
    folder.mkdir()
    events.log_metrics(2, loss=1.0)  # not yet
    assert not list(folder.iterdir())
    monkeypatch.setattr(loggers, "RETRY", 0)
    events.log_metrics(3, loss=1.0)
    events.close()
    (path,) = folder.iterdir()
    assert [event.step for event in read(path)] == [0, 3]
