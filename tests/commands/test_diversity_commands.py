"""evaluate.py diversity and grid: metrics of samples, and grids that are resumed."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest

from gpt2.checkpoint.folder import ModelFolder
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from tests.commands.toolkit_copy import Home, Toolkit

DIVERSITY = "python src/evaluate.py diversity"
GRID = "python src/evaluate.py grid --model_name 117M --dataset text.txt"
WORDS = "one two three four five six seven eight nine ten"


def result(toolkit: Toolkit, name: str) -> dict:
    return json.loads((toolkit.root / name).read_text(encoding="utf-8"))


def write_run(toolkit: Toolkit) -> None:
    folder = toolkit.root / "samples" / "run1"
    folder.mkdir(parents=True)
    for step, text in ((20, "one two"), (100, f"{WORDS}\nwith the cat")):
        (folder / f"samples-{step}").write_text(f"======== SAMPLE 1 ========\n{text}\n")
    (toolkit.root / "train.txt").write_text(f"{WORDS}\nand the cat\n")


def test_a_runs_samples_are_measured_without_tensorflow(
    toolkit: Toolkit, no_tensorflow: str
) -> None:
    write_run(toolkit)
    done = toolkit.run(f"{no_tensorflow} {DIVERSITY} --run run1 --dataset train.txt --json d.json")
    assert done.code == 0, done
    assert done.sentences == ["Self-BLEU needs at least two non-empty samples."]
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "samples/run1/samples-20",
        "samples/run1/samples-100",
        "all",
    ]
    first, second, both = (row["metrics"] for row in result(toolkit, "d.json")["rows"])
    assert first["length"] == 2
    assert first["self_bleu"] is None
    assert first["copied_8"] is None  # it has no eight words
    # Thirteen words have six 8-grams; the training set contains the first three.
    assert second["copied_8"] == both["copied_8"] == 3 / 6
    assert both["self_bleu"] > 0
    assert both["samples"] == 2
    assert both["perplexity"] is None


def test_perplexity_is_that_of_the_model(home: Home, tmp_path: Path) -> None:
    toolkit = home.toolkit
    samples = ["The value of", "", "an object"]
    lines = [json.dumps({"text": sample}) + "\n" for sample in samples]
    (tmp_path / "two.jsonl").write_text("".join(lines))
    command = f"{DIVERSITY} --samples {tmp_path}/two.jsonl --model_name 117M"
    done = toolkit.run(f"{command} --dataset text.npz --json {tmp_path}/d.json")
    assert done.code == 0, done
    folder = ModelFolder(toolkit.root / "models" / "117M")
    engine = TensorFlowEngine(folder.weights(), folder.hparams)
    model = LanguageModel(engine, folder.hparams, folder.tokenizer())
    tokens = sum(len(model.tokenizer.encode(sample)) for sample in samples)
    expected = math.exp(-sum(model.score(sample) for sample in samples if sample) / tokens)
    [row] = json.loads((tmp_path / "d.json").read_text())["rows"]
    assert row["metrics"]["perplexity"] == pytest.approx(expected, rel=1e-4)
    assert row["metrics"]["empty"] == 1
    assert f"{expected:.2f}" in done.out


def test_bad_input_is_reported(toolkit: Toolkit, no_tensorflow: str) -> None:
    (toolkit.root / "blank.txt").write_text("\n \n")
    (toolkit.root / "samples" / "run2").mkdir(parents=True)
    cases = {
        "": (2, "either --samples or --run"),
        "--samples a --run b": (2, "either --samples or --run"),
        "--samples blank.txt": (1, r"no samples .*blank\.txt|blank\.txt.* no samples"),
        "--samples gone.txt": (1, r"gone\.txt is not a file"),
        "--run run2": (1, r"no samples .*run2|run2.* no samples"),
        "--samples text.txt --dataset text.npz": (1, r"text\.npz .*--model_name"),
        "--samples text.txt --model_name gone": (1, r"There is no model 'gone'"),
        "--samples text.txt --json gone/d.json": (1, r"gone/d\.json cannot be written"),
    }
    lines = (f"{no_tensorflow} {DIVERSITY} {flags}" for flags in cases)
    for done, case in zip(toolkit.run_in_one_process(*lines), cases.values(), strict=True):
        done.says(*case)


def test_a_grid_resumes_after_ctrl_c_and_after_a_kill(toolkit: Toolkit, no_tensorflow: str) -> None:
    command = f"{GRID} --temperature 0.5,1.5 --top_k 0,20 --length 60 --nsamples 6"
    folder = toolkit.root / "samples" / "grid-117M"

    def samples() -> int:
        return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))

    with toolkit.start(f"{command} --batch_size 1 --json grid.json") as running:
        running.send_when(signal.SIGINT, lambda: samples() >= 2)
        interrupted = running.finish()
    before = samples()
    assert 2 <= before < 24
    assert interrupted.code == 130
    assert f"{before} of 24 samples" in interrupted.sentences[-1]
    head, *rows = (line.split() for line in interrupted.out.splitlines())
    assert sum(int(row[head.index("samples")]) for row in rows) == before
    assert not (toolkit.root / "grid.json").exists()
    with toolkit.start(f"{command} --batch_size 1") as running:
        running.send_when(signal.SIGKILL, lambda: samples() > before)
        killed = running.finish()
    assert f"; {before} of 24 samples" in killed.sentences[0]
    assert before < samples() < 24
    # In the middle of a line.
    [newest] = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime)[-1:]
    newest.write_bytes(newest.read_bytes()[:-30])

    whole, resumed = toolkit.run_in_one_process(
        f"{command} --out elsewhere --json whole.json", f"{command} --json grid.json"
    )
    assert (whole.code, resumed.code) == (0, 0), (whole, resumed)
    assert samples() == 24
    assert result(toolkit, "grid.json") == result(toolkit, "whole.json")
    assert resumed.out == whole.out
    rows = result(toolkit, "grid.json")["rows"]
    assert [(row["settings"]["temperature"], row["settings"]["top_k"]) for row in rows] == [
        (0.5, 0),
        (0.5, 20),
        (1.5, 0),
        (1.5, 20),
    ]
    assert [head for head in ("temperature", "top_k", "top_p") if head in whole.out] == [
        "temperature",
        "top_k",
    ]

    # Complete: a table of a part needs no TensorFlow, and errors change no file.
    kept = toolkit.contents("samples")
    again, *refused = toolkit.run_in_one_process(
        f"{no_tensorflow} {GRID} --temperature 1.5 --top_k 0,20 --length 60 --nsamples 3",
        f"{no_tensorflow} {command} --seed 2",
        f"{no_tensorflow} {command.replace('text.txt', 'gone.txt')}",
        f"{no_tensorflow} {command.replace('0,20', '0,301')}",
    )
    assert (again.code, again.out.count("\n")) == (0, 3), again
    sentences = (
        r"seed .*1, not 2",
        r"gone\.txt is not a file",
        " 300 tokens",
    )
    for done, sentence in zip(refused, sentences, strict=True):
        done.says(1, sentence)
    assert toolkit.contents("samples") == kept


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_a_dataset_without_text_is_nothing_to_compare_with(
    toolkit: Toolkit, no_tensorflow: str, content: str
) -> None:
    write_run(toolkit)
    (toolkit.root / "empty.txt").write_text(content)
    done = toolkit.run(f"{no_tensorflow} {DIVERSITY} --run run1 --dataset empty.txt --json d.json")
    done.says(1, r"empty\.txt contains no text")
    assert not (toolkit.root / "d.json").exists()
