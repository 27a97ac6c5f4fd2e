"""`tokenize`: the tokens of a text or a file, as a table and in color."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from gpt2.commands.tokenize import COLORS, colored, table
from gpt2.tokenizer import Tokenizer, train_vocabulary
from tests.commands.toolkit_copy import Done, Toolkit

SCRIPT = "python src/show_tokens.py"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A vocabulary of the bytes, `he`, `the` and two special tokens."""
    texts = ["the the the"]
    return Tokenizer(*train_vocabulary(texts, 260, special_tokens=["<|poem|>"], workers=1))


def rows(done: Done) -> list[tuple[int, int, str]]:
    """Return id, bytes and text of each token in a table."""
    found = re.findall(r"^ *(\d+) +(\d+)  (.*)$", done.succeeds().out, re.MULTILINE)
    return [(int(number), int(size), text) for number, size, text in found]


@pytest.fixture
def toolkit(tmp_path: Path, tokenizer: Tokenizer) -> Toolkit:
    toolkit = Toolkit(tmp_path / "toolkit")
    folder = toolkit.root / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "encoder.json").write_text(json.dumps(tokenizer.vocabulary), encoding="utf-8")
    pairs = "".join(f"{first} {second}\n" for first, second in tokenizer.merges)
    (folder / "vocab.bpe").write_text(f"#version: 0.2\n{pairs}", encoding="utf-8")
    return toolkit


def test_a_text_and_a_file_have_the_same_tokens_as_the_encoder(
    toolkit: Toolkit, no_tensorflow: str, tokenizer: Tokenizer
) -> None:
    text = "<|poem|>the é the"
    (toolkit.root / "poem.txt").write_text(text, encoding="utf-8")
    start = f"{no_tensorflow} {SCRIPT}"
    of_text, of_file, of_input, empty, missing = toolkit.run_all(
        f'{start} "{text}" --model_name tiny',
        f"{start} poem.txt --model_name tiny",
        f"{start} - --model_name tiny",
        f'{start} "" --model_name tiny',
        f"{start} the --model_name tinny",
        typed=text,
    )
    ids = tokenizer.encode(text)
    for done in (of_text, of_file, of_input):
        assert [number for number, _, _ in rows(done)] == ids
        assert sum(size for _, size, _ in rows(done)) == len(text.encode())
        assert f"{len(ids)} tokens, 18 bytes, {18 / len(ids):.2f} bytes per token" in done.out
    assert [shown for _, _, shown in rows(of_text)][:2] == ['"<|poem|>"', '"the"']
    assert "bytes c3" in of_text.out  # half of the é
    empty.says(1, "no text")
    missing.says(1, "'tinny'.*tiny")


def test_control_characters_are_escaped_in_the_table_and_in_color(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("a\x1b[2J\nb\x9b")
    for line in (*table(tokens, tokenizer), *colored(tokens, tokenizer)):
        for color in (*COLORS, "\x1b[0m"):
            line = line.replace(color, "")
        assert "\x1b" not in line and "\x9b" not in line


def test_neighboring_tokens_differ_in_color_and_the_text_is_complete(tokenizer: Tokenizer) -> None:
    pieces = list(colored(tokenizer.encode("the théé"), tokenizer))
    found = [re.findall(r"\x1b\[30;\d+m", piece)[0] for piece in pieces]
    assert all(one != other for one, other in itertools.pairwise(found))
    assert re.sub(r"\x1b\[[\d;]*m", "", "".join(pieces)) == "the théé"


def test_the_standard_module_tokenize_is_not_hidden_by_a_script() -> None:
    scripts = Path(__file__).resolve().parents[2] / "src"
    assert not (scripts / "tokenize.py").exists()
