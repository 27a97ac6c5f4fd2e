"""Accuracies and perplexities of last tokens and last words, worked out by hand.

With a vocabulary of bytes the last token is the last letter, and the last word is a space and its
letters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from gpt2.errors import UserError
from gpt2.evaluation import lambada
from gpt2.evaluation.texts import TextEncoder
from gpt2.tokenizer import Tokenizer

PASSAGES = ["one two", "two  six \n", "one\nten"]


def rule(text: str, place: int) -> tuple[float, int, int]:
    """A nat for each letter; o is likeliest everywhere, x but for a stop word, e and n third."""
    letter = text[place]
    ranks = {"x": (1, 0), "e": (2, 2), "n": (2, 1)}
    return (1.0, *ranks.get(letter, (0, 0)))


def test_by_hand(byte_vocabulary: TextEncoder, written_scorer: Callable) -> None:
    scorer, done = written_scorer(rule), []
    passages = lambada.read_passages(PASSAGES, byte_vocabulary, 100, "it")
    found = lambada.measure(scorer, passages, done.append)
    assert scorer.seen == [f"<|endoftext|>{text}" for text in ("one two", "two six", "one ten")]
    assert found.passages == sum(done) == 3
    # "o" is the likeliest; "x" is, but for stop words; "n" is not.
    assert found.last_token_accuracy == pytest.approx(1 / 3)
    assert found.last_token_accuracy_no_stop_words == pytest.approx(2 / 3)
    assert found.last_token_perplexity == pytest.approx(math.e)
    # All of " two" is the likeliest, not all of " six" and " ten".
    assert found.last_word_accuracy == pytest.approx(1 / 3)
    assert found.last_word_perplexity == pytest.approx(math.e**4)
    assert (found.nll, found.tokens) == (12, 12)


def test_the_window_holds_the_end(byte_vocabulary: TextEncoder, byte_tokenizer: Tokenizer) -> None:
    [passage] = lambada.read_passages(PASSAGES[:1], byte_vocabulary, 4, "it")
    assert (byte_tokenizer.decode(passage.tokens.tolist()), passage.word) == ("e two", 4)


def test_stop_tokens(byte_tokenizer: Tokenizer) -> None:
    spelled = {byte_tokenizer.decode([number]) for number in lambada.stop_tokens(byte_tokenizer)}
    assert spelled == set("aAiIsStTdDmM")


@pytest.mark.parametrize(
    ("passages", "sentence"),
    [([], "it: no passages"), (["a b", "word"], "'word' has fewer than two words")],
)
def test_what_is_no_passage_is_told(
    byte_vocabulary: TextEncoder, passages: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        lambada.read_passages(passages, byte_vocabulary, 100, "it")
