"""An opened model writes, streams and scores texts; the options of all are the same."""

from __future__ import annotations

import gc
import math
import os
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import gpt2
from gpt2 import model
from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.generation.completions import Completion, GenerationSettings
from gpt2.generation.engine import Engine
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.loading import open_model
from gpt2.generation.sampling import SamplingSettings
from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from tests.generation.conftest import CountingEngine, ScriptedEngine, alphabet, resident_memory
from tests.generation.model_folders import HPARAMS, TEXT, small_weights, write_small_model
from tests.support import waiting

SETTINGS = GenerationSettings(length=6, sampling=SamplingSettings(temperature=0.9), seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module", params=["tensorflow", "litert", "numpy"])
def language_model(request: pytest.FixtureRequest, folder: Path) -> LanguageModel:
    return open_model(ModelFolder(folder), engine=request.param)


def scripted(script: str) -> LanguageModel:
    """A model that goes on from a NUL with these words, whatever it is fed."""
    engine: Engine = ScriptedEngine({0: [*script.encode(), 256, *[0] * 50]})
    return LanguageModel(engine, engine.hparams, alphabet(257, 256))


def tokens_of(texts: list[Completion]) -> list[list[int]]:
    return [text.tokens for text in texts]


# Many texts.


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_there_are_as_many_samples_as_asked_for_whatever_the_batch_size(
    language_model: LanguageModel, batch_size: int
) -> None:
    one_by_one = [
        list(language_model.samples([5], 1, SETTINGS, first_sample=number)) for number in range(6)
    ]
    assert {len(texts) for texts in one_by_one} == {1}
    for nsamples in range(6):
        texts = list(language_model.samples([5], nsamples, SETTINGS, batch_size))
        assert [text.number for text in texts] == list(range(nsamples))
        assert all(text.finish_reason for text in texts)
        assert tokens_of(texts) == [alone[0].tokens for alone in one_by_one[:nsamples]]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_samples_without_a_number_have_no_end(
    language_model: LanguageModel, batch_size: int
) -> None:
    endless = language_model.samples([5], None, SETTINGS, batch_size)
    counted = list(language_model.samples([5], 11, SETTINGS))
    assert tokens_of(list(islice(endless, 11))) == tokens_of(counted)


def test_samples_go_on_counting_from_the_first(language_model: LanguageModel) -> None:
    all_of_them = list(language_model.samples([5], 5, SETTINGS))
    later = list(language_model.samples([5], 3, SETTINGS, batch_size=2, first_sample=2))
    assert [text.number for text in later] == [2, 3, 4]
    assert tokens_of(later) == tokens_of(all_of_them[2:])
    assert len({text.text for text in all_of_them}) == 5


def test_samples_come_in_order_though_they_end_in_another() -> None:
    engine = CountingEngine(n_ctx=100)
    lengths = {}

    class Ending(LanguageModel):
        def completions(self, prompts, settings, batch_size):
            for text in super().completions(prompts, settings, batch_size):
                # Completion 0 ends last of all.
                if text.number and len(text.tokens) == 7 - text.number % 5:
                    text.finish_reason = "stop"
                lengths[text.number] = len(text.tokens)
                yield text

    language_model = Ending(engine, engine.hparams, alphabet(10))
    settings = GenerationSettings(length=30, sampling=SamplingSettings(temperature=0))
    numbers = [text.number for text in language_model.samples([1], 12, settings, batch_size=4)]
    assert numbers == list(range(12))
    assert len(set(lengths.values())) > 3


def test_generate_gives_the_texts_in_the_order_of_the_prompts(
    language_model: LanguageModel,
) -> None:
    prompts = ["the cat", "the cat and the hat", "", "bat"]
    texts = language_model.generate(prompts, nsamples=3, batch_size=5, length=9, seed=2)
    encode = language_model.encode
    assert [text.prompt for text in texts] == [encode(p) for p in prompts for _ in range(3)]
    assert [text.number for text in texts] == list(range(12))
    assert len({text.text for text in texts}) == 12
    for text in texts:
        assert text.finish_reason in ("length", "endoftext")
        assert text.text == language_model.tokenizer.decode(text.tokens)
        assert text.logprob < 0
    again = language_model.generate(prompts, nsamples=3, batch_size=2, length=9, seed=2)
    assert [text.text for text in again] == [text.text for text in texts]


def test_one_prompt_need_not_be_a_list(language_model: LanguageModel) -> None:
    (text,) = language_model.generate("the cat", length=5, seed=1)
    (same,) = language_model.generate(["the cat"], length=5, seed=1)
    assert text.text == same.text
    (unconditional,) = language_model.generate(length=5, seed=1)
    assert unconditional.prompt == [language_model.tokenizer.vocabulary[ENDOFTEXT]]
    assert language_model.generate([], length=5) == []


def test_without_a_seed_each_call_has_another(language_model: LanguageModel) -> None:
    assert len({language_model.generate("the", length=20)[0].text for _ in range(4)}) == 4


def test_without_a_length_a_text_has_half_of_the_window(language_model: LanguageModel) -> None:
    (text,) = language_model.generate("the", seed=1, ignore_endoftext=True)
    assert len(text.tokens) == HPARAMS.n_ctx // 2


def test_both_engines_write_the_same(folder: Path) -> None:
    first, second = (
        open_model(ModelFolder(folder), engine=engine).generate(
            ["the cat", "", "a"], nsamples=4, length=40, seed=3, top_k=30
        )
        for engine in ("tensorflow", "litert")
    )
    assert tokens_of(first) == tokens_of(second)


# One text.


@pytest.mark.parametrize(
    "options", [{"length": 30}, {"length": 0}, {"length": 12, "stop": ["e", "\ufffd"]}], ids=str
)
def test_the_stream_is_the_text_piece_by_piece(
    language_model: LanguageModel, options: dict
) -> None:
    for seed in range(5):
        pieces = list(language_model.stream("the cat", seed=seed, **options))
        (text,) = language_model.generate("the cat", seed=seed, **options)
        assert "".join(pieces) == text.text


def test_the_stream_shows_what_is_there_and_never_part_of_a_stop_string() -> None:
    pieces = list(scripted("one. Twé<end>").stream("\0", length=40, temperature=0, stop="<end>"))
    assert "".join(pieces) == "one. Twé"
    assert pieces[:4] == ["o", "n", "e", "."]  # a token, a piece


def test_a_stop_string_may_be_given_alone_or_with_others() -> None:
    cut, whole = "one t", "one two"
    for stop, expected in (("wo", cut), (["x", "wo"], cut), (("x",), whole), ([], whole)):
        (text,) = scripted("one two").generate("\0", length=40, temperature=0, stop=stop)
        assert text.text == expected


# Scores.


def slow_score(tokens: list[int], before: list[int]) -> float:
    """Sum of log-softmax of one row of scores after the other, all within the window."""
    weights, total = small_weights(7), 0.0
    for place, token in enumerate(tokens):
        seen = tf.constant([before + tokens[:place]], tf.int32)
        scores = model.logits(weights, HPARAMS, seen)[0, -1].numpy().astype(np.float64)
        total += scores[token] - math.log(np.exp(scores).sum())
    return total


def test_logits_are_those_of_the_model(language_model: LanguageModel) -> None:
    for tokens in ([5], [1, 2, 3], list(range(16))):
        expected = model.logits(small_weights(7), HPARAMS, tf.constant([tokens]))[0, -1]
        np.testing.assert_allclose(language_model.logits(tokens), expected, atol=1e-4)


def test_a_score_is_the_sum_of_the_log_probabilities(language_model: LanguageModel) -> None:
    for text in ("the cat", "a", "the cat and the hat"):
        tokens = language_model.tokenizer.encode(text)
        assert 0 < len(tokens) <= 16
        expected = slow_score(tokens, [language_model.start_token])
        assert language_model.score(text) == pytest.approx(expected, abs=1e-3)


def test_the_log_probability_of_a_text_is_its_score(language_model: LanguageModel) -> None:
    """The model's own, whatever was done to the scores before the draw."""
    (text,) = language_model.generate(
        length=10, seed=5, top_k=12, temperature=1.4, repetition_penalty=1.5, ignore_endoftext=True
    )
    expected = slow_score(text.tokens, [language_model.start_token])
    assert text.logprob == pytest.approx(expected, abs=1e-3)


def test_a_text_beyond_the_window_is_scored_in_consecutive_windows(
    language_model: LanguageModel,
) -> None:
    text = f"{TEXT} {TEXT}"
    tokens = language_model.encode(text)
    assert len(tokens) > 2 * 16
    # 16 inputs: endoftext and 15 tokens, then the last of those before and 15 more, and so on.
    before, expected = [language_model.start_token], 0.0
    for start in range(0, len(tokens), 16):
        expected += slow_score(tokens[start : start + 16], before)
        before = tokens[start + 15 : start + 16]
    assert language_model.score(text) == pytest.approx(expected, abs=1e-3)


def test_a_text_without_a_token_to_predict_has_no_score(language_model: LanguageModel) -> None:
    with pytest.raises(UserError, match="text: no token to predict"):
        language_model.score("")
    vocabulary = dict(language_model.tokenizer.vocabulary)
    del vocabulary[ENDOFTEXT]
    without = LanguageModel(language_model.engine, HPARAMS, Tokenizer(vocabulary, []))
    with pytest.raises(UserError, match="text: no token to predict"):
        without.score("a")
    a, b = without.encode("ab")
    assert without.score("ab") == pytest.approx(slow_score([b], [a]), abs=1e-3)


# Beams.


def test_beams_find_a_text_at_least_as_likely_as_the_greedy_one(
    language_model: LanguageModel,
) -> None:
    texts = language_model.beam_search("the", beams=4, num_return_sequences=3, length=6)
    scores = [
        text.logprob / (len(text.tokens) + (text.finish_reason == "endoftext")) for text in texts
    ]
    assert scores == sorted(scores, reverse=True)
    assert len({tuple(text.tokens) for text in texts}) == 3
    (wide,) = language_model.beam_search("the", beams=20, length_penalty=0.0, length=6)
    (greedy,) = language_model.beam_search("the", beams=1, length_penalty=0.0, length=6)
    assert wide.logprob >= greedy.logprob


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": 0}, "temperature.*beams"),
        ({"top_k": 5}, "top_k.*beams"),
        ({"stop": "a"}, "stop.*beams"),
        ({"num_return_sequences": 5}, "4 beams.* 5 "),
        ({"length": 17}, "context window.*length is 17"),
        ({"warmth": 1}, "unknown option 'warmth'"),
    ],
    ids=str,
)
def test_options_that_beams_have_no_use_for_are_refused(
    language_model: LanguageModel, options: dict, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        language_model.beam_search("the", beams=4, **{"length": 3, **options})


# The model as a whole.


def test_options_that_do_not_exist_are_refused_by_name(language_model: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"unknown option 'warmth'.*temperature"):
        language_model.generate("the", warmth=1)
    with pytest.raises(UserError, match=r"top_k.*271.*270"):
        language_model.generate("the", top_k=271)
    with pytest.raises(UserError, match="batch_size"):
        language_model.generate("the", batch_size=0)


@pytest.mark.parametrize(
    ("method", "arguments", "options", "sentence"),
    [
        ("logits", ["Hello"], {}, r"tokens .*encode"),
        ("logits", [[]], {}, r"tokens .*1 to 16 .*not 0"),
        ("logits", [list(range(17))], {}, r"tokens .*1 to 16 .*not 17"),
        ("logits", [[1, 270]], {}, r"tokens .*0 to 269, not 270"),
        ("logits", [[-1]], {}, r"tokens .*0 to 269, not -1"),
        ("logits", [[1.5]], {}, "tokens"),
        ("logits", [["a"]], {}, "tokens"),
        ("logits", [[True]], {}, "tokens"),
        ("logits", [[[1], [2, 3]]], {}, "tokens"),
        ("logits", [5], {}, "tokens"),
        ("logits", [None], {}, "tokens"),
        ("generate", [[3]], {}, "prompts .*3"),
        ("generate", [3], {}, "prompts .*3"),
        ("generate", [None], {}, "prompts .*None"),
        ("generate", [b"the"], {}, "prompts .*the"),
        ("generate", ["the"], {"stop": 5}, "stop .*5"),
        ("generate", ["the"], {"stop": [5]}, "stop .*5"),
        ("generate", ["the"], {"stop": ""}, "stop"),
        ("generate", ["the"], {"beams": 2}, r"beams.*beam_search\(\)"),
        ("generate", ["the"], {"num_return_sequences": 2}, r"num_return_.*beam_search\(\)"),
        ("generate", ["the"], {"sampling": {}}, "unknown option 'sampling'"),
        ("generate", ["the"], {"nsamples": -1}, "nsamples"),
        ("generate", ["the"], {"nsamples": "2"}, "nsamples"),
        ("generate", ["the"], {"batch_size": None}, "batch_size"),
        ("generate", ["the"], {"length": "9"}, "length"),
        ("generate", ["the"], {"seed": "x"}, "seed"),
        ("generate", ["the"], {"logit_bias": 5}, "logit_bias"),
        ("generate", ["the"], {"banned": 5}, "banned"),
        ("generate", ["the"], {"banned": [5]}, "banned"),
        ("stream", [3], {}, "prompt .*3"),
        ("stream", ["the"], {"stop": 5}, "stop .*5"),
        ("stream", ["the"], {"top_k": -1}, "top_k"),
        ("beam_search", [3], {"beams": 2}, "prompt .*3"),
        ("beam_search", ["the"], {"beams": "2"}, "beams"),
        ("encode", [None], {}, "prompt .*None"),
        ("score", [["the"]], {}, "text .*the"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_by_its_name(
    language_model: LanguageModel, method: str, arguments: list, options: dict, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        getattr(language_model, method)(*arguments, **options)


def test_logits_take_any_sequence_of_ids(language_model: LanguageModel) -> None:
    expected = language_model.logits([1, 2])
    for tokens in ((1, 2), np.array([1, 2]), np.array([1, 2], np.uint16), range(1, 3)):
        np.testing.assert_array_equal(language_model.logits(tokens), expected)


@pytest.mark.parametrize(
    ("options", "engine_name"),
    [
        ({"engine": "tensorflow"}, "tensorflow float32"),
        ({"engine": "litert"}, "litert float32"),
        ({"quantize": "int8"}, "litert int8"),
    ],
    ids=str,
)
def test_a_model_shows_its_name_size_and_engine(
    folder: Path, options: dict[str, str], engine_name: str
) -> None:
    shown = repr(open_model(ModelFolder(folder), **options))
    assert shown == f"LanguageModel(small, {HPARAMS.parameters:,} parameters, {engine_name})"


def test_the_library_is_quiet_and_leaves_signals_and_keras_alone(folder: Path) -> None:
    script = f"""
import os, signal
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
from pathlib import Path
from gpt2.checkpoint.folder import ModelFolder
from gpt2.generation.loading import open_model
for engine in ("litert", "tensorflow"):
    open_model(ModelFolder(Path({str(folder)!r})), engine).generate("the", length=2)
assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
assert "TF_USE_LEGACY_KERAS" not in os.environ
"""
    hidden = ("TF_CPP_MIN_LOG_LEVEL", "TF_USE_LEGACY_KERAS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONPATH"] = str(Path(gpt2.__file__).parent.parent)
    done = waiting.run([sys.executable, "-c", script], env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_text_without_a_prompt_begins_after_endoftext_or_the_last_token(
    language_model: LanguageModel,
) -> None:
    engine, vocabulary = language_model.engine, language_model.tokenizer.vocabulary
    assert language_model.start_token == vocabulary[ENDOFTEXT]
    assert language_model.encode("") == [vocabulary[ENDOFTEXT]]
    ordinary = {token: number for token, number in vocabulary.items() if token != ENDOFTEXT}
    without = LanguageModel(engine, HPARAMS, Tokenizer(ordinary, []))
    assert without.start_token == 269
    first = LanguageModel(engine, HPARAMS, Tokenizer({**ordinary, ENDOFTEXT: 0}, []))
    assert first.start_token == 0


def test_a_model_is_loaded_by_its_name(folder: Path, tmp_path: Path) -> None:
    options = {"length": 12, "seed": 4}
    expected = (
        open_model(ModelFolder(folder), engine="tensorflow").generate("the cat", **options)[0].text
    )
    by_name = gpt2.load("small", models_dir=str(folder.parent))
    assert by_name.generate("the cat", **options)[0].text == expected
    for path in (str(folder), folder):
        by_path = gpt2.load(path, engine="litert")
        assert by_path.generate("the cat", **options)[0].text == expected
    with pytest.raises(UserError, match="no model 'large'"):
        gpt2.load("large", models_dir=str(tmp_path))


def test_a_folder_without_a_vocabulary_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    HPARAMS.save(tmp_path / "hparams.json")
    with pytest.raises(UserError, match=r"encoder\.json is missing"):
        open_model(ModelFolder(tmp_path))


@pytest.mark.slow
def test_models_in_one_process_do_not_know_of_each_other(folder: Path, tmp_path: Path) -> None:
    folders = [folder, write_small_model(tmp_path / "other", seed=8)]
    models = [
        open_model(ModelFolder(f), engine=e) for f in folders for e in ("tensorflow", "litert")
    ]
    alone = [
        [text.text for text in one.generate(["the", "a cat"], length=10, seed=1)] for one in models
    ]
    assert alone[0] == alone[1] != alone[2] == alone[3]
    # Turn and turn about, token by token.
    streams = [one.stream("a cat", length=10, seed=1) for one in models]
    together = ["".join(pieces) for pieces in zip(*zip(*streams, strict=True), strict=True)]
    expected = ["".join(one.stream("a cat", length=10, seed=1)) for one in models]
    assert together == expected


def test_a_stream_that_is_given_up_spoils_nothing(language_model: LanguageModel) -> None:
    expected = language_model.generate(["the", "a cat"], length=10, seed=1)
    stream = language_model.stream("the cat and the", length=30, seed=2)
    list(islice(stream, 3))
    stream.close()
    again = language_model.generate(["the", "a cat"], length=10, seed=1)
    assert tokens_of(again) == tokens_of(expected)


@pytest.mark.slow
def test_a_hundred_generations_leave_nothing_behind(language_model: LanguageModel) -> None:
    prompts = ["the cat", "", "and the bat, then the cat", "a"]

    def generate(calls: int) -> None:
        for call in range(calls):
            some = prompts[: 1 + call % 4]
            language_model.generate(some, batch_size=3, length=4 + call % 16, top_k=40)

    def alive() -> int:
        gc.collect()
        return len(gc.get_objects())

    generate(3)
    objects, memory = alive(), resident_memory()
    generate(100)
    assert alive() - objects < 100
    assert resident_memory() - memory < 30e6
    traced = getattr(language_model.engine, "_feed", None)
    if traced is not None:
        assert traced.experimental_get_tracing_count() == 1
