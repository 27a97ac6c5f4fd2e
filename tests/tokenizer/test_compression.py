"""Judging a vocabulary by text that it was not learnt from."""

from __future__ import annotations

import pytest

from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from gpt2.tokenizer.compression import bytes_per_token, hold_out
from gpt2.tokenizer.words import words


def test_bytes_per_token_as_worked_by_hand():
    tokenizer = Tokenizer({"a": 0, "b": 1, "ab": 2, "Ã": 3, "¤": 4, ENDOFTEXT: 5}, [("a", "b")])
    # ab ab, then the two bytes of ä: 6 bytes in 4 tokens.
    assert bytes_per_token(tokenizer, ["abab", "ä"]) == 6 / 4
    assert bytes_per_token(tokenizer, []) == 0


@pytest.mark.parametrize(
    "texts",
    [
        ["one two three " * 10_000],
        ["one two three " * 200] * 100,
        ["a short line"] * 20_000,
        ["x" * 100_000, "y " * 100_000],
    ],
)
def test_a_twentieth_is_held_out_and_nothing_is_lost_or_cut(texts: list[str]):
    held_out: list[str] = []
    rest = list(hold_out(texts, held_out))
    everything = "".join(texts)
    assert 0.03 < len("".join(held_out)) / len(everything) < 0.06
    assert len("".join(rest)) + len("".join(held_out)) == len(everything)
    known = {word for some in words(" " + everything) for word in some}
    known |= {word for text in texts for some in words(text) for word in some}
    for part in rest + held_out:
        assert {word for some in words(part) for word in some} <= known


def test_of_a_short_text_nothing_is_held_out():
    held_out: list[str] = []
    assert list(hold_out(["too short"] * 10, held_out)) == ["too short"] * 10
    assert held_out == []


def test_no_more_is_held_out_than_tells_enough():
    held_out: list[str] = []
    for _ in hold_out(["word " * 200_000] * 60, held_out):
        pass
    assert len("".join(held_out)) <= 2_000_100
