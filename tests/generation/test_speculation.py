"""Guesses change the speed of a text and nothing else, and stop where they do not pay."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.generation import litert_conversion, speculation
from gpt2.generation.completions import Completion, GenerationSettings, generate_completions
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.litert_engine import LiteRTEngine
from gpt2.generation.loading import open_model
from gpt2.generation.sampling import NoTokenError, SamplingSettings
from gpt2.generation.speculation import Account, NGrams, Passages, Speculation
from tests.generation.conftest import CountingEngine, alphabet
from tests.generation.model_folders import write_small_model
from tests.golden_model import Golden

PROMPTS = [[1, 2, 3] * 3, [5, 6, 7, 8, 5, 6, 7], [9], [4, 4, 4, 4], [7, 60, 2, 33, 7, 60, 2]]
SETTINGS = {
    "greedy": GenerationSettings(length=7, sampling=SamplingSettings(temperature=0)),
    "greedy, sliding": GenerationSettings(length=60, sampling=SamplingSettings(temperature=0)),
    "sampled": GenerationSettings(length=40, sampling=SamplingSettings(top_k=3), seed=3),
    "penalties": GenerationSettings(
        length=30,
        sampling=SamplingSettings(0.5, 4, repetition_penalty=1.2, no_repeat_ngram=4),
        seed=4,
    ),
    "free": GenerationSettings(length=60, seed=7),
    "ends": GenerationSettings(
        length=50, sampling=SamplingSettings(0.3), seed=5, min_length=3, stop=("\x05",)
    ),
}


@pytest.mark.parametrize(
    ("tokens", "count", "expected"),
    [
        ([1, 2, 3, 4, 1, 2, 3], 2, [4, 1]),
        ([1, 2, 3, 4, 1, 2, 3], 6, [4, 1, 2, 3, 4, 1]),
        ([7, 7, 7, 7], 3, [7, 7, 7]),
        ([1, 2, 3, 8, 1, 2, 3, 9, 1, 2, 3], 1, [9]),  # the last occurrence
        ([6, 1, 2, 3, 8, 5, 1, 2, 3, 9, 6, 1, 2, 3], 1, [8]),  # but the longer one first
        ([1, 2, 3, 4, 5, 2, 3], 4, []),  # two equal tokens are too few
        ([1, 2, 3, 4], 4, []),
        ([1], 4, []),
        ([7, 7, 7, 7], 0, []),
    ],
)
def test_a_guess_continues_as_after_the_last_ngram_like_the_end(
    tokens: list[int], count: int, expected: list[int]
) -> None:
    at_once, one_by_one = NGrams(), NGrams()
    at_once.update(tokens)
    for end in range(len(tokens)):
        one_by_one.update(tokens[: end + 1])
    assert at_once.draft(count) == expected
    assert one_by_one.draft(count) == expected


@pytest.mark.parametrize(
    ("text", "tokens", "count", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], [9, 2, 3, 4, 5, 6], 3, [7, 8]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 4, 5, 6], 1, [7]),
        ([1, 2, 3, 4, 5, 6] * 2 + [1, 2, 3, 4, 5, 7], [1, 2, 3, 4, 5], 2, [7]),  # the last passage
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 3, []),  # the text ends
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 5, 4], 3, []),
        ([1, 2, 3, 4, 5, 6], [2, 3, 4, 5], 3, []),  # four equal tokens are too few
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5], 0, []),
        ([1, 2, 3], [1, 2, 3, 1, 2], 3, []),
        ([], [1, 2, 3, 4, 5], 3, []),
    ],
)
def test_a_guess_continues_as_the_last_passage_of_a_text(
    text: list[int], tokens: list[int], count: int, expected: list[int]
) -> None:
    assert Passages(np.array(text, np.int32)).draft(tokens, count) == expected


def test_guesses_from_a_text_are_those_of_a_search_through_it() -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    chooser = random.Random(seed)
    text = chooser.choices(range(3), k=2000)
    passages = Passages(np.array(text, np.uint16))
    found = 0
    for _ in range(300):
        end = chooser.choices(range(3), k=speculation.LONGEST)
        places = [n for n in range(len(text)) if text[n : n + len(end)] == end]
        following = places[-1] + len(end) if places else len(text)
        assert passages.draft(end, 6) == text[following : following + 6]
        found += bool(places)
    assert found


@pytest.fixture(params=["none", "int8"])
def converted_as(request: pytest.FixtureRequest, golden: Golden, tmp_path: Path) -> LiteRTEngine:
    litert_conversion.convert(golden.tensors("weights"), golden.hparams, tmp_path, request.param)
    return LiteRTEngine(tmp_path, golden.hparams, threads=2)


def test_texts_are_the_same_with_and_without_guesses(
    golden: Golden, converted_as: LiteRTEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each prompt alone and all in a batch, of which the last one remains alone."""
    # Whether to guess depends on the time that it takes, which a test must not.
    monkeypatch.setattr(Account, "allows", True)
    passes: list[tuple[int, int]] = []
    verified = Account.verified

    def count(account: Account, seconds: float, tokens: int) -> None:
        passes.append((tokens, len(converted_as.lengths)))
        verified(account, seconds, tokens)

    monkeypatch.setattr(Account, "verified", count)
    tokenizer = alphabet(61, endoftext=4)
    reasons = set()
    for settings in SETTINGS.values():
        for batch_size in (1, 3):
            results = []
            for guesses in (None, Speculation(), Speculation(Passages(np.array(PROMPTS[0] * 9)))):
                results.append(
                    [
                        (each.number, *each.tokens, each.text, each.logprob, each.finish_reason)
                        for each in generate_completions(
                            converted_as,
                            golden.hparams,
                            tokenizer,
                            enumerate(PROMPTS),
                            settings,
                            batch_size,
                            speculation=guesses,
                        )
                    ]
                )
            assert results[0] == results[1] == results[2]
            reasons |= {state[-1] for state in results[0]}
    assert reasons == {None, "endoftext", "stop", "length"}
    assert {1, speculation.DRAFT + 1} <= {tokens for tokens, _ in passes}  # wrong and right ones
    assert {slots for _, slots in passes} == {1}


def spent(right: Callable[[int], bool], steps: int, decode: float, verify: float) -> float:
    """Return the time that `steps` tokens took, in decode steps."""
    account, seconds, tokens = Account(), 0.0, 0
    while tokens < steps:
        if account.allows:
            added = 1 + speculation.DRAFT * right(tokens)
            account.verified(verify, added)
            seconds, tokens = seconds + verify, tokens + added
        else:
            account.decoded(decode)
            seconds, tokens = seconds + decode, tokens + 1
    return seconds / (tokens * decode)


@pytest.mark.parametrize("verify", [1.1, 1.7, 2.0, 4.0])
def test_wrong_guesses_cost_little_and_right_ones_save_much(verify: float) -> None:
    assert spent(lambda at: False, 1000, 0.02, 0.02 * verify) < 1 / 0.97
    # Also after a repetitive part, whose savings are not spent.
    assert spent(lambda at: at < 100, 1000, 0.02, 0.02 * verify) < 1
    assert spent(lambda at: at >= 900, 1000, 0.02, 0.02 * verify) < 1 / 0.97
    if verify < 4:
        assert spent(lambda at: True, 1000, 0.02, 0.02 * verify) < 1.05 * verify / 7
        assert spent(lambda at: at % 3 == 0, 1000, 0.02, 0.02 * verify) < 0.9


def test_a_new_completion_begins_without_the_ngrams_of_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Engine(CountingEngine):
        def extend(self, row: int, tokens: list[int]) -> np.ndarray:
            self.extended.append(len(tokens))
            return np.stack([self.decode(np.array([token]))[0] for token in tokens])

    monkeypatch.setattr(Account, "allows", True)
    engine = Engine(n_vocab=100, n_ctx=64)
    engine.extended = []
    settings = GenerationSettings(length=12, sampling=SamplingSettings(temperature=0))
    guesses = Speculation()
    prompts = [[1, 2, 3, 4, 5], [1, 2, 3]]
    tokenizer, numbered = alphabet(100), enumerate(prompts)
    for _ in generate_completions(
        engine, engine.hparams, tokenizer, numbered, settings, 1, speculation=guesses
    ):
        pass
    assert set(engine.extended) == {1}


def test_a_completion_without_possible_tokens_fails_alone(
    golden: Golden, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Account, "allows", True)
    engine, tokenizer = LiteRTEngine(converted, golden.hparams), alphabet(61)
    settings = GenerationSettings(length=6, sampling=SamplingSettings(temperature=0))
    add_token, failures = Completion.add_token, []

    def failing(completion: Completion, *arguments) -> None:
        if completion.number == 0 and len(completion.tokens) == 3:
            raise NoTokenError("none is left")
        add_token(completion, *arguments)

    monkeypatch.setattr(Completion, "add_token", failing)
    states = [
        (each.number, len(each.tokens))
        for each in generate_completions(
            engine,
            golden.hparams,
            tokenizer,
            enumerate([[1, 2, 3], [4, 5]]),
            settings,
            batch_size=1,
            failed=lambda completion, error: failures.append(completion.number),
            speculation=Speculation(),
        )
    ]
    assert failures == [0]
    assert states == [(0, 1), (0, 2), (0, 3), *((1, length) for length in range(1, 7))]


def test_beams_are_refused(tmp_path: Path, golden: Golden, converted: Path) -> None:
    engine = LiteRTEngine(converted, golden.hparams)
    model = LanguageModel(engine, golden.hparams, alphabet(61), speculation=Speculation())
    with pytest.raises(UserError, match=r"speculate .* beams"):
        model.beam_search("a", beams=2, length=3)


def test_speculation_is_for_litert_and_chooses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2_CACHE_DIR", str(tmp_path / "cache"))
    folder = ModelFolder(write_small_model(tmp_path / "small"))
    for engine in ("numpy", "tensorflow"):
        with pytest.raises(UserError, match=rf"speculate .* engine {engine}"):
            open_model(folder, engine, speculate=True)
    with pytest.raises(UserError, match=r"draft_text .* needs speculate"):
        open_model(folder, draft_text="text.txt")
    with pytest.raises(UserError, match=r"gone\.txt"):
        open_model(folder, speculate=True, draft_text=str(tmp_path / "gone.txt"))
    model = open_model(folder, speculate=True)
    assert isinstance(model.engine, LiteRTEngine)
    text = tmp_path / "text.txt"
    text.write_text("the cat and the hat and the cat and the cat sat on the hat")
    drafting = open_model(folder, speculate=True, draft_text=str(text))
    plain = open_model(folder, "litert")
    prompts = ["the cat and the hat and the cat and the", "cat"]
    for options in ({"temperature": 0.0}, {"top_k": 2, "seed": 4}):
        texts = [
            [completion.text for completion in each.generate(prompts, length=40, **options)]
            for each in (model, drafting, plain)
        ]
        assert texts[0] == texts[1] == texts[2]
