"""The Children's Book Test: which of ten words has been left out (Hill et al. 2016)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt2.data.readers import UTF_8, ReaderSettings
from gpt2.errors import UserError, in_short
from gpt2.evaluation.texts import TextEncoder, documents

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer

GAP = "XXXXX"


@dataclass(frozen=True)
class Question:
    """A sentence with a gap, what stands before it, and what may fill it.

    Attributes:
        context: the sentences before.
        query: the sentence; `GAP` stands in it once.
        answer: the choice that is right.
        choices: several words.
    """

    context: str
    query: str
    answer: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class ClozeResult:
    """How a model answered.

    Attributes:
        questions: how many there are.
        right: how many it answered rightly.
        nll: the summed nats of the right choices and the rests of their sentences.
        tokens: of the same.
    """

    questions: int
    right: int
    nll: float
    tokens: int

    @property
    def accuracy(self) -> float:
        """Share of 1."""
        return self.right / self.questions


def read_questions(path: str, reading: ReaderSettings = UTF_8) -> Iterator[Question]:
    r"""The questions of a file such as `cbtest_CN_test_2500ex.txt`.

    Numbered lines, from 1: sentences, and last the one with the gap, the answer and the choices:
    `21 He took the XXXXX .\tkey\t\tbox|cat|key`. Blank lines stand between questions.

    Raises:
        UserError: a line is not of this form, or there is no question.
    """
    found = False
    for document in documents(path, reading):
        context: list[str] = []
        for place, line in enumerate(document.splitlines(), start=1):
            if not line.strip():
                continue
            numbered = re.match(r"\s*\d+ ?", line)
            sentence, *columns = line[numbered.end() if numbered else 0 :].split("\t")
            if not numbered or (columns and (len(columns) < 2 or sentence.count(GAP) != 1)):
                raise UserError(
                    f"{path}: {in_short(line, 60)!r} (line {place}) is not a line of the "
                    "Children's Book Test: a number and a sentence; or, last, a number, a sentence "
                    f"with one {GAP}, the answer, and the choices with | between them."
                )
            if not columns:
                context.append(sentence.strip())
                continue
            answer, choices = columns[0].strip(), tuple(columns[-1].strip().split("|"))
            if answer not in choices:
                raise UserError(
                    f"{path}: the answer {in_short(answer, 60)!r} (line {place}) is not among the "
                    "choices."
                )
            yield Question(" ".join(context), sentence.strip(), answer, choices)
            found = True
            context.clear()
    if not found:
        raise UserError(f"{path} holds no question of the Children's Book Test.")


def measure(
    scorer: Scorer,
    questions: Iterable[Question],
    vocabulary: TextEncoder,
    window: int,
    detokenize: Callable[[str], str],
    progress: Callable[[int], object] = lambda questions: None,
) -> ClozeResult:
    """Answer each question with the choice that makes the sentence with it likeliest.

    Radford et al. 2019, section 3.2. Of a long context the window holds the last part.

    Args:
        questions: at least one.
        progress: called with the number of questions done.
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
        nats = [float(each.sum()) for each in scorer.score_endings(beginning, endings)]
        place = question.choices.index(question.answer)
        right += int(np.argmin(nats)) == place
        nll += nats[place]
        tokens += len(endings[place])
        count += 1
        progress(1)
    return ClozeResult(count, right, nll, tokens)
