"""Texts, their tokens and their sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt2.data import npz
from gpt2.errors import UserError
from gpt2.evaluation.texts import ScoredText, TextEncoder, documents
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
    npz.write(tmp_path / "1.npz", [np.array([*byte_tokenizer.encode(f"a é\n{END}b c"), end])])
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
    (tmp_path / "one.txt").write_text("a")
    npz.write(tmp_path / "one.npz", [np.array([5, byte_tokenizer.endoftext])])
    npz.write(tmp_path / "beyond.npz", [np.array([5, 300, 4])])
    for name, sentence in {
        "empty.txt": "holds no text",
        "one.txt": "shorter than two tokens",
        "one.npz": "shorter than two tokens",
        "beyond.npz": "token id 300, but the model's vocabulary ends at 256",
        "none.txt": "not a file",
    }.items():
        with pytest.raises(UserError, match=sentence):
            byte_vocabulary.read(str(tmp_path / name))
    with pytest.raises(UserError, match="holds tokens; give the text"):
        list(documents(str(tmp_path / "one.npz")))
    small = TextEncoder(byte_tokenizer, HParams(n_vocab=100))
    with pytest.raises(UserError, match="the model's vocabulary ends at 99"):
        small.text(["é"], "it")
