"""`gpt2.encode`, `gpt2.train` and `gpt2.evaluate`, and what a notebook shows of their results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import gpt2
from gpt2.checkpoint.run import RunFolder
from gpt2.stories.grammar import write_stories
from gpt2.training.loop import Loop

ROOT = Path(__file__).resolve().parents[2]
OPTIONS: dict[str, Any] = {
    "max_steps": 12,
    "val_split": 0.1,
    "val_every": 4,
    "val_batch_count": 2,
    "sample_every": 1000,
    "batch_size": 2,
    "learning_rate": 0.003,
    "seed": 1,
    "progress": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stories, a model for them, and the dataset."""
    path = tmp_path_factory.mktemp("api")
    (path / "models").mkdir()
    text = "\n".join(write_stories(300, seed=1))
    (path / "stories.txt").write_text(text, encoding="utf-8")
    sizes = "--n_vocab 400 --n_ctx 32 --n_embd 16 --n_head 2 --n_layer 1 --seed 1"
    command(path, f"new-model small --dataset stories.txt {sizes}")
    command(path, "encode stories.txt by_command.npz --model_name small")
    return path


def command(folder: Path, line: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gpt2", *line.split()],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> Iterator[Any]:
    before = Path.cwd()
    os.chdir(folder)
    yield gpt2.train("by_command.npz", "small", run_name="whole", **OPTIONS)
    os.chdir(before)


def test_encode_writes_the_file_of_the_command_and_says_what_is_in_it(here: Path) -> None:
    encoded = gpt2.encode("stories.txt", Path("by_function.npz"), "small", progress=False)
    ours, theirs = (np.load(f"by_{who}.npz") for who in ("function", "command"))
    assert all((ours[name] == theirs[name]).all() for name in theirs.files)
    assert encoded.tokens == sum(theirs[name].size for name in theirs.files)
    size = (here / "stories.txt").stat().st_size
    assert (encoded.files, encoded.bytes) == (1, size)
    assert encoded.tokens_per_byte == pytest.approx(encoded.tokens / size)
    text = (here / "stories.txt").read_text(encoding="utf-8")
    assert text.startswith("".join(encoded.sample))
    assert f"{encoded.tokens:,}" in repr(encoded)
    assert "by_function.npz" in encoded._repr_html_()
    ElementTree.fromstring(encoded._repr_html_())  # foreign text is escaped


def test_encode_to_a_folder_writes_shards(here: Path) -> None:
    encoded = gpt2.encode("stories.txt", "shards/", "small", progress=False)
    assert encoded.path.is_dir() and len(encoded.sample) > 5


def test_train_trains_like_the_command(here: Path, result: Any) -> None:
    command(
        here,
        "train --dataset by_command.npz --model_name small --run_name command --max_steps 12"
        " --val_split 0.1 --val_every 4 --val_batch_count 2 --sample_every 1000 --batch_size 2"
        " --learning_rate 0.003 --seed 1",
    )
    ours, theirs = (here / "checkpoint" / run for run in ("whole", "command"))
    assert losses(ours) == losses(theirs)
    for end in (".index", ".data-00000-of-00001"):
        assert (ours / f"model-12{end}").read_bytes() == (theirs / f"model-12{end}").read_bytes()


def test_options_of_numpy_and_paths_train_and_are_recorded_as_json(here: Path, result: Any) -> None:
    numbers = {
        "max_steps": np.int32(6),
        "batch_size": np.int64(2),
        "learning_rate": Fraction(3, 1000),
    }
    numbers |= {"lora_rank": np.int64(0), "lines": np.bool_(False), "seed": np.uint32(1)}
    start = Path("models") / "small"
    trained = gpt2.train(
        np.str_("by_command.npz"),
        "small",
        run_name="numbers",
        **OPTIONS | numbers | {"restore_from": start, "dropout": np.float64(0)},
    )
    assert losses(trained.path)[:6] == losses(result.path)[:6]
    flags = json.loads((trained.path / "config.json").read_text())["calls"][-1]["flags"]
    assert flags["learning_rate"] == 0.003
    assert flags["batch_size"] == 2
    assert flags["restore_from"] == str(start)


def losses(run: Path) -> list[tuple[int, Any, Any]]:
    lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    entries = map(json.loads, lines)
    return [(entry["step"], entry.get("loss"), entry.get("val_loss")) for entry in entries]


def test_a_result_shows_steps_losses_curve_and_checkpoint(result: Any) -> None:
    assert (result.step, result.stopped, result.reason) == (12, False, "Finished 12 steps.")
    assert result.val_loss == result.curves.val_loss[-1]
    assert result.checkpoint.name == "model-12"
    shown = result._repr_html_()
    for fact in ("whole", "12", f"{result.loss:.3f}", f"{result.val_loss:.3f}", "<svg"):
        assert fact in shown
    tree = ElementTree.fromstring(f"<div>{shown}</div>")
    lines = tree.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [
        12,
        4,
    ]  # validated before the first step, too
    assert "checkpoint: " in repr(result) and "\n" not in repr(result)


def test_a_result_loads_the_best_checkpoint_or_the_newest(here: Path, result: Any) -> None:
    model, known = result.load(), gpt2.load("whole/best")
    ids = model.encode("A fox")
    assert (model.logits(ids) == known.logits(ids)).all()
    assert (result.load(best=False).logits(ids) == gpt2.load("whole").logits(ids)).all()
    with pytest.raises(gpt2.UserError, match="engin"):
        result.load(engin="numpy")


@pytest.mark.parametrize("step", [1, 5])
def test_an_interrupt_stops_saves_and_the_same_call_resumes_exactly(
    here: Path, result: Any, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    original, handler = Loop._train_step, signal.getsignal(signal.SIGINT)
    steps = []

    def interrupted(loop: Loop) -> Iterator[Any]:
        steps.append(1)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
        yield from original(loop)

    monkeypatch.setattr(Loop, "_train_step", interrupted)
    name = f"part-{step}"
    part = gpt2.train("by_command.npz", "small", run_name=name, **OPTIONS)
    assert (part.stopped, part.step) == (True, step)
    assert "stopped" in repr(part)
    assert signal.getsignal(signal.SIGINT) is handler
    assert RunFolder(here / "checkpoint" / name).checkpoints()
    rest = gpt2.train("by_command.npz", "small", run_name=name, **OPTIONS)
    assert (rest.stopped, rest.step) == (False, 12)
    assert losses(rest.path) == losses(result.path)


def test_a_second_interrupt_raises(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(loop: Loop) -> Iterator[Any]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        yield from ()

    monkeypatch.setattr(Loop, "_train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpt2.train("by_command.npz", "small", run_name="twice", **OPTIONS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_train_works_in_another_thread(here: Path, result: Any) -> None:
    found: list[Any] = []

    def work() -> None:
        found.append(gpt2.train("by_command.npz", "small", run_name="thread", **OPTIONS))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert losses(found[0].path) == losses(result.path)


def test_evaluate_measures_what_the_command_measures(here: Path, result: Any) -> None:
    command(
        here, "evaluate perplexity stories.txt --model_name whole --window 16 --json figures.json"
    )
    known = json.loads((here / "figures.json").read_text(encoding="utf-8"))
    found = gpt2.evaluate("whole", "stories.txt", window=16, progress=False)
    assert found["perplexity"] == pytest.approx(known["perplexity"], rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(known["bits_per_byte"], rel=1e-6)
    assert found["tokens"] == known["tokens"]
    assert "bits per byte" in found._repr_html_() and "whole" in repr(found)


WRONG: list[tuple[str, dict[str, Any]]] = [
    *(("train", {"dataset": value}) for value in (None, 5, "", b"x", "missing.npz")),
    *(("train", {"model_name": value}) for value in (5, "", "missing")),
    *(("train", {"run_name": value}) for value in (5, "a/b", "")),
    *(("train", {"restore_from": value}) for value in (None, 5, b"x")),
    ("train", {"max_steps": 0}),
    ("train", {"max_steps": "5"}),
    ("train", {"val_split": 2}),
    ("train", {"val_split": 0.1, "val_every": 0}),
    ("train", {"learning_rate": -1}),
    ("train", {"learning_rate": float("nan")}),
    ("train", {"optimizer": "adams"}),
    ("train", {"progress": 1}),
    ("train", {"top_k": -1}),
    ("train", {"top_p": "x"}),
    ("train", {"lines": "yes"}),
    ("train", {"combine": 0}),
    ("train", {"models_dir": 5}),
    ("train", {"seed": -1}),
    ("train", {"steps": 5}),
    ("train", {"epochs": 0}),
    ("encode", {"dataset": 5}),
    ("encode", {"out": None}),
    ("encode", {"model_name": 5}),
    ("encode", {"workers": 0}),
    ("encode", {"combine": 0}),
    ("encode", {"encoding": "utf-9"}),
    ("encode", {"progress": None}),
    ("encode", {"models_dir": 5}),
    ("encode", {"verbose": True}),
    ("evaluate", {"model_name": None}),
    ("evaluate", {"dataset": 5}),
    ("evaluate", {"window": 0}),
    ("evaluate", {"window": 1000}),
    ("evaluate", {"stride": "1"}),
    ("evaluate", {"unit": "line"}),
    ("evaluate", {"recipe": "none"}),
    ("evaluate", {"detokenizer": "x"}),
    ("evaluate", {"progress": "no"}),
    ("evaluate", {"colour": 1}),
]
RIGHT: dict[str, dict[str, Any]] = {
    "train": {"dataset": "by_command.npz", "model_name": "small", "run_name": "wrong", **OPTIONS},
    "encode": {"dataset": "stories.txt", "out": "wrong.npz", "model_name": "small"},
    "evaluate": {"model_name": "small", "dataset": "stories.txt"},
}
# Errors about a thing name the thing, and those about `unit` its flag.
NAMED = {"missing.npz": "missing.npz", "missing": "missing", "a/b": "a/b", "line": "normalize"}


@pytest.mark.parametrize(("function", "wrong"), WRONG, ids=str)
def test_a_wrong_argument_raises_user_error_with_its_name(
    here: Path, function: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(gpt2.UserError) as caught:
        getattr(gpt2, function)(**RIGHT[function] | wrong)
    name, value = next(iter(wrong.items()))
    assert NAMED.get(value if isinstance(value, str) else "", name) in str(caught.value)
    assert not (here / "checkpoint" / "wrong").exists()
    assert not (here / "wrong.npz").exists()


@pytest.mark.parametrize("out", ["a\0", "\ud800.npz", "x" * 300, "x" * 245 + ".npz", "a\0/"])
def test_an_output_that_cannot_exist_is_refused_before_the_work(here: Path, out: str) -> None:
    with pytest.raises(gpt2.UserError, match="cannot be written"):
        gpt2.encode(**RIGHT["encode"] | {"out": out})


def test_a_run_name_that_is_too_long_is_refused(here: Path) -> None:
    with pytest.raises(gpt2.UserError, match="longer than 200 bytes"):
        gpt2.train(**RIGHT["train"] | {"run_name": "é" * 101})


def test_importing_gpt2_imports_neither_tensorflow_nor_tqdm() -> None:
    code = "import sys, gpt2; print('tensorflow' in sys.modules, 'tqdm' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]
