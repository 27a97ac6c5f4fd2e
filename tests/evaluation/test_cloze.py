"""The Children's Book Test: its file, and its answers by the paper's rule, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2.errors import UserError
from gpt2.evaluation import cloze
from gpt2.evaluation.cloze import Question
from gpt2.evaluation.texts import TextEncoder

FILE = """\
1 The cat sat .
2 It slept .
3 Then the XXXXX ran .\tcat\t\tdog|cat|ox

1 A b .
2 XXXXX ran\tox\t\tcat|ox
"""
QUESTIONS = [
    Question("The cat sat . It slept .", "Then the XXXXX ran .", "cat", ("dog", "cat", "ox")),
    Question("A b .", "XXXXX ran", "ox", ("cat", "ox")),
]


def test_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cbtest.txt"
    path.write_text(FILE)
    assert list(cloze.read_questions(str(path))) == QUESTIONS


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("once upon a time", r"other\.txt line 2: 'once upon a time' is not a line"),
        ("21 the XXXXX ran\tcat", "is not a line"),
        ("21 the cat ran\tcat\t\tcat|dog", "is not a line"),
        ("21 the XXXXX ran\tcat\t\tdog|ox", "line 2: the answer 'cat' is not among the choices"),
    ],
)
def test_another_file_is_told(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "other.txt"
    path.write_text(f"1 A b .\n{line}\n")
    with pytest.raises(UserError, match=sentence):
        list(cloze.read_questions(str(path)))


def test_a_file_without_questions_is_told(tmp_path: Path) -> None:
    path = tmp_path / "blank.txt"
    path.write_text("1 A b .\n")
    with pytest.raises(UserError, match=r"blank\.txt: no questions"):
        list(cloze.read_questions(str(path)))


def test_by_hand(byte_vocabulary: TextEncoder, written_scorer: Callable) -> None:
    # What stands before the choice costs nothing but a mistake: 100 nats. A letter of "dog" costs
    # 1, of "cat" 2, of "ox" 1; after "ox" each letter costs 2, after "dog" 1, after "cat" 0.
    own, later = {"dog": 1, "cat": 2, "ox": 1}, {"dog": 1, "cat": 0, "ox": 2}

    def rule(text: str, place: int) -> tuple[float, int, int]:
        gap = text.rindex("Then the ") if "Then" in text else text.rindex("A b .")
        gap += len("Then the ") if "Then" in text else len("A b . ")
        word = text[gap:].split()[0]
        if place < gap - 1:
            return 100.0, 0, 0
        return (own[word] if place < gap + len(word) else later[word]), 0, 0

    scorer, done = written_scorer(rule), []
    found = cloze.measure(scorer, QUESTIONS, byte_vocabulary, 1000, lambda text: text, done.append)
    assert scorer.seen[1] == "<|endoftext|>The cat sat . It slept . Then the cat ran ."
    assert scorer.seen[4] == "<|endoftext|>A b . ox ran"
    # " dog ran .": 4 + 6; " cat ran .": 8 + 0; " ox ran .": 3 + 12: cat, rightly.
    # " cat ran": 8 + 0; " ox ran": 3 + 8: cat, wrongly.
    assert (found.questions, found.right, found.accuracy, sum(done)) == (2, 1, 0.5, 2)
    assert (found.nll, found.tokens) == (8 + 11, 10 + 7)


def test_the_window_holds_the_end(byte_vocabulary: TextEncoder, written_scorer: Callable) -> None:
    scorer = written_scorer(lambda text, place: (1.0, 0, 0))
    cloze.measure(scorer, QUESTIONS[1:], byte_vocabulary, 8, lambda text: text)
    assert scorer.seen == [". cat ran", ". ox ran"]


@pytest.mark.parametrize("end", ["\r\n", "\r"], ids=repr)
def test_the_line_ends_of_another_system_change_nothing(tmp_path: Path, end: str) -> None:
    path = tmp_path / "cbtest.txt"
    path.write_bytes(FILE.replace("\n", end).encode())
    assert list(cloze.read_questions(str(path))) == QUESTIONS


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "cbtest.txt"
    path.write_text(FILE.replace("It slept", "It\u2028slept\x85now"), "utf-8")
    first, _ = cloze.read_questions(str(path))
    assert first.context == "The cat sat . It\u2028slept\x85now ."
