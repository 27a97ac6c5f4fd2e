"""LAMBADA: predict the last word of a passage from the whole passage (Paperno et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt2.errors import UserError, quoted
from gpt2.evaluation.perplexity import exponential
from gpt2.evaluation.texts import TextEncoder
from gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer

# The GPT-2 paper excludes stop words as answers (section 3.3) without listing them. This list has
# English pronouns, determiners, prepositions, conjunctions, auxiliaries and similar words.
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
    """A passage as the input of a model.

    Attributes:
        tokens: ids, int32 [T + 1]; the first one is not predicted.
        word: number of tokens of the last word, at the end of `tokens`.
    """

    tokens: np.ndarray
    word: int


@dataclass(frozen=True)
class LambadaResult:
    """Accuracies (0 to 1) and perplexities of the ends of passages.

    Attributes:
        passages: number of passages.
        last_token_accuracy: share whose last token has the highest probability.
        last_token_accuracy_no_stop_words: the same, ignoring stop words among the predictions.
        last_token_perplexity: perplexity per last token.
        last_word_accuracy: share whose last word's tokens all have the highest probability.
        last_word_perplexity: perplexity per last word.
        nll: summed negative log-likelihood of the last words, in nats.
        tokens: summed tokens of the last words.
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
    """Return the ids of the stop words, in any case, with or without a leading space."""
    return [
        number
        for number in tokenizer.vocabulary.values()
        if tokenizer.decode([number]).strip().lower() in STOP_WORDS
    ]


def read_passages(
    texts: Iterable[str], vocabulary: TextEncoder, window: int, name: str
) -> list[Passage]:
    """Return the passages, truncated to the last tokens that fit the window.

    Args:
        texts: one passage each.
        window: maximum number of input tokens, 1 to n_ctx.
        name: of the file, for messages.

    Raises:
        UserError: a passage has fewer than two words, or there is no passage.
    """
    passages = []
    for text in texts:
        before, _, word = " ".join(text.rstrip().rsplit(maxsplit=1)).rpartition(" ")
        if not before.strip():
            raise UserError(
                f"{name}: the passage {quoted(text, 40)} has fewer than two words. Fix or delete "
                "it."
            )
        ending = vocabulary.encode(f" {word}")
        tokens = vocabulary.begun(np.concatenate([vocabulary.encode(before), ending]))
        passages.append(Passage(tokens[-window - 1 :], len(ending)))
    if not passages:
        raise UserError(f"{name}: no passages found.")
    return passages


def measure(
    scorer: Scorer,
    passages: Sequence[Passage],
    progress: Callable[[int], object] = lambda passages: None,
) -> LambadaResult:
    """Return how well a model predicts the last words of passages.

    Args:
        scorer: made with `stop_tokens`.
        passages: at least one.
        progress: called with the number of newly scored passages.

    Source: Radford et al. 2019, section 3.3.
    """
    found = []
    for passage, scores in zip(
        passages, scorer.score(passage.tokens for passage in passages), strict=True
    ):
        last_word = slice(-passage.word, None)
        found.append(
            (
                scores.ranks[-1] == 0,
                scores.content_ranks[-1] == 0,
                float(scores.nats[-1]),
                bool(np.all(scores.ranks[last_word] == 0)),
                float(scores.nats[last_word].sum(dtype="float64")),
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
