"""config.json and history.jsonl: complete and linear after kills, torn lines and write errors."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.training import run_log
from gpt2.training.run_log import HISTORY, HistoryLogger, keep_samples, read_curves

# --- config.json ---


def test_a_dataset_is_identified_by_the_sha256_of_its_files_in_order(tmp_path: Path) -> None:
    for name, content in {"a.txt": b"one", "b.txt": b"two"}.items():
        (tmp_path / name).write_bytes(content)
    found = run_log.data_in_short([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert (found["files"], found["bytes"]) == (2, 6)
    assert found["sha256"] == hashlib.sha256(b"onetwo").hexdigest()
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        run_log.data_in_short([tmp_path / "gone.txt"])


def test_unchanged_datasets_are_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    run_log.add_call(tmp_path, data={"text": run_log.data_in_short([file])})
    known = run_log.last_data(tmp_path)["text"]
    marked = known | {"sha256": "as before"}
    assert run_log.data_in_short([file], marked) == marked
    changed = file.stat().st_mtime_ns
    file.write_text("two")
    os.utime(file, ns=(changed + 1, changed + 1))
    assert run_log.data_in_short([file], marked)["sha256"] == hashlib.sha256(b"two").hexdigest()
    file.write_text("three")
    os.utime(file, ns=(changed, changed))
    assert run_log.data_in_short([file], marked)["sha256"] == hashlib.sha256(b"three").hexdigest()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"calls": 3}', '{"calls": [3]}', '{"calls": [{"data": 3}]}']
)
def test_a_foreign_config_does_not_stop_a_training(tmp_path: Path, content: str) -> None:
    (tmp_path / run_log.CONFIG).write_text(content)
    assert run_log.last_data(tmp_path) == {}
    moved = run_log.add_call(tmp_path, seed=1)
    assert json.loads((tmp_path / run_log.CONFIG).read_text())["calls"][-1]["seed"] == 1
    is_record = "data" in content
    assert moved == (None if is_record else tmp_path / "config-damaged.json")
    assert is_record or moved.read_text() == content
    assert run_log.add_call(tmp_path, seed=2) is None
    assert [call.get("seed") for call in run_log.read_calls(tmp_path)][-2:] == [1, 2]


def test_damaged_configs_do_not_replace_each_other(tmp_path: Path) -> None:
    names = ["config-damaged.json", "config-damaged-2.json", "config-damaged-3.json"]
    for number, name in enumerate(names):
        (tmp_path / run_log.CONFIG).write_text(f"damaged {number}")
        assert run_log.add_call(tmp_path) == tmp_path / name
    assert [(tmp_path / name).read_text() for name in names] == [
        "damaged 0",
        "damaged 1",
        "damaged 2",
    ]


@pytest.mark.parametrize("known", [None, 3, {}, {"files": 1}])
def test_an_earlier_result_may_be_anything(tmp_path: Path, known: object) -> None:
    (tmp_path / "a.txt").write_text("one")
    found = run_log.data_in_short([tmp_path / "a.txt"], known)
    assert found["sha256"] == hashlib.sha256(b"one").hexdigest()


def test_calls_are_read_as_they_were_written(tmp_path: Path) -> None:
    for number in (1, 2):
        run_log.add_call(tmp_path, seed=number, flags={"batch_size": number})
    assert [call["seed"] for call in run_log.read_calls(tmp_path)] == [1, 2]
    for content in ("{}", '{"calls": 1}', '{"calls": [1]}'):
        (tmp_path / run_log.CONFIG).write_text(content)
        with pytest.raises(UserError, match=r"config\.json"):
            run_log.read_calls(tmp_path)


# --- history.jsonl ---


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    history = HistoryLogger(tmp_path / "history.jsonl")
    history.log_metrics(1, loss=4.5, gradient_norm=math.inf)
    assert lines(tmp_path / "history.jsonl") == [{"step": 1, "loss": 4.5, "gradient_norm": None}]
    history.log_metrics(1, val_loss=5.0)
    assert lines(tmp_path / "history.jsonl")[1] == {"step": 1, "val_loss": 5.0}
    history.close()


def test_lines_after_the_step_resumed_from_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    before = [{"step": step, "loss": 1.0} for step in range(1, 6)]
    validations = [{"step": 2, "val_loss": 2.0}, {"step": 3, "val_loss": 2.0}]
    text = "".join(json.dumps(line) + "\n" for line in before + validations)
    path.write_text(text + '{"step": 1, "lo', encoding="utf-8")
    history = HistoryLogger(path, done=3, validated=2)
    assert path.read_text(encoding="utf-8").startswith(text)  # unchanged until something is logged
    history.log_metrics(4, loss=0.5)
    history.close()
    assert lines(path) == [*before[:3], validations[0], {"step": 4, "loss": 0.5}]


def test_a_fresh_run_starts_a_new_history(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 0, "val_loss": 2.0}\n{"step": 1, "loss": 1.0}\n', encoding="utf-8")
    history = HistoryLogger(path)
    history.log_metrics(0, val_loss=3.0)
    history.close()
    assert lines(path) == [{"step": 0, "val_loss": 3.0}]


def test_lines_that_could_not_be_written_are_written_later(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows does not limit the size of files")
    path = tmp_path / "history.jsonl"
    history = HistoryLogger(path)
    history.log_metrics(1, loss=1.0)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, unlimited[1]))
    try:
        for step in (2, 3):
            with pytest.raises(UserError, match=r"history\.jsonl"):
                history.log_metrics(step, loss=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    history.log_metrics(4, loss=1.0)
    history.close()
    assert [line["step"] for line in lines(path)] == [1, 2, 3, 4]


def test_curves_contain_the_losses_of_all_lines(tmp_path: Path) -> None:
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
    with pytest.raises(UserError, match=f"{HISTORY}.* no losses"):
        read_curves(tmp_path / HISTORY)


def test_a_history_that_another_training_would_cut_is_kept(tmp_path: Path) -> None:
    text = '{"step": 0, "val_loss": 2.0}\n{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 1.0}\n'
    assert run_log.keep_history(tmp_path, 0) is None
    (tmp_path / HISTORY).write_text(text, encoding="utf-8")
    assert run_log.keep_history(tmp_path, 2) is None
    for number, done in enumerate((1, 0), start=1):
        kept = run_log.keep_history(tmp_path, done)
        assert kept == tmp_path / f"history-{number}.jsonl"
        assert kept.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("sizes", "done", "seen"),
    [
        ([(0, 2, 1)], 10, 20),
        ([(0, 2, 1), (10, 4, 2)], 13, 44),
        ([(0, 2, 1), (10, 4, 2), (5, 1, 1)], 8, 13),
        ([(0, 2, 1), (9, 1, 1), (0, 3, 1)], 10, 30),
        ([(4, 2, 1)], 10, 40),
        ([(0, "many", 1)], 10, 70),
        ([], 10, 70),
    ],
)
def test_examples_seen_follow_from_the_recorded_batch_sizes(tmp_path, sizes, done, seen) -> None:
    for before, batch, accumulated in sizes:
        flags = {"batch_size": batch, "accumulate_gradients": accumulated}
        run_log.add_call(tmp_path, flags=flags, steps_before=before)
    assert run_log.examples_seen(tmp_path, done, 7) == seen


def test_the_version_of_a_package_of_another_name_is_known(monkeypatch) -> None:
    monkeypatch.delitem(run_log.sys.modules, "tensorflow", raising=False)
    provided = {"tensorflow": ["tensorflow-cpu"]}
    monkeypatch.setattr(run_log.importlib.metadata, "packages_distributions", lambda: provided)

    def version(package: str) -> str:
        if package == "tensorflow-cpu":
            return "2.99"
        raise run_log.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(run_log.importlib.metadata, "version", version)
    assert run_log.versions()["tensorflow"] == "2.99"
    assert run_log.versions()["numpy"] == np.__version__


def test_samples_after_the_step_that_training_starts_from_are_kept(tmp_path: Path) -> None:
    names = ["samples-10", "samples-20", "samples-30", "samples-x", "notes.txt"]
    for name in names:
        (tmp_path / name).write_text(name)
    assert keep_samples(tmp_path, 30) is None
    assert keep_samples(tmp_path / "missing", 0) is None
    assert keep_samples(tmp_path, 20) == tmp_path / "earlier-1"
    assert keep_samples(tmp_path, 0) == tmp_path / "earlier-2"
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {"earlier-1/samples-30", "earlier-2/samples-10", "earlier-2/samples-20"}
    assert left == kept | {"samples-x", "notes.txt"}


@pytest.mark.parametrize(
    "line",
    [
        *("[]", "5", "{", '{"loss": 3}', '{"step": true, "loss": 3}', '{"step": "5", "loss": 3}'),
        *(f'{{"step": {step}, "loss": 3}}' for step in ("1e400", "NaN", "1.5", 10**400)),
    ],
)
def test_lines_without_a_step_are_skipped(tmp_path: Path, line: str) -> None:
    path = tmp_path / HISTORY
    path.write_text(f'{line}\n{{"step": 2, "loss": 1.5}}\n')
    assert (read_curves(path).steps.tolist(), read_curves(path).loss.tolist()) == ([2], [1.5])


@pytest.mark.parametrize(
    "loss",
    ["1e308", "-1e308", "1e400", "-1", "NaN", "null", "true", '"3"', "[3]", str(10**400)],
)
def test_a_loss_that_is_not_one_is_unknown_and_can_be_plotted(tmp_path: Path, loss: str) -> None:
    pytest.importorskip("matplotlib")
    from gpt2.pictures.style import THEMES, drawn
    from gpt2.pictures.training import training_picture

    path = tmp_path / HISTORY
    path.write_text(
        f'{{"step": 1, "loss": {loss}, "average": {loss}}}\n{{"step": 1, "val_loss": {loss}}}\n'
    )
    curves = read_curves(path)
    values = [curves.loss[0], curves.average[0], curves.val_loss[0]]
    assert np.isnan(values).all() and curves.steps.tolist() == curves.val_steps.tolist() == [1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning would reach the screen
        assert drawn(training_picture({"run": curves}, THEMES["light"]), "png", THEMES["light"])
