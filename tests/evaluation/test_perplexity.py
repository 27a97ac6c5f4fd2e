"""Nats per token, word and byte."""

from __future__ import annotations

import math

import pytest

from gpt2.evaluation.perplexity import Perplexity, bits_per_byte


def test_bits_per_byte_by_hand() -> None:
    # 8 nats times ln 2 are 8 bits, for 4 bytes.
    assert bits_per_byte(8 * math.log(2), 4) == pytest.approx(2)
    # One token of three bytes, guessed among 64 equally likely: 6 bits.
    assert bits_per_byte(math.log(64), 3) == pytest.approx(2)


def test_every_measure_by_hand() -> None:
    # Four tokens, each guessed among 8: 12 bits, for two words of three bytes each.
    found = Perplexity(nll=4 * math.log(8), tokens=4, words=2, bytes=6)
    assert found.per("token") == pytest.approx(8)
    assert found.per("word") == pytest.approx(64)
    assert found.per("byte") == pytest.approx(4)
    assert found.bits_per_byte == pytest.approx(2)
    perplexities = {f"perplexity_per_{unit}": found.per(unit) for unit in ("token", "word", "byte")}
    counts = {"tokens": 4, "words": 2, "bytes": 6, "nll": 4 * math.log(8)}
    assert found.numbers() == counts | perplexities | {"bits_per_byte": found.bits_per_byte}


def test_what_is_too_large_for_a_number_is_infinite() -> None:
    for words in (1, 0):
        found = Perplexity(tokens=1000, words=words, bytes=3000, nll=1e6)
        assert found.per("word") == found.numbers()["perplexity_per_word"] == math.inf
