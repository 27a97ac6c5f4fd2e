"""Every argument of the public functions, given values of other types."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import gpt2
from gpt2.data.datasets import DatasetSettings
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.generation.beam_search import BeamSettings
from gpt2.generation.completions import LARGEST_BATCH, LONGEST, MOST_SAMPLES, GenerationSettings
from gpt2.generation.language_model import BEAM_SEARCH, GENERATION, SAMPLING, LanguageModel
from gpt2.generation.sampling import NoTokenError, SamplingSettings
from gpt2.tokenizer import Tokenizer
from gpt2.training.settings import LoopSettings, TrainerSettings
from tests.generation.model_folders import write_small_model

WRONG = (None, True, 3, -1, 2.5, float("nan"), 10**400, "\0", b"x", [], [3], ["x", 3], {"x": 1}, {})
WRONG += ((), object, Path("x"), np.zeros((2, 2)))
SETTINGS = (
    SamplingSettings,
    GenerationSettings,
    BeamSettings,
    ReaderSettings,
    DatasetSettings,
    TrainerSettings,
    LoopSettings,
)
REQUIRED = {"length": 3, "beams": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return gpt2.load(write_small_model(tmp_path_factory.mktemp("models") / "small"))


def refusals(call: Callable[..., object], names: set[str], **given: object) -> Iterator[str]:
    """Call a function with each wrong value of each argument, and yield what is not reported.

    A value may also be accepted, such as 3 for a number.
    """
    refused = dict.fromkeys(names, 0)
    for name in names:
        for value in WRONG:
            try:
                call(**{**given, name: value})
            except UserError as error:
                refused[name] += 1
                if name not in str(error).lower().replace("ignore_eos", "ignore_endoftext"):
                    yield f"{name}={value!r}: {error}"
            except Exception as error:
                yield f"{name}={value!r}: {error!r}"
    yield from (f"{name} was never refused" for name, count in refused.items() if not count)


def arguments(function: Callable[..., object]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is not each.VAR_KEYWORD} - {"self"}


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: each.__name__)
def test_every_field_of_settings_is_checked(settings: type) -> None:
    fields = {field.name for field in dataclasses.fields(settings)}
    given = {name: value for name, value in REQUIRED.items() if name in fields}
    assert list(refusals(settings, fields, **given)) == []


def test_every_argument_of_load_is_checked() -> None:
    found = refusals(gpt2.load, arguments(gpt2.load), model_name="no such model")
    # The name of a model that does not exist is in the message, not the argument's.
    assert [each for each in found if "There is no model" not in each] == []


@pytest.mark.parametrize("method", ["generate", "beam_search", "stream", "settings"])
def test_every_argument_and_option_of_generation_is_checked(
    model: LanguageModel, method: str
) -> None:
    call = getattr(model, method)
    names = arguments(call) | {*SAMPLING, *GENERATION, "length", "seed"}
    given = {"beams": 3} if method == "beam_search" else {}
    if method == "beam_search":
        names -= {*SAMPLING, "stop", "ignore_endoftext"} - set(BEAM_SEARCH)  # it takes none of them
    assert list(refusals(call, names, **{"length": 1, **given})) == []


def test_every_argument_of_the_other_methods_is_checked(model: LanguageModel) -> None:
    settings = model.settings(length=1)
    given = {"prompt": [1], "nsamples": 1, "settings": settings}
    found = [
        *refusals(model.encode, {"prompt"}),
        *refusals(model.score, {"text"}),
        *refusals(model.logits, {"tokens"}),
        *refusals(model.tokenizer.encode, {"text"}),
        *refusals(model.tokenizer.encode_array, {"text"}),
        *refusals(model.tokenizer.decode, {"ids"}),
        *refusals(model.tokenizer.decode_bytes, {"ids"}),
        *refusals(
            lambda **options: next(model.samples(**options), None),
            {"nsamples", "settings", "batch_size", "first_sample"},
            **given,
        ),
    ]
    assert found == []
    for folder in (None, 3, b"x", ["x"]):
        with pytest.raises(UserError, match="folder"):
            Tokenizer.load(folder)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="tokens"):
        model.samples(["x"], 1, settings)  # type: ignore[list-item]


@pytest.mark.parametrize("beyond", [10**12, 10**400])
def test_impossible_sizes_are_refused_before_anything_is_allocated(
    model: LanguageModel, beyond: int
) -> None:
    for name, most in (("nsamples", MOST_SAMPLES), ("batch_size", LARGEST_BATCH)):
        with pytest.raises(UserError, match=f"{name} must be .* to {most:,}"):
            model.generate("the", **{"length": 1, name: beyond})
    with pytest.raises(UserError, match=f"length must be .* to {LONGEST:,}"):
        model.stream("the", length=beyond)


# --- threads ---


def run_in_threads(*calls: Callable[[], object]) -> list[object]:
    """Return what the calls return or raise, each in a thread of its own, begun together."""
    results: list[object] = [None] * len(calls)
    ready = threading.Barrier(len(calls))

    def run(place: int) -> None:
        ready.wait(60)
        try:
            results[place] = calls[place]()
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=[place]) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_threads_that_share_a_model_get_the_texts_of_one(model: LanguageModel) -> None:
    calls: list[Callable[[], object]] = []
    for seed in range(4):
        calls += [
            lambda seed=seed: [c.text for c in model.generate(["the", "a"], length=30, seed=seed)],
            lambda seed=seed: "".join(model.stream("and", length=30, seed=seed)),
            lambda seed=seed: model.score("the cat" * (seed + 1)),
            lambda seed=seed: model.logits([seed, 5]).tolist(),
            lambda: model.beam_search("hat", beams=2, length=6)[0].text,
        ]
    expected = [call() for call in calls]
    for _ in range(3):
        assert run_in_threads(*calls) == expected


def test_a_later_call_of_the_thread_ends_a_stream_and_other_threads_wait_for_it(
    model: LanguageModel,
) -> None:
    expected = model.generate("the", length=20, seed=1)[0].text
    stream = model.stream("the", length=20, seed=1)
    next(stream)
    assert model.generate("the", length=20, seed=1)[0].text == expected
    with pytest.raises(UserError, match="ended by a later one"):
        next(stream)
    stream = model.stream("the", length=20, seed=1)
    first = next(stream)
    (started, other) = (threading.Event(), [])

    def generate() -> None:
        started.set()
        other.append(model.generate("the", length=20, seed=1)[0].text)

    thread = threading.Thread(target=generate)
    thread.start()
    assert started.wait(60)
    assert first + "".join(stream) == expected  # the other thread has not touched the cache
    thread.join(60)
    assert other == [expected]


def test_a_stream_that_is_dropped_or_fails_lets_others_go_on(model: LanguageModel) -> None:
    stream = model.stream("the", length=20)
    next(stream)
    del stream
    banned = [[token] for token in range(model.hparams.n_vocab)]
    with pytest.raises(NoTokenError, match="All tokens are suppressed"):
        model.generate("the", banned=banned)
    assert run_in_threads(lambda: len(model.generate("the", length=2))) == [1]


def test_arguments_of_numpy_give_the_texts_of_pythons(model: LanguageModel) -> None:
    options = {"length": 6, "seed": 3, "ignore_endoftext": True, "logit_bias": {5: 2.0}}
    theirs = {name: np.array(value)[()] for name, value in options.items() if name != "logit_bias"}
    theirs["logit_bias"] = {np.int64(5): np.float32(2)}
    ours = [each.text for each in model.generate(["a", "b"], **options)]
    for prompts in (np.array(["a", "b"]), (np.str_("a"), "b")):
        assert [each.text for each in model.generate(prompts, **theirs)] == ours
    assert [each.text for each in model.generate(np.array("a"), **theirs)] == ours[:1]


def test_a_completion_shows_its_text_and_how_it_ended(model: LanguageModel) -> None:
    [completion] = model.generate("a", length=3, seed=1, ignore_endoftext=True)
    assert repr(completion) == f"Completion({completion.text!r}, 3 tokens, length)"
