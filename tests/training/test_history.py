"""history.jsonl: one story, whatever was cut off, torn or refused in between."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.training.run_log import HISTORY, HistoryLogger, read_curves


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    history = HistoryLogger(tmp_path / "history.jsonl")
    history.log_metrics(1, loss=4.5, gradient_norm=math.inf)
    assert lines(tmp_path / "history.jsonl") == [{"step": 1, "loss": 4.5, "gradient_norm": None}]
    history.log_metrics(1, val_loss=5.0)
    assert lines(tmp_path / "history.jsonl")[1] == {"step": 1, "val_loss": 5.0}
    history.close()


def test_what_was_done_after_the_step_gone_on_from_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    before = [{"step": step, "loss": 1.0} for step in range(1, 6)]
    validations = [{"step": 2, "val_loss": 2.0}, {"step": 3, "val_loss": 2.0}]
    text = "".join(json.dumps(line) + "\n" for line in before + validations)
    path.write_text(text + '{"step": 1, "lo', encoding="utf-8")
    history = HistoryLogger(path, done=3, validated=2)
    assert path.read_text(encoding="utf-8").startswith(text)  # until there is something to write
    history.log_metrics(4, loss=0.5)
    history.close()
    assert lines(path) == [*before[:3], validations[0], {"step": 4, "loss": 0.5}]


def test_a_fresh_run_begins_a_new_story(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 0, "val_loss": 2.0}\n{"step": 1, "loss": 1.0}\n', encoding="utf-8")
    history = HistoryLogger(path)
    history.log_metrics(0, val_loss=3.0)
    history.close()
    assert lines(path) == [{"step": 0, "val_loss": 3.0}]


def test_lines_that_could_not_be_written_come_later(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows does not limit the size of files")
    path = tmp_path / "history.jsonl"
    history = HistoryLogger(path)
    history.log_metrics(1, loss=1.0)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, unlimited[1]))
    try:
        for step in (2, 3):
            with pytest.raises(UserError, match=r"history\.jsonl cannot be written"):
                history.log_metrics(step, loss=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    history.log_metrics(4, loss=1.0)
    history.close()
    assert [line["step"] for line in lines(path)] == [1, 2, 3, 4]


def test_curves_are_the_losses_of_the_lines(tmp_path: Path) -> None:
    path = tmp_path / HISTORY
    lines = (
        '{"step": 1, "loss": 5.5, "average": 5.25, "learning_rate": 1e-4}',
        '{"step": 2, "loss": null, "average": 5}',
        '{"step": 2, "val_loss": 4.5, "val_perplexity": 90.0}',
        '{"step": 3, "loss": 4}',
        '{"step": 4, "val_loss": null}',
        '{"step": "five"}',
        "[1]",
        '{"step": 6, "lo',
    )
    path.write_text("\n".join(lines))
    curves = read_curves(path)
    assert curves.steps.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(curves.loss, [5.5, math.nan, 4])
    np.testing.assert_array_equal(curves.average, [5.25, 5, math.nan])
    assert curves.val_steps.tolist() == [2, 4]
    np.testing.assert_array_equal(curves.val_loss, [4.5, math.nan])


def test_a_history_without_losses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        read_curves(tmp_path / HISTORY)
    (tmp_path / HISTORY).write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(UserError, match="holds no loss"):
        read_curves(tmp_path / HISTORY)
