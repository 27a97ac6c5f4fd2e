"""evaluate.py on a run: what it shows, what it writes, what it refuses, and how it is left."""

from __future__ import annotations

import json
import math
import re
import signal

import pytest

from tests.commands.toolkit_copy import Home, Story

EVALUATE = "python src/evaluate.py"
HELD_OUT = "Held out: the quick brown fox jumps over the lazy dog.\nAnd over the cat, too.\n"


@pytest.fixture(scope="module")
def held_out(story: Story) -> str:
    (story.toolkit.root / "held_out.txt").write_text(HELD_OUT, newline="\n")
    return "held_out.txt"


def test_all_ways_give_the_same_nats(story: Story, held_out: str) -> None:
    """Perplexity, comparison, scores and the bigram command, on one text under one model."""
    toolkit = story.toolkit
    checkpoint = f"run1/model-{(toolkit.root / 'checkpoint/run1/counter').read_text().strip()}"
    plain, strided, compared, scored, bigram = toolkit.run_all(
        f"{EVALUATE} perplexity --model_name run1 --dataset {held_out} --json plain.json",
        f"{EVALUATE} perplexity --model_name run1 --dataset {held_out} --window 8 --stride 3"
        " --normalize byte --json strided.json",
        f"{EVALUATE} compare --models run1,{checkpoint},117M --dataset {held_out} --json c.json",
        f"{EVALUATE} score --model_name run1 --file - --json scores.jsonl",
        f"{EVALUATE} bigram --model_name run1 --dataset text.npz --held_out {held_out} --length 12"
        " --seed 3 --json bigram.json",
        typed=HELD_OUT,  # for the one that reads standard input
    )
    for done in (plain, strided, compared, scored, bigram):
        done.succeeds()
        assert "\x1b" not in done.out

    found = json.loads((toolkit.root / "plain.json").read_text())
    assert (found["recipe"], found["detokenizer"], found["normalize"]) == ("none", "none", "token")
    assert (found["window"], found["stride"]) == (32, 32)
    assert (found["bytes"], found["words"]) == (len(HELD_OUT), len(HELD_OUT.split()))
    nll = found["nll"]
    assert found["perplexity_per_token"] == pytest.approx(math.exp(nll / found["tokens"]))
    assert found["perplexity_per_word"] == pytest.approx(math.exp(nll / found["words"]))
    assert found["bits_per_byte"] == pytest.approx(nll / math.log(2) / found["bytes"])
    shown = dict(re.split("  +", line, maxsplit=1) for line in plain.out.splitlines())
    for name in ("recipe", "window", "stride", "normalize", "tokens", "words", "bytes"):
        assert shown[name] == str(found[name])
    for name in ("perplexity per token", "perplexity per word", "bits per byte"):
        assert float(shown[name].replace(",", "")) == pytest.approx(
            found[name.replace(" ", "_")], rel=1e-2
        )

    other = json.loads((toolkit.root / "strided.json").read_text())
    assert (other["window"], other["stride"], other["normalize"]) == (8, 3, "byte")
    assert (other["tokens"], other["nll"] != nll) == (found["tokens"], True)
    assert other["perplexity"] == pytest.approx(2 ** other["bits_per_byte"])

    run, same, first = json.loads((toolkit.root / "c.json").read_text())["models"]
    assert run["nll"] == same["nll"] == pytest.approx(nll, rel=1e-5)
    assert run["checkpoint"] == same["checkpoint"] == checkpoint.partition("/")[2]
    assert first["nll"] > nll  # the model that the run began with

    [line] = (toolkit.root / "scores.jsonl").read_text().splitlines()
    tokens = json.loads(line)
    assert tokens["text"] == HELD_OUT
    assert -sum(tokens["logprobs"]) == pytest.approx(nll, rel=1e-4)
    for name in ("tokens", "pieces", "ranks", "entropies"):
        assert len(tokens[name]) == found["tokens"]
    assert min(tokens["ranks"]) >= 1

    models = {
        each["model"]: each
        for each in json.loads((toolkit.root / "bigram.json").read_text())["models"]
    }
    assert list(models) == ["bigram, interpolated", "bigram, add-k", "run1"]
    assert models["run1"]["nll"] == pytest.approx(nll, rel=1e-5)
    for name, each in models.items():
        assert f"{each['bits_per_byte']:.3f} bits per byte  {name}" in bigram.out
        assert f"======== a sample of {name} ========\n{each['sample']}\n" in bigram.out


def test_many_texts_are_lines_of_json_and_short_ones_are_told(story: Story) -> None:
    lines = [{"text": "the first of them"}, {"text": "x"}, {"text": "and a third"}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (story.toolkit.root / "many.jsonl").write_text(text)
    done = story.toolkit.run(f"{EVALUATE} score --model_name run1 --file many.jsonl")
    done.says(1, "^many.jsonl, text 2, is shorter than two tokens")
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [(r["number"], r["text"]) for r in records] == [
        (1, lines[0]["text"]),
        (3, lines[2]["text"]),
    ]


def test_a_recipe_is_told_with_its_source_and_the_published_value(story: Story) -> None:
    root = story.toolkit.root
    (root / "cbt.txt").write_text("1 A cat .\n2 The XXXXX ran .\tcat\t\tcat|dog\n")
    (root / "lambada.jsonl").write_text('{"text": "one two three"}\n')
    cloze, words = story.toolkit.run_all(
        f"{EVALUATE} perplexity --model_name run1 --recipe cbt-cn --dataset cbt.txt --json 1.json",
        f"{EVALUATE} perplexity --model_name run1 --recipe lambada --dataset lambada.jsonl",
    )
    found = json.loads((root / "1.json").read_text())
    assert found["questions"] == 1
    assert found["accuracy"] in (0, 1)
    assert "84.35 % for 124M" in cloze.succeeds().out
    assert "last token accuracy no stop words" in words.succeeds().out
    assert "last word accuracy" in words.out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("perplexity --dataset one.txt", "one.txt is shorter than two tokens"),
        ("perplexity --dataset blank.txt", "blank.txt holds no text"),
        ("perplexity --dataset none.txt", "none.txt is not a file"),
        (
            "perplexity --dataset text.txt --stride 33",
            "stride of 33 is longer than the window of 32",
        ),
        ("perplexity --dataset text.txt --window 33", "window of 33 is longer than the model's"),
        ("perplexity --dataset text.txt --window ten", "window should be a whole number .* 'ten'"),
        ("perplexity --dataset text.txt --recipe squad", "no recipe 'squad'"),
        ("perplexity --dataset text.txt --recipe ptb --normalize byte", "leave out --normalize"),
        ("perplexity --dataset text.txt --normalize line", "one of token, word, byte, not 'line'"),
        ("perplexity --dataset text.txt --detokenizer bert", "no detokenizer 'bert'"),
        ("perplexity --dataset text.npz --detokenizer ptb", "text.npz holds tokens; give the text"),
        ("perplexity --dataset beyond.npz", "token id 300, but the model's vocabulary ends at 299"),
        ("perplexity --dataset text.txt --json no/where.json", "no folder for it"),
        ("perplexity --dataset text.txt --recipe cbt-ne", "not a line of the Children's Book Test"),
        ("score", "Give a text with --text, or a file of texts with --file"),
        ("score --text a", "The text is shorter than two tokens"),
        ("bigram --dataset blank.txt --held_out text.txt", "blank.txt holds no text"),
        ("compare --models 117M,nobody --dataset text.txt", "There is no model 'nobody'"),
        ("compare --models 117M/model-5 --dataset text.txt", "117M/model-5 is no checkpoint"),
    ],
)
def test_bad_input_is_told_without_tensorflow(
    home: Home, no_tensorflow: str, flags: str, sentence: str
) -> None:
    root = home.toolkit.root
    if not (root / "beyond.npz").exists():
        import numpy as np

        (root / "one.txt").write_text("a")
        (root / "blank.txt").write_text(" \n")
        np.savez(root / "beyond.npz", np.array([5, 300]))
    before = home.toolkit.contents()
    model = "" if flags.startswith("compare") else " --model_name 117M"
    done = home.toolkit.run(f"{no_tensorflow} {EVALUATE} {flags}{model}")
    done.says(1, sentence)
    assert done.out == ""
    assert home.toolkit.contents() == before


def test_ctrl_c_leaves_nothing_half_written(story: Story) -> None:
    toolkit = story.toolkit
    flags = "perplexity --model_name run1 --dataset text.txt --stride 1 --json left.json"
    before = toolkit.contents()
    with toolkit.start(f"{EVALUATE} {flags}") as running:
        running.send_when(signal.SIGINT, lambda: "token/s" in running.err)
        done = running.finish()
    assert (done.code, done.out) == (130, "")
    assert done.err.endswith("\ninterrupted\n")
    assert toolkit.contents() == before
