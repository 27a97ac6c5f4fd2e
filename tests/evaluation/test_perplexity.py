"""Nats per token, word and byte."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.data import npz
from gpt2.evaluation.perplexity import Perplexity, bits_per_byte, measure
from gpt2.evaluation.scoring import Scorer
from gpt2.evaluation.texts import TextEncoder
from gpt2.evaluation.windows import WindowSettings
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE
from tests.golden_model import Golden


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


TEXT = "the cat sat.\r\nIt slept, é!\r\n" * 3


def directly(golden: Golden, tokens: list[int], window: int, stride: int) -> float:
    """Summed nats of all tokens but the first, one softmax after the other."""
    total = 0.0
    for place in range(1, len(tokens)):
        start = 0
        while start + window < place:
            start += stride
        seen = tf.constant([tokens[start:place]], tf.int32)
        logits = model.logits(golden.tensors("weights"), golden.hparams, seen)[0, -1]
        logits = logits.numpy().astype(np.float64)
        total += np.log(np.exp(logits).sum()) - logits[tokens[place]]
    return total


@pytest.fixture(scope="module")
def letters(golden: Golden) -> Tokenizer:
    """A byte vocabulary that has as many tokens as the golden model."""
    ids = {character: place for place, character in enumerate(sorted(set(TEXT.encode())))}
    vocabulary = {CHARACTER_OF_BYTE[byte]: place for byte, place in ids.items()}
    return Tokenizer({**vocabulary, ENDOFTEXT: golden.hparams.n_vocab - 1}, [])


@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 5), (7, 7)])
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("form", ["txt", "jsonl", "npz"])
def test_perplexity_is_the_quotient_of_sums_whatever_batch_window_and_file(
    golden: Golden,
    letters: Tokenizer,
    tmp_path: Path,
    form: str,
    batch_size: int,
    window: int,
    stride: int,
) -> None:
    plain = TEXT.replace("\r\n", "\n")
    tokens = letters.encode(plain)
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": TEXT}))
    npz.write_parts(tmp_path / "a.npz", [(np.array([*tokens, letters.endoftext]), True)])
    text = TextEncoder(letters, golden.hparams).read(str(tmp_path / f"a.{form}"))
    scorer = Scorer(golden.tensors("weights"), golden.hparams, batch_size)
    found = measure(scorer, [text], WindowSettings(window, stride))
    nats = directly(golden, [letters.endoftext, *tokens], window, stride)
    size = len(plain.encode()) if form == "npz" else len(TEXT.encode())
    assert found.nll == pytest.approx(nats, rel=1e-5)
    assert (found.tokens, found.words, found.bytes) == (len(tokens), 18, size)
    assert found.per("token") == pytest.approx(math.exp(nats / len(tokens)), rel=1e-5)
    assert found.per("word") == pytest.approx(math.exp(nats / 18), rel=1e-5)
    assert found.per("byte") == pytest.approx(math.exp(nats / size), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_texts_count_by_their_tokens_not_each_alike(golden: Golden, letters: Tokenizer) -> None:
    vocabulary = TextEncoder(letters, golden.hparams)
    texts = [vocabulary.text([part], "it") for part in ("t", TEXT, "the cat")]
    scorer = Scorer(golden.tensors("weights"), golden.hparams)
    found = measure(scorer, texts, WindowSettings.of(golden.hparams.n_ctx))
    nats = [directly(golden, text.tokens.tolist(), 16, 16) for text in texts]
    assert found.nll == pytest.approx(sum(nats), rel=1e-5)
    assert found.per("token") == pytest.approx(math.exp(sum(nats) / found.tokens), rel=1e-5)


@pytest.mark.parametrize("text", ["t", "the cat", TEXT])
def test_a_loaded_model_scores_a_text_like_the_command(
    golden: Golden, letters: Tokenizer, text: str
) -> None:
    weights, hparams = golden.tensors("weights"), golden.hparams
    scored = TextEncoder(letters, hparams).text([text], "it")
    found = measure(Scorer(weights, hparams), [scored], WindowSettings.of(hparams.n_ctx))
    loaded = LanguageModel(TensorFlowEngine(weights, hparams), hparams, letters)
    assert loaded.score(text) == pytest.approx(-found.nll, rel=1e-4)
