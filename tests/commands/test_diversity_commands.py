"""evaluate.py diversity and grid: samples measured, written, interrupted and gone on with."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest

from gpt2.checkpoint.folder import ModelFolder
from gpt2.generation.loading import open_model
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
    assert done.sentences == [
        "Self-BLEU compares samples with one another: there is none of fewer than two that have "
        "words."
    ]
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
    # Thirteen words make six sequences of eight, of which the first three are in the text.
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
    model = open_model(ModelFolder(toolkit.root / "models" / "117M"), "tensorflow")
    tokens = sum(len(model.tokenizer.encode(sample)) for sample in samples)
    expected = math.exp(-sum(model.score(sample) for sample in samples if sample) / tokens)
    [row] = json.loads((tmp_path / "d.json").read_text())["rows"]
    assert row["metrics"]["perplexity"] == pytest.approx(expected, rel=1e-4)
    assert row["metrics"]["empty"] == 1
    assert f"{expected:.2f}" in done.out


def test_what_cannot_be_measured_is_told(toolkit: Toolkit, no_tensorflow: str) -> None:
    (toolkit.root / "blank.txt").write_text("\n \n")
    (toolkit.root / "samples" / "run2").mkdir(parents=True)
    sentences = {
        "": r"Give --samples FILE or --run RUN",
        "--samples a --run b": r"Give --samples FILE or --run RUN",
        "--samples blank.txt": r"There are no samples in blank\.txt",
        "--samples gone.txt": r"gone\.txt is not a file",
        "--run run2": r"There are no samples in \S+run2; train\.py writes them",
        "--samples text.txt --dataset text.npz": r"text\.npz holds tokens",
        "--samples text.txt --model_name gone": r"There is no model 'gone'",
        "--samples text.txt --json gone/d.json": r"gone/d\.json cannot be written",
    }
    lines = (f"{no_tensorflow} {DIVERSITY} {flags}" for flags in sentences)
    for done, sentence in zip(toolkit.run_in_one_process(*lines), sentences.values(), strict=True):
        done.says(1, sentence)


def test_a_grid_that_is_interrupted_and_killed_ends_as_if_it_were_not(
    toolkit: Toolkit, no_tensorflow: str
) -> None:
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
    said = f"interrupted; {before} of 24 samples are there: the same command goes on with them."
    assert interrupted.sentences[-1] == said
    head, *rows = (line.split() for line in interrupted.out.splitlines())
    assert sum(int(row[head.index("samples")]) for row in rows) == before
    assert not (toolkit.root / "grid.json").exists()
    with toolkit.start(f"{command} --batch_size 1") as running:
        running.send_when(signal.SIGKILL, lambda: samples() > before)
        killed = running.finish()
    assert f"; {before} of these 24 are there already." in killed.sentences[0]
    assert before < samples() < 24
    # In the middle of a line.
    [newest] = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime)[-1:]
    newest.write_bytes(newest.read_bytes()[:-30])

    whole, gone_on_with = toolkit.run_in_one_process(
        f"{command} --out elsewhere --json whole.json", f"{command} --json grid.json"
    )
    assert (whole.code, gone_on_with.code) == (0, 0), (whole, gone_on_with)
    assert samples() == 24
    assert result(toolkit, "grid.json") == result(toolkit, "whole.json")
    assert gone_on_with.out == whole.out
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

    # All is there: a table of some of it needs no model, and what does not fit changes nothing.
    kept = toolkit.contents("samples")
    again, *refused = toolkit.run_in_one_process(
        f"{no_tensorflow} {command} --nsamples 3 --temperature 1.5",
        f"{no_tensorflow} {command} --seed 2",
        f"{no_tensorflow} {command} --dataset gone.txt",
        f"{no_tensorflow} {command} --top_k 301",
    )
    assert (again.code, again.out.count("\n")) == (0, 3), again
    sentences = (
        r"another seed \(1, not 2\)",
        r"gone\.txt is not a file",
        "vocabulary has only 300",
    )
    for done, sentence in zip(refused, sentences, strict=True):
        done.says(1, sentence)
    assert toolkit.contents("samples") == kept
