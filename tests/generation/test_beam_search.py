"""Beam search finds the texts that transformers' `generate` finds, with their scores."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.generation.beam_search import BeamSettings, beam_search
from gpt2.generation.completions import GenerationSettings
from gpt2.generation.engine import Engine
from gpt2.generation.sampling import SamplingSettings
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from gpt2.tokenizer import Tokenizer
from tests.generation.conftest import CountingEngine, FlatEngine, alphabet, scores_from_scratch
from tests.golden_model import Golden

GOLDEN = Path(__file__).parent.parent / "golden" / "generation.npz"


@pytest.mark.slow
def test_completions_and_scores_are_those_of_transformers(golden: Golden, engine: Engine) -> None:
    with np.load(GOLDEN, allow_pickle=False) as archive:
        known = json.loads(archive["beam_searches"].item())
    assert len(known["searches"]) > 100
    for found in known["searches"]:
        options = found["options"]
        sampling = SamplingSettings(
            repetition_penalty=options.get("repetition_penalty", 1.0),
            no_repeat_ngram=options.get("no_repeat_ngram_size", 0),
        )
        settings = GenerationSettings(
            length=known["length"], sampling=sampling, min_length=options.get("min_new_tokens", 0)
        )
        search = BeamSettings(
            options["num_beams"], options["length_penalty"], options["num_return_sequences"]
        )
        tokenizer = alphabet(61, found["eos"])
        texts = beam_search(engine, golden.hparams, tokenizer, found["prompt"], settings, search)
        assert len(texts) == len(found["texts"])
        for text, expected in zip(texts, found["texts"], strict=True):
            ended = expected["tokens"][-1] == found["eos"]
            assert text.tokens == expected["tokens"][: -1 if ended else None], found
            assert text.finish_reason == ("endoftext" if ended else "length")
            length = len(expected["tokens"])
            score = text.logprob / length ** options["length_penalty"]
            assert score == pytest.approx(expected["score"], abs=1e-4), found
            assert text.text == tokenizer.decode(text.tokens)
            assert text.prompt == found["prompt"]


def test_a_search_as_wide_as_the_tree_finds_the_most_probable_text_of_all(golden: Golden) -> None:
    """Three tokens of four, banned all others: 64 texts, each scored on its own."""
    weights, hparams, prompt = golden.tensors("weights"), golden.hparams, [7, 8]
    allowed = [3, 19, 33, 50]
    banned = tuple((token,) for token in range(61) if token not in allowed)

    def log_probability(tokens: tuple[int, ...]) -> float:
        total = 0.0
        for place, token in enumerate(tokens):
            scores = scores_from_scratch(golden, [*prompt, *tokens[:place]])
            scores = scores.astype(np.float64)
            total += scores[token] - math.log(np.exp(scores).sum())
        return total

    every = {text: log_probability(text) for text in itertools.product(allowed, repeat=3)}
    best = sorted(every, key=every.get, reverse=True)
    texts = beam_search(
        TensorFlowEngine(weights, hparams),
        hparams,
        alphabet(61),
        prompt,
        GenerationSettings(length=3, sampling=SamplingSettings(banned=banned)),
        BeamSettings(beams=64, num_return_sequences=64),
    )
    assert [tuple(text.tokens) for text in texts] == best
    assert [text.logprob for text in texts] == pytest.approx(
        [every[tokens] for tokens in best], abs=1e-4
    )


def test_one_beam_is_greedy(golden: Golden, engine: Engine) -> None:
    tokens = [5, 6]
    for _ in range(8):
        scores = scores_from_scratch(golden, tokens)
        tokens.append(int(scores.argmax()))
    settings = GenerationSettings(length=8)
    (text,) = beam_search(
        engine, golden.hparams, alphabet(61), [5, 6], settings, BeamSettings(beams=1)
    )
    assert text.tokens == tokens[2:]


def test_the_context_window_is_filled_and_not_exceeded() -> None:
    engine = CountingEngine(n_ctx=8)
    arguments = (engine, engine.hparams, alphabet(10), [1, 2, 3])
    # The sixth token is not fed back.
    (text,) = beam_search(*arguments, GenerationSettings(length=6), BeamSettings(beams=2))
    assert text.tokens == [4, 5, 6, 7, 8, 9]
    assert engine.lengths.tolist() == [8, 8]
    with pytest.raises(UserError, match=r"window of 8 .*prompt has 3 tokens.*length is 7"):
        beam_search(*arguments, GenerationSettings(length=7), BeamSettings(beams=2))


def test_more_beams_than_tokens_are_no_error() -> None:
    engine = CountingEngine(n_vocab=4)
    search = BeamSettings(beams=9, num_return_sequences=9)
    texts = beam_search(
        engine, engine.hparams, alphabet(4), [1], GenerationSettings(length=2), search
    )
    assert len({tuple(text.tokens) for text in texts}) == 9
    assert texts[0].tokens == [2, 3]


def test_a_length_of_zero_is_no_text() -> None:
    engine = CountingEngine()
    (text,) = beam_search(
        engine,
        engine.hparams,
        alphabet(10),
        [1],
        GenerationSettings(length=0),
        BeamSettings(beams=2),
    )
    assert (text.tokens, text.text, text.finish_reason) == ([], "", "length")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"sampling": SamplingSettings(temperature=0)},
            "temperature cannot be combined with beams",
        ),
        (
            {"sampling": SamplingSettings(temperature=0.7)},
            "temperature cannot be combined with beams",
        ),
        ({"sampling": SamplingSettings(top_k=40)}, "top_k cannot be combined"),
        ({"sampling": SamplingSettings(top_p=0.9)}, "top_p cannot be combined"),
        ({"sampling": SamplingSettings(min_p=0.1)}, "min_p cannot be combined"),
        ({"sampling": SamplingSettings(typical_p=0.1)}, "typical_p cannot be combined"),
        ({"stop": ("end",)}, "stop cannot be combined"),
        ({"ignore_endoftext": True}, "ignore_eos cannot be combined"),
    ],
    ids=str,
)
def test_settings_for_sampling_only_are_refused(settings: dict, sentence: str) -> None:
    engine = CountingEngine()
    tokenizer: Tokenizer = alphabet(10)
    with pytest.raises(UserError, match=sentence):
        beam_search(
            engine,
            engine.hparams,
            tokenizer,
            [1],
            GenerationSettings(length=3, **settings),
            BeamSettings(beams=2),
        )


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ({"beams": 0}, "beams .* whole number at least 1, not 0"),
        ({"beams": 2.0}, "beams .* not 2.0"),
        ({"beams": 2, "num_return_sequences": 0}, "num_return_sequences .* not 0"),
        ({"beams": 2, "num_return_sequences": 3}, "2 beams cannot return 3"),
        ({"beams": 2, "length_penalty": math.nan}, "length_penalty .* not nan"),
    ],
    ids=str,
)
def test_impossible_searches_are_refused(search: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        BeamSettings(**search)


def searched(engine: CountingEngine, tokenizer: Tokenizer, **settings) -> list[str]:
    """The texts of a search with two beams."""
    found = GenerationSettings(**{"length": 3, **settings})
    search = BeamSettings(2, num_return_sequences=2)
    return [
        text.text for text in beam_search(engine, engine.hparams, tokenizer, [1], found, search)
    ]


def test_no_text_contains_a_banned_word_or_an_id_without_a_token() -> None:
    tokenizer = Tokenizer({"a": 0, "t": 1, "at": 2}, [])
    engine = FlatEngine(n_vocab=10)
    for banned in ((), ("at",), ("aa",), ("ta", "at", "tt")):
        texts = searched(engine, tokenizer, banned_words=banned)
        assert texts and set("".join(texts)) <= {"a", "t"}
        assert not any(word in text for text in texts for word in banned)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    engine = FlatEngine()
    engine.scores = lambda tokens: np.array([0, value, *[0] * 8], np.float32)
    with pytest.raises(UserError, match="logits are not finite"):
        searched(engine, alphabet(10))


def test_a_search_in_which_all_is_suppressed_is_refused() -> None:
    with pytest.raises(UserError, match="All tokens are suppressed"):
        searched(FlatEngine(n_vocab=2), Tokenizer({"a": 0, "b": 1}, []), banned_words=("a", "b"))
