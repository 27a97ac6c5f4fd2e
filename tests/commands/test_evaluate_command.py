"""evaluate.py on a run: output, JSON files, errors, and Ctrl+C."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from gpt2 import files
from tests.commands.toolkit_copy import Done, Home, Toolkit

EVALUATE = "python src/evaluate.py"
CHECKPOINT = "short/model-9"  # the newest
HELD_OUT = "Held out: the quick brown fox jumps over the lazy dog.\nAnd over the cat, too.\n"


# Without <|endoftext|> in the vocabulary, a single token cannot be predicted from another one.
TOO_SHORT = "(two tokens|nothing to predict)"
# Command lines that are wrong whatever the files are: exit code 2.
MISUSE = [
    ("perplexity --dataset text.txt --window ten", "--window must be a whole number, not 'ten'"),
    ("perplexity --dataset text.txt --recipe squad", "--recipe .* wikitext2, .*, not 'squad'"),
    ("perplexity --dataset text.txt --recipe ptb --normalize byte", "ptb .* omit --normalize"),
    ("perplexity --dataset text.txt --normalize line", "token, word, byte, not 'line'"),
    ("perplexity --dataset text.txt --errors drop", "strict, replace, not 'drop'"),
    ("score", "either --text or --file"),
    ("score --text a --file text.txt", "either --text or --file"),
    ("score a b", "unexpected argument 'b'"),
    ("bigram --dataset text.txt", "--held_out"),
    ("grid --temperature 0.7,hot", "--temperature must be a number, .* not '0.7,hot'"),
]
# Files and values that do not work: exit code 1.
BAD_INPUT = [
    ("perplexity --dataset one.txt --model_name plain", f"one.txt.* {TOO_SHORT}"),
    ("perplexity --dataset blank.txt", "blank.txt.* no text"),
    ("perplexity --dataset none.txt", "none.txt is not a file"),
    ("perplexity none.txt", "none.txt is not a file"),
    ("perplexity --dataset text.txt --stride 33", "stride .*33.* window .*32"),
    ("perplexity --dataset text.txt --window 33", "window .*33.*32"),
    ("perplexity --dataset text.txt --window 0", "--window .* at least 1, not 0"),
    ("perplexity --dataset text.txt --detokenizer bert", "detokenizer.* 'bert'"),
    ("perplexity --dataset text.npz --detokenizer ptb", "text.npz.* tokens"),
    ("perplexity --dataset beyond.npz", "300.* 299"),
    ("perplexity --dataset text.txt --json no/where.json", "no/where.json .* no folder"),
    ("perplexity --dataset text.txt --json models", "models cannot be written: it is a folder"),
    ("perplexity --dataset text.txt --recipe cbt-ne", "Children.s Book Test"),
    ("perplexity --dataset blank.txt --recipe cbt-cn", "blank.txt.*no question"),
    ("perplexity --dataset one.txt --recipe lambada", "'a'"),
    ("perplexity --dataset latin.txt", "--encoding .* --errors replace"),
    ("score --text a --model_name plain", TOO_SHORT),
    ("bigram --dataset blank.txt --held_out text.txt", "blank.txt.* no text"),
    ("bigram --dataset none.txt --held_out text.txt", "none.txt is not a file"),
    ("compare --models , --dataset text.txt", "--models: no name"),
    ("compare --models 117M,nobody --dataset text.txt", "There is no model 'nobody'"),
    ("compare --models 117M/model-5 --dataset text.txt", "117M.*model-5"),
    ("grid --top_p 0.5,2", "top_p .* from 0 to 1, not 2.0"),
    ("grid --length 10,-1", "--length .* from 0 to 100,000,000, not -1"),
]
MANY = ("the first of them", "x", "and a third")


def make_model_without_endoftext(toolkit: Toolkit) -> None:
    """Make `models/plain`, whose vocabulary has no <|endoftext|>."""
    folder = toolkit.root / "models" / "plain"
    shutil.copytree(toolkit.root / "models" / "117M", folder, dirs_exist_ok=True)
    vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    vocabulary.pop("<|endoftext|>", None)
    (folder / "encoder.json").write_text(json.dumps(vocabulary), encoding="utf-8")


@pytest.fixture(scope="module")
def done(trained: Toolkit) -> dict[str, Done]:
    """The results of the commands that need TensorFlow, which is imported once for all of them."""
    files = {
        "held_out.txt": HELD_OUT,
        "many.jsonl": "".join(f"{json.dumps({'text': text})}\n" for text in MANY),
        "cbt.txt": "1 A cat .\n2 The XXXXX ran .\tcat\t\tcat|dog\n",
        "lambada.jsonl": '{"text": "one two three"}\n',
        "table.csv": "name,words\nGr\udcf6\udcdfe,the words\n",  # in Latin-1
    }
    for name, text in files.items():
        (trained.root / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    make_model_without_endoftext(trained)
    perplexity = "perplexity --model_name short --dataset"
    lines = {
        "plain": f"{perplexity} held_out.txt --json plain.json",
        "strided": f"{perplexity} held_out.txt --window 8 --stride 3 --normalize byte"
        " --json s.json",
        "compared": f"compare --models short,{CHECKPOINT},117M --dataset held_out.txt"
        " --json c.json",
        "scored": "score --model_name short --file - --json scores.jsonl",
        "bigram": "bigram --model_name short --dataset text.npz --held_out held_out.txt --length 12"
        " --seed 3 --json bigram.json",
        "many": "score --model_name plain --file many.jsonl",
        "cloze": f"{perplexity} cbt.txt --recipe cbt-cn --json cloze.json",
        "lambada": f"{perplexity} lambada.jsonl --recipe lambada",
        "wikitext2": f"{perplexity} held_out.txt --recipe wikitext2 --json wikitext2.json",
        "table": "score --model_name short --file table.csv --column 1 --errors replace"
        " --json table.jsonl",
    }
    dones = trained.run_in_one_process(
        *(f"{EVALUATE} {line}" for line in lines.values()),
        typed=HELD_OUT,  # for the one that reads standard input
    )
    return dict(zip(lines, dones, strict=True))


def result(toolkit: Toolkit, name: str) -> dict:
    return json.loads((toolkit.root / name).read_text(encoding="utf-8"))


def test_all_subcommands_agree_on_the_negative_log_likelihood(
    trained: Toolkit, done: dict[str, Done]
) -> None:
    """Perplexity, comparison, scores and the bigram command, on one text under one model."""
    for name in ("plain", "strided", "compared", "scored", "bigram"):
        assert "\x1b" not in done[name].succeeds().out

    found = result(trained, "plain.json")
    assert (found["recipe"], found["detokenizer"], found["normalize"]) == ("none", "none", "token")
    assert (found["window"], found["stride"]) == (32, 32)
    assert (found["bytes"], found["words"]) == (len(HELD_OUT), len(HELD_OUT.split()))
    nll = found["nll"]
    assert found["perplexity_per_token"] == pytest.approx(math.exp(nll / found["tokens"]))
    assert found["perplexity_per_word"] == pytest.approx(math.exp(nll / found["words"]))
    assert found["bits_per_byte"] == pytest.approx(nll / math.log(2) / found["bytes"])
    shown = dict(re.split("  +", line, maxsplit=1) for line in done["plain"].out.splitlines())
    for name in ("recipe", "window", "stride", "normalize", "tokens", "words", "bytes"):
        assert shown[name] == str(found[name])
    assert "perplexity per token" not in shown  # the same as "perplexity"
    for name in ("perplexity", "perplexity per word", "bits per byte"):
        assert float(shown[name].replace(",", "")) == pytest.approx(
            found[name.replace(" ", "_")], rel=1e-2
        )

    other = result(trained, "s.json")
    assert (other["window"], other["stride"], other["normalize"]) == (8, 3, "byte")
    assert (other["tokens"], other["nll"] != nll) == (found["tokens"], True)
    assert other["perplexity"] == pytest.approx(2 ** other["bits_per_byte"])

    run, same, first = result(trained, "c.json")["models"]
    assert run["nll"] == same["nll"] == pytest.approx(nll, rel=1e-5)
    assert run["checkpoint"] == same["checkpoint"] == CHECKPOINT.partition("/")[2]
    assert first["nll"] > nll  # the model that the run began with

    [line] = (trained.root / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    tokens = json.loads(line)
    assert tokens["text"] == HELD_OUT
    assert -sum(tokens["logprobs"]) == pytest.approx(nll, rel=1e-4)
    for name in ("tokens", "pieces", "ranks", "entropies"):
        assert len(tokens[name]) == found["tokens"]
    assert min(tokens["ranks"]) >= 1

    models = {each["model"]: each for each in result(trained, "bigram.json")["models"]}
    assert list(models) == ["bigram, interpolated", "bigram, add-k", "short"]
    assert models["short"]["nll"] == pytest.approx(nll, rel=1e-5)
    for name, each in models.items():
        assert f"{each['bits_per_byte']:.3f} bits per byte  {name}" in done["bigram"].out
        assert f"======== a sample of {name} ========\n{each['sample']}\n" in done["bigram"].out


def test_several_texts_are_json_lines_and_a_short_one_is_reported(done: dict[str, Done]) -> None:
    done["many"].says(1, f"^many.jsonl text 2.*{TOO_SHORT}")
    records = [json.loads(line) for line in done["many"].out.splitlines()]
    assert [record["number"] for record in records] == [1, 3]
    for record in records:  # without the first token, which is not predicted
        assert MANY[record["number"] - 1].endswith(record["text"])


def test_a_recipe_is_printed_with_the_published_value(
    trained: Toolkit, done: dict[str, Done]
) -> None:
    found = result(trained, "cloze.json")
    assert found["questions"] == 1
    assert found["accuracy"] in (0, 1)
    assert "84.35" in done["cloze"].succeeds().out
    assert "last token accuracy no stop words" in done["lambada"].succeeds().out
    assert "last word accuracy" in done["lambada"].out
    # The blank lines that the recipe inserts are predicted, but bytes are those of the file.
    done["wikitext2"].succeeds()
    plain, joined = result(trained, "plain.json"), result(trained, "wikitext2.json")
    assert joined["tokens"] > plain["tokens"]
    assert (joined["bytes"], joined["words"]) == (plain["bytes"], plain["words"])


def test_reader_flags_are_those_of_encode(trained: Toolkit, done: dict[str, Done]) -> None:
    done["table"].succeeds()
    assert result(trained, "table.jsonl")["text"] == "Gr\ufffd\ufffde"


def test_bad_input_is_reported_without_tensorflow(home: Home, no_tensorflow: str) -> None:
    root = home.toolkit.root
    (root / "one.txt").write_text("a")
    (root / "blank.txt").write_text(" \n")
    (root / "latin.txt").write_bytes(b"Gr\xf6\xdfe")
    np.savez(root / "beyond.npz", np.array([5, 300]))
    make_model_without_endoftext(home.toolkit)
    before = home.toolkit.contents()
    cases = [(2, *case) for case in MISUSE] + [(1, *case) for case in BAD_INPUT]
    lines = [
        f"{no_tensorflow} {EVALUATE} {flags}"
        + " --model_name 117M" * ("compare" not in flags and "--model_name" not in flags)
        for _, flags, _ in cases
    ]
    dones = home.toolkit.run_in_one_process(*lines)
    for done, (code, _, sentence) in zip(dones, cases, strict=True):
        done.says(code, sentence)
        assert done.out == ""
    assert home.toolkit.contents() == before


def test_results_are_valid_json_whatever_the_numbers_and_paths() -> None:
    value = {"nll": math.inf, "models": [{"k": math.nan}, (1, 0.5)], "dataset": "a\udcff.txt"}
    text = files.to_json(value)
    text.encode("utf-8")
    expected = {"nll": None, "models": [{"k": None}, [1, 0.5]], "dataset": "a\udcff.txt"}
    assert json.loads(text) == expected


def test_ctrl_c_leaves_no_partial_file(home: Home) -> None:
    toolkit = home.toolkit
    flags = "perplexity --model_name 117M --dataset text.txt --stride 1 --json left.json"
    before = toolkit.contents()
    with toolkit.start(f"{EVALUATE} {flags}") as running:
        running.send_when(signal.SIGINT, lambda: "token/s" in running.err)
        done = running.finish()
    assert (done.code, done.out) == (130, "")
    assert done.err.endswith("\ninterrupted\n")
    assert toolkit.contents() == before


@pytest.mark.skipif(os.name == "nt", reason="folders are closed in other ways there")
def test_a_read_only_folder_is_reported_before_the_evaluation(
    home: Home, no_tensorflow: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    line = f"perplexity --model_name 117M --dataset text.txt --json {tmp_path}/result.json"
    done = home.toolkit.run(f"{no_tensorflow} {EVALUATE} {line}")
    done.says(1, "result.json cannot be written: no permission")
