"""Texts, their tokens and their sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import npz
from gpt2.errors import UserError
from gpt2.evaluation.texts import ScoredText, TextEncoder, count_lines, documents
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer

END = "<|endoftext|>"


def spelled(text: ScoredText, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(text.tokens.tolist())


def test_documents_stand_apart_and_sizes_are_theirs(
    byte_vocabulary: TextEncoder, byte_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "1.txt").write_bytes("\ufeffa é\n".encode())
    (tmp_path / "2.txt").write_bytes(b" \n")
    (tmp_path / "3.txt").write_bytes(f"b c{END}d".encode())
    text = byte_vocabulary.read(str(tmp_path))
    assert spelled(text, byte_tokenizer) == f"{END}a é\n{END}b c{END}d"
    assert (text.words, text.size, text.predicted) == (5, 5 + 3 + 1, 5 + 3 + 1 + 2)


def test_encoded_text_has_the_same_tokens_and_sizes(
    byte_vocabulary: TextEncoder, byte_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "1.txt").write_bytes(f"a é\n{END}b c".encode())
    plain = byte_vocabulary.read(str(tmp_path / "1.txt"))
    end = byte_tokenizer.endoftext
    npz.write_parts(
        tmp_path / "1.npz", [(np.array([*byte_tokenizer.encode(f"a é\n{END}b c"), end]), True)]
    )
    encoded = byte_vocabulary.read(str(tmp_path / "1.npz"))
    np.testing.assert_array_equal(encoded.tokens, plain.tokens)
    assert (encoded.words, encoded.size) == (plain.words, plain.size) == (4, 8)


def test_sizes_are_of_the_original_text(
    byte_vocabulary: TextEncoder, byte_tokenizer: Tokenizer
) -> None:
    text = byte_vocabulary.text(["a b c\nd \n"], "it", lambda text: text.replace(" ", ""))
    assert spelled(text, byte_tokenizer) == f"{END}abc\nd\n"
    assert (text.words, text.size) == (4, 9)
    assert byte_vocabulary.text(["a b c\nd \n"], "it", line_ends=True).words == 6


def test_without_a_mark_the_first_token_is_not_predicted() -> None:
    vocabulary = {chr(letter): number for number, letter in enumerate(range(97, 123))}
    text = TextEncoder(Tokenizer(vocabulary, []), HParams(n_vocab=26)).text(["abc", "de"], "it")
    assert (text.tokens.tolist(), text.predicted) == ([0, 1, 2, 3, 4], 4)


def test_bad_texts_are_told(
    byte_vocabulary: TextEncoder, byte_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    npz.write_parts(tmp_path / "end.npz", [(np.array([byte_tokenizer.endoftext]), True)])
    npz.write_parts(tmp_path / "beyond.npz", [(np.array([5, 300, 4]), True)])
    for name, sentence in {
        "empty.txt": "no text",
        "end.npz": "no text",
        "beyond.npz": "token id 300, but the model's vocabulary ends at 256",
        "none.txt": "not a file",
    }.items():
        with pytest.raises(UserError, match=sentence):
            byte_vocabulary.read(str(tmp_path / name))
    with pytest.raises(UserError, match=r"end\.npz: contains tokens"):
        list(documents(str(tmp_path / "end.npz")))
    small = TextEncoder(byte_tokenizer, HParams(n_vocab=100))
    with pytest.raises(UserError, match="the model's vocabulary ends at 99"):
        small.text(["é"], "it")


@pytest.mark.parametrize("form", ["txt", "npz"])
def test_a_text_of_one_token_is_predicted_from_endoftext(
    byte_vocabulary: TextEncoder, byte_tokenizer: Tokenizer, tmp_path: Path, form: str
) -> None:
    (tmp_path / "one.txt").write_text("a")
    end = byte_tokenizer.endoftext
    npz.write_parts(tmp_path / "one.npz", [(np.array([*byte_tokenizer.encode("a"), end]), True)])
    text = byte_vocabulary.read(str(tmp_path / f"one.{form}"))
    assert spelled(text, byte_tokenizer) == f"{END}a"
    assert (text.predicted, text.words, text.size) == (1, 1, 1)


def test_without_endoftext_one_token_cannot_be_predicted() -> None:
    vocabulary = TextEncoder(Tokenizer({"a": 0, "b": 1}, []), HParams(n_vocab=2))
    assert vocabulary.text(["ab"], "it").predicted == 1
    with pytest.raises(UserError, match="it: nothing to predict"):
        vocabulary.text(["a"], "it")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
def test_the_bytes_of_a_text_are_those_of_its_file_whatever_its_line_ends(
    byte_vocabulary: TextEncoder, byte_tokenizer: Tokenizer, tmp_path: Path, end: str
) -> None:
    original = f"a é{end}{end}b {end}"
    # Larger than a block of reading, so that line ends are split between blocks somewhere.
    original *= 1 + (1 << 21) // len(original)
    (tmp_path / "a.txt").write_bytes(original.encode())
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": original}) + "\n")
    expected = byte_tokenizer.encode(original.replace(end, "\n"))
    for name in ("a.txt", "a.jsonl"):
        text = byte_vocabulary.read(str(tmp_path / name))
        assert text.tokens[1:].tolist() == expected
        assert text.size == len(original.encode())
    given = byte_vocabulary.text([original], "it")
    assert (given.tokens[1:].tolist(), given.size) == (expected, len(original.encode()))
    assert byte_vocabulary.text([original], "it", line_ends=True).words == len(
        original.split()
    ) + original.count(end)


def test_blank_documents_and_marks_at_the_ends_count_in_no_form_of_a_file(
    byte_vocabulary: TextEncoder, byte_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    content = f"{END}{END}a b{END} \n{END}c{END}"
    (tmp_path / "a.txt").write_text(content)
    npz.write_parts(tmp_path / "a.npz", [(np.array(byte_tokenizer.encode(content)), True)])
    plain, encoded = (byte_vocabulary.read(str(tmp_path / name)) for name in ("a.txt", "a.npz"))
    assert spelled(plain, byte_tokenizer) == f"{END}a b{END}c"
    np.testing.assert_array_equal(encoded.tokens, plain.tokens)
    assert (encoded.words, encoded.size) == (plain.words, plain.size) == (3, 4)


@pytest.mark.parametrize("other", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"], ids=ascii)
def test_only_a_newline_ends_a_line(byte_vocabulary: TextEncoder, other: str) -> None:
    assert byte_vocabulary.text([f"a{other}b\nc"], "it", line_ends=True).words == 3 + 2
    assert [count_lines(text) for text in ("", "a", "a\n", f"\n{other}")] == [0, 1, 1, 2]
