"""Cutting a text into words."""

from __future__ import annotations

import random
from itertools import chain

import pytest
import regex

from gpt2.errors import UserError
from gpt2.tokenizer import words as words_module
from gpt2.tokenizer.words import check_characters, words
from tests.tokenizer.references import GPT2_PATTERN, random_text, slow_words


def cut(text: str) -> list[str]:
    return list(chain.from_iterable(words(text)))


# Worked out by hand from GPT-2's pattern.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("I'll pay  $20.", ["I", "'ll", " pay", " ", " $", "20", "."]),
        ("don't DON'T", ["don", "'t", " DON", "'", "T"]),
        ("a 's", ["a", " '", "s"]),
        ("tabs\t\tx", ["tabs", "\t", "\t", "x"]),
        ("end  \n", ["end", "  \n"]),
        ("abc123été!?", ["abc", "123", "été", "!?"]),
    ],
)
def test_words_are_those_of_gpt2s_pattern(text, expected):
    assert cut(text) == expected


def test_words_equal_those_of_a_slow_twin_without_regular_expressions(
    generator: random.Random,
):
    for _ in range(500):
        text = random_text(generator)
        assert cut(text) == slow_words(text)


@pytest.mark.parametrize("first", range(0, 0x110000, 0x10000))
def test_words_are_those_of_gpt2s_pattern_for_every_character(first: int):
    characters = [chr(number) for number in range(first, first + 0x10000)]
    characters = [character for character in characters if not "\ud800" <= character <= "\udfff"]
    for text in (
        "".join(characters),
        "".join(
            f"a{c}'s {c} {c}{c}1{c}!{c}ll  {c}\n"
            for c in characters[:: 1 if first < 0x40000 else 16]
        ),
    ):
        assert cut(text) == regex.findall(GPT2_PATTERN, text)


def test_a_character_beyond_u_ffff_at_a_cut_changes_no_word(monkeypatch: pytest.MonkeyPatch):
    # A letter, a digit and a mark of theirs, behind the place where the text may be cut.
    for text in (
        "中文\U00020bb7字",
        "ab\U0001d41cd",
        "12\U0001d7d14",
        "!!🚀!! 🚀",
        "'\U0001d41c '\U0001d7d1",
    ):
        for part in range(len(text)):
            monkeypatch.setattr(words_module, "_PART", part)
            assert cut(text) == regex.findall(GPT2_PATTERN, text)


def test_a_text_without_spaces_comes_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(words_module, "_PART", 10)
    for text in ("天地玄黄,宇宙洪荒。" * 50, "a0B1c2D3" * 50, "0x,1f,!!" * 50):
        lists = list(words(text))
        assert len(lists) > 20
        assert list(chain.from_iterable(lists)) == regex.findall(GPT2_PATTERN, text)


def test_a_long_text_taken_in_parts_has_the_same_words(
    generator: random.Random, monkeypatch: pytest.MonkeyPatch
):
    for _ in range(300):
        text = random_text(generator)
        monkeypatch.setattr(words_module, "_PART", generator.randrange(12))
        assert cut(text) == slow_words(text)


def test_words_of_a_long_text_come_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(words_module, "_PART", 10)
    lists = list(words("word " * 100))
    assert len(lists) > 20
    assert max(map(len, lists)) <= 4


def test_half_a_character_is_refused_with_its_place():
    with pytest.raises(UserError, match=r"Character 3 .*U\+DC80"):
        check_characters("é中a\udc80b")
    check_characters("whole characters 🚀 pass")
