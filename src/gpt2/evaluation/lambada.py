"""LAMBADA: the last word of a passage, which only the whole passage tells (Paperno et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt2.errors import UserError
from gpt2.evaluation.perplexity import exponential
from gpt2.evaluation.texts import TextEncoder
from gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer

# The paper lets no stop word be the answer (section 3.3) and does not say which words it means.
# These are English pronouns, determiners, prepositions, conjunctions, auxiliaries and the like.
_WORDS = """
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his
himself she her hers herself it its itself they them their theirs themselves one
a an the this that these those some any each every either neither no all both few many much more
most other another such what which who whom whose
and or but nor so yet if because as while when where why how than though although until unless
since whether
of in on at by for with about against between among into onto through during before after above
below over under to from up down out off around near across along toward towards upon within
without behind beside beyond
am is are was were be been being have has had having do does did doing will would shall should
can could may might must s t d ll m re ve
not only own same too very just also even still again then once here there now ever never
always
"""
STOP_WORDS = frozenset(_WORDS.split())


@dataclass(frozen=True)
class Passage:
    """What a model reads of a passage.

    Attributes:
        tokens: ids, int32 [T + 1]; the first one is not predicted.
        word: how many of them, at the end, are the last word.
    """

    tokens: np.ndarray
    word: int


@dataclass(frozen=True)
class LambadaResult:
    """How often the end of a passage was predicted; accuracies are shares of 1.

    Attributes:
        passages: how many there are.
        last_token_accuracy: the last token is the likeliest.
        last_token_accuracy_no_stop_words: it is the likeliest but for stop words.
        last_token_perplexity: of the last token.
        last_word_accuracy: every token of the last word is the likeliest in its place.
        last_word_perplexity: of the last word, all of its tokens together.
        nll: the summed nats of the last words.
        tokens: of all last words.
    """

    passages: int
    last_token_accuracy: float
    last_token_accuracy_no_stop_words: float
    last_token_perplexity: float
    last_word_accuracy: float
    last_word_perplexity: float
    nll: float
    tokens: int


def stop_tokens(tokenizer: Tokenizer) -> list[int]:
    """The ids of the tokens that are a stop word, in any case and with a space in front or not."""
    return [
        number
        for number in tokenizer.vocabulary.values()
        if tokenizer.decode([number]).strip().lower() in STOP_WORDS
    ]


def read_passages(
    texts: Iterable[str], vocabulary: TextEncoder, window: int, name: str
) -> list[Passage]:
    """Each passage, as much of its end as the window holds.

    Args:
        name: of the file, for sentences to the user.

    Raises:
        UserError: a passage has no two words, or there is none.
    """
    passages = []
    for text in texts:
        before, _, word = " ".join(text.rstrip().rsplit(maxsplit=1)).rpartition(" ")
        if not before.strip():
            raise UserError(
                f"{name} holds the passage {text[:40]!r}, which has no word before its last."
            )
        ending = vocabulary.encode(f" {word}")
        tokens = vocabulary.begun(np.concatenate([vocabulary.encode(before), ending]))
        passages.append(Passage(tokens[-window - 1 :], len(ending)))
    if not passages:
        raise UserError(f"{name} holds no passage.")
    return passages


def measure(
    scorer: Scorer,
    passages: Sequence[Passage],
    progress: Callable[[int], object] = lambda passages: None,
) -> LambadaResult:
    """Predict the last word of each passage, of which there is at least one.

    Args:
        scorer: one that was given `stop_tokens`.
        progress: called with the number of passages done.
    """
    found = []
    for passage, scores in zip(
        passages, scorer.score(passage.tokens for passage in passages), strict=True
    ):
        word = slice(-passage.word, None)
        found.append(
            (
                scores.ranks[-1] == 0,
                scores.content_ranks[-1] == 0,
                float(scores.nats[-1]),
                bool(np.all(scores.ranks[word] == 0)),
                float(scores.nats[word].sum(dtype="float64")),
            )
        )
        progress(1)
    token, content, token_nats, word, word_nats = (math.fsum(x) for x in zip(*found, strict=True))
    count = len(found)
    return LambadaResult(
        count,
        token / count,
        content / count,
        exponential(token_nats, count),
        word / count,
        exponential(word_nats, count),
        word_nats,
        sum(passage.word for passage in passages),
    )
