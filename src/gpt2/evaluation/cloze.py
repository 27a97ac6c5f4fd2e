"""The Children's Book Test: choose the missing word of a sentence (Hill et al. 2016)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt2.data.readers import UTF_8, ReaderSettings, normalize_line_ends
from gpt2.errors import UserError, quoted
from gpt2.evaluation.texts import TextEncoder, documents

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer

GAP = "XXXXX"


@dataclass(frozen=True)
class Question:
    """A cloze question.

    Attributes:
        context: the preceding sentences.
        query: the sentence with one `GAP`.
        answer: the correct choice.
        choices: the candidate words.
    """

    context: str
    query: str
    answer: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class ClozeResult:
    """The answers of a model.

    Attributes:
        questions: number of questions.
        right: number of correct answers.
        nll: summed negative log-likelihood of the correct choices and the rest of their sentences,
            in nats.
        tokens: number of tokens that `nll` sums over.
    """

    questions: int
    right: int
    nll: float
    tokens: int

    @property
    def accuracy(self) -> float:
        """Return the share of correct answers, 0 to 1."""
        return self.right / self.questions


def read_questions(path: str, reading: ReaderSettings = UTF_8) -> Iterator[Question]:
    r"""Yield the questions of a file such as `cbtest_CN_test_2500ex.txt`.

    Its lines are numbered from 1 within each question. The last one has the query, the answer and
    the choices: `21 He took the XXXXX .\tkey\t\tbox|cat|key`. Blank lines separate questions.

    Raises:
        UserError: a line has another format, or there is no question.
    """
    found = False
    for document in documents(path, reading):
        context: list[str] = []
        for number, line in enumerate(normalize_line_ends(document).split("\n"), start=1):
            if not line.strip():
                continue
            sentence, *columns = _parse_line(line, f"{path} line {number}")
            if not columns:
                context.append(sentence)
                continue
            answer, *choices = columns
            yield Question(" ".join(context), sentence, answer, tuple(choices))
            found = True
            context.clear()
    if not found:
        raise UserError(f"{path}: no questions of the Children's Book Test found.")


def _parse_line(line: str, place: str) -> list[str]:
    """Return the sentence of a line; with a query, also the answer and the choices.

    Args:
        place: file and line number, for messages.

    Raises:
        UserError: the line has another format.
    """
    numbered = re.match(r"\s*\d+ ?", line)
    sentence, *columns = line[numbered.end() if numbered else 0 :].split("\t")
    if not numbered or (columns and (len(columns) < 2 or sentence.count(GAP) != 1)):
        raise UserError(
            f"{place}: {quoted(line)} is not a line of the Children's Book Test. Expected NUMBER "
            f"SENTENCE, or NUMBER SENTENCE WITH {GAP}<tab>ANSWER<tab><tab>CHOICE|CHOICE|..."
        )
    if not columns:
        return [sentence.strip()]
    answer, choices = columns[0].strip(), columns[-1].strip().split("|")
    if answer not in choices:
        raise UserError(f"{place}: the answer {quoted(answer)} is not among the choices.")
    return [sentence.strip(), answer, *choices]


def measure(
    scorer: Scorer,
    questions: Iterable[Question],
    vocabulary: TextEncoder,
    window: int,
    detokenize: Callable[[str], str],
    progress: Callable[[int], object] = lambda questions: None,
) -> ClozeResult:
    """Answer each question with the choice that maximizes the probability of the sentence.

    The probability is that of the choice and the rest of the sentence, given the context, which is
    truncated to the last tokens that fit the window.

    Args:
        questions: at least one.
        window: maximum number of input tokens, 1 to n_ctx.
        detokenize: applied to context and query together.
        progress: called with the number of newly answered questions.

    Source: Radford et al. 2019, section 3.2.
    """
    count = right = tokens = 0
    nll = 0.0
    for question in questions:
        before, _, after = detokenize(f"{question.context} {question.query}").rpartition(GAP)
        space = " " if before.endswith((" ", "\n")) else ""
        endings = [
            vocabulary.encode(f"{space}{choice}{after}")[-window:] for choice in question.choices
        ]
        room = window + 1 - max(map(len, endings))
        beginning = vocabulary.begun(vocabulary.encode(before.rstrip()))[-room:]
        nats = [
            float(each.sum(dtype="float64")) for each in scorer.score_endings(beginning, endings)
        ]
        correct = question.choices.index(question.answer)
        right += int(np.argmin(nats)) == correct
        nll += nats[correct]
        tokens += len(endings[correct])
        count += 1
        progress(1)
    return ClozeResult(count, right, nll, tokens)
