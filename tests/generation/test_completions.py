"""Completions are those of the model alone, whatever the batch, and end where they should."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from gpt2 import randomness
from gpt2.errors import UserError
from gpt2.generation.completions import Completion, GenerationSettings, generate_completions
from gpt2.generation.engine import Engine
from gpt2.generation.sampling import SamplingSettings, process_logits, sample_token
from gpt2.hparams import HParams
from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from tests.generation.conftest import (
    CountingEngine,
    FlatEngine,
    ScriptedEngine,
    alphabet,
    scores_from_scratch,
)
from tests.golden_model import Golden

GREEDY = SamplingSettings(temperature=0)
PROMPTS = [[5], [60, 2, 33], [1, 2, 3, 4, 5, 6, 7], [9, 9], [0], [5], [44] * 16, [8] * 30]
END = 256  # the token that ends texts, where tokens are bytes
BYTES = alphabet(257, END)


@pytest.fixture
def random() -> np.random.Generator:
    """A random generator; its seed is printed, and shown when the test fails."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def written(
    engine: Engine,
    hparams: HParams,
    prompts: Iterable[list[int]],
    settings: GenerationSettings,
    batch_size: int = 3,
    tokenizer: Tokenizer | None = None,
    first: int = 0,
) -> list[Completion]:
    """The finished texts in the order of the prompts, each of which must be finished once."""
    tokenizer = tokenizer or alphabet(hparams.n_vocab)
    finished = {}
    for text in generate_completions(
        engine, hparams, tokenizer, enumerate(prompts, first), settings, batch_size
    ):
        assert text.number not in finished
        if text.finish_reason:
            finished[text.number] = text
    return [finished[number] for number in sorted(finished)]


def slow_text(
    golden: Golden,
    prompt: list[int],
    settings: GenerationSettings,
    number: int,
    endoftext: int | None,
) -> tuple[list[int], float]:
    """Tokens and log-probability, all computed anew for each token, without cache or batch.

    Once the text is longer than the window, the model sees the last half of the window (or more,
    if that leaves room for all that is still to come), until that too has grown to a window.
    """
    n_ctx = golden.hparams.n_ctx
    tokens: list[int] = []
    seen: list[int] = []
    total = 0.0
    while len(tokens) < settings.length:
        seen = seen + tokens[-1:] if seen else prompt
        if len(seen) > n_ctx:
            keep = max(n_ctx // 2, n_ctx - (settings.length - len(tokens)))
            seen = (prompt + tokens)[-keep:]
        logits = scores_from_scratch(golden, seen)
        early = [] if endoftext is None or len(tokens) >= settings.min_length else [endoftext]
        random = randomness.generator(settings.seed, randomness.SAMPLE, number, len(tokens))
        allowed = process_logits(logits, settings.sampling, prompt, tokens, early)
        token = sample_token(allowed, settings.sampling, random)
        scores = logits.astype(np.float64)
        total += scores[token] - math.log(np.exp(scores).sum())
        if token == endoftext:
            break
        tokens.append(token)
    return tokens, total


SETTINGS = {
    "greedy": GenerationSettings(length=10, sampling=GREEDY),
    "plain": GenerationSettings(length=10, seed=3),
    "short": GenerationSettings(length=1, seed=3),
    "narrowed": GenerationSettings(length=12, sampling=SamplingSettings(0.8, 20, 0.9), seed=4),
    "sliding": GenerationSettings(length=40, seed=6),
    "penalties": GenerationSettings(
        length=25,
        sampling=SamplingSettings(
            repetition_penalty=1.3, frequency_penalty=0.5, no_repeat_ngram=2, logit_bias={4: 2.0}
        ),
        seed=6,
    ),
    "late end": GenerationSettings(length=30, seed=7, min_length=15),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_texts_are_those_recomputed_from_scratch(golden: Golden, engine: Engine, name: str) -> None:
    """Prompts of all lengths, some longer than the window; texts that end early and that slide."""
    settings, tokenizer = SETTINGS[name], alphabet(61, endoftext=4)
    texts = written(engine, golden.hparams, PROMPTS, settings, 3, tokenizer)
    assert [text.prompt for text in texts] == PROMPTS
    for text in texts:
        tokens, logprob = slow_text(golden, text.prompt, settings, text.number, endoftext=4)
        assert text.tokens == tokens
        assert text.logprob == pytest.approx(logprob, abs=1e-3)
        ended = len(tokens) < settings.length
        assert text.finish_reason == ("endoftext" if ended else "length")
        assert text.text == tokenizer.decode(tokens)
        longest = len(text.prompt) + len(tokens) - (0 if ended else 1)  # the last is not fed back
        assert text.exceeded_context == (longest > 16)
    if name == "sliding":
        assert any(text.exceeded_context and text.finish_reason == "endoftext" for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "narrowed", "sliding"])
def test_a_text_is_the_same_in_every_batch(golden: Golden, engine: Engine, name: str) -> None:
    settings, tokenizer = SETTINGS[name], alphabet(61, endoftext=4)
    prompts = [*PROMPTS, *PROMPTS]

    def tokens(batch_size: int, prompts: list[list[int]], first: int = 0) -> list[list[int]]:
        texts = written(engine, golden.hparams, prompts, settings, batch_size, tokenizer, first)
        return [text.tokens for text in texts]

    together = tokens(16, prompts)
    assert tokens(3, prompts) == together
    assert tokens(7, prompts) == together
    assert tokens(100, prompts) == together
    # Alone, without those before it.
    assert [tokens(1, [prompt], first)[0] for first, prompt in enumerate(prompts)] == together


def test_several_texts_of_one_prompt_are_those_of_the_prompt_alone(
    golden: Golden, engine: Engine
) -> None:
    settings = GenerationSettings(length=30, seed=1)
    texts = written(engine, golden.hparams, [[5, 6, 7]] * 7, settings, 3)
    for text in texts:
        (alone,) = written(engine, golden.hparams, [[5, 6, 7]], settings, first=text.number)
        assert text.tokens == alone.tokens
    assert len({tuple(text.tokens) for text in texts}) == 7


def test_seed_and_number_decide_the_text() -> None:
    engine = FlatEngine(n_ctx=100)

    def texts(seed: int, first: int = 0) -> list[list[int]]:
        settings = GenerationSettings(length=12, seed=seed)
        found = written(engine, engine.hparams, [[5]] * 3, settings, first=first)
        return [text.tokens for text in found]

    assert texts(1) == texts(1)
    assert texts(1)[1:] == texts(1, first=1)[:2]
    different = [*texts(1), *texts(2), *texts(1, first=3)]
    assert len({tuple(text) for text in different}) == 9


def test_a_longer_text_begins_as_a_shorter_one(golden: Golden, engine: Engine) -> None:
    short, long = (
        written(engine, golden.hparams, [[5, 6]], GenerationSettings(length=length, seed=3))[
            0
        ].tokens
        for length in (4, 14)
    )
    assert long[:4] == short


def test_every_token_of_every_text_has_a_random_number_of_its_own() -> None:
    engine = FlatEngine(n_ctx=100)
    found = written(engine, engine.hparams, [[1]] * 20, GenerationSettings(length=100, seed=0), 20)
    texts = np.array([text.tokens for text in found])
    # 2,000 draws of ten: 200 each, with a deviation of 13; the seed is fixed.
    assert (abs(np.bincount(texts.ravel(), minlength=10) - 200) < 5 * 13).all()
    # Two texts agree by chance in one of ten places, and so do a text and itself moved on by one.
    assert (texts[0] == texts[1]).sum() < 30
    assert (texts[:, 1:] == texts[:, :-1]).mean() == pytest.approx(0.1, abs=0.04)


def test_with_more_prompts_than_slots_none_is_lost(random: np.random.Generator) -> None:
    """Texts end after random numbers of tokens; the engine checks that no row is misused."""
    for _ in range(60):
        prompts = int(random.integers(0, 14))
        length = int(random.integers(1, 12))
        script = {}
        for prompt in range(prompts):
            size = int(random.integers(0, length + 3))
            script[prompt] = [*random.integers(0, 256, size).tolist(), END, *[0] * 20]
        settings = GenerationSettings(length=length, sampling=GREEDY)
        for batch_size in {1, 2, 5, int(random.integers(1, 20))}:
            engine = ScriptedEngine(script)
            yields = Counter()
            finished = {}
            numbered = ((prompt + 100, [prompt]) for prompt in range(prompts))
            for text in generate_completions(
                engine, engine.hparams, BYTES, numbered, settings, batch_size
            ):
                assert text.number not in finished
                yields[text.number] += 1
                # Each time it has one token more, but for the last time if it has ended.
                assert yields[text.number] == len(text.tokens) + (text.finish_reason == "endoftext")
                if text.finish_reason:
                    finished[text.number] = text
            assert sorted(finished) == list(range(100, 100 + prompts))
            for number, text in finished.items():
                expected = script[number - 100][: script[number - 100].index(END)]
                assert text.tokens == expected[:length]
                assert text.finish_reason == ("endoftext" if len(expected) < length else "length")
            assert max([rows for call, rows, *_ in engine.calls if call == "start"]) <= max(
                batch_size, 1
            )


def test_sequences_leave_the_batch_as_they_end() -> None:
    script = {prompt: [*[7] * prompt, END] for prompt in range(1, 6)}
    engine = ScriptedEngine(script)
    settings = GenerationSettings(length=9, sampling=GREEDY)
    written(engine, engine.hparams, [[1], [3], [5], [2]], settings, 4, BYTES)
    rows = [len(tokens) for call, tokens in (c[:2] for c in engine.calls) if call == "step"]
    assert rows == [4, 3, 2, 1, 1]


def test_a_prompt_of_several_samples_is_prefilled_once() -> None:
    engine = CountingEngine()
    written(
        engine, engine.hparams, [[1, 2, 3]] * 4, GenerationSettings(length=3, sampling=GREEDY), 4
    )
    assert [call[0] for call in engine.calls if call[0] != "start"] == [
        "prime",
        "reorder",
        "step",
        "step",
    ]


def test_each_token_is_fed_once_and_the_last_not_at_all() -> None:
    engine = CountingEngine()
    settings = GenerationSettings(length=4, sampling=GREEDY)
    texts = written(engine, engine.hparams, [[1, 2, 3], [7]], settings, 2)
    assert [text.tokens for text in texts] == [[4, 5, 6, 7], [8, 9, 0, 1]]
    assert engine.calls[1:] == [
        ("start", 2),
        ("prime", 0, [1, 2, 3]),
        ("prime", 1, [7]),
        ("step", [4, 8]),
        ("step", [5, 9]),
        ("step", [6, 0]),
    ]


def test_endless_prompts_are_taken_as_slots_become_free() -> None:
    engine = CountingEngine()
    taken = itertools.count()
    prompts = ((number, [number % 10]) for number in taken)
    settings = GenerationSettings(length=3, sampling=GREEDY)
    texts = generate_completions(engine, engine.hparams, alphabet(10), prompts, settings, 4)
    finished = list(itertools.islice((text for text in texts if text.finish_reason), 40))
    assert sorted(text.number for text in finished) == list(range(40))
    assert next(taken) <= 45


def test_a_length_of_zero_is_no_text() -> None:
    engine = CountingEngine()
    texts = written(engine, engine.hparams, [[1], [2], [3]], GenerationSettings(length=0), 2)
    assert [(text.tokens, text.text, text.finish_reason) for text in texts] == [
        ([], "", "length")
    ] * 3
    assert [call[0] for call in engine.calls] == ["start"]


def test_a_length_of_one_is_one_token() -> None:
    engine = CountingEngine()
    settings = GenerationSettings(length=1, sampling=GREEDY)
    texts = written(engine, engine.hparams, [[1], [5, 6], [8], [8]], settings, 2)
    assert [text.tokens for text in texts] == [[2], [7], [9], [9]]


# The window.


def test_a_text_that_just_fits_is_prefilled_once() -> None:
    # The last token is not fed back, so a text may end one place beyond the window.
    for prompt, length in ([1, 2], 7), ([1] * 8, 1), ([1], 8):
        engine = CountingEngine(n_ctx=8)
        (text,) = written(
            engine, engine.hparams, [prompt], GenerationSettings(length=length, sampling=GREEDY)
        )
        assert not text.exceeded_context
        assert len(text.tokens) == length
        assert engine.rows == [[*prompt, *text.tokens[:-1]]]


def test_a_text_that_exceeds_the_context_window_continues_from_its_most_recent_part() -> None:
    engine = CountingEngine(n_ctx=8)
    settings = GenerationSettings(length=14, sampling=GREEDY)
    (text,) = written(engine, engine.hparams, [[1, 3, 2]], settings)
    assert text.exceeded_context
    assert text.tokens == [number % 10 for number in range(3, 17)]
    # With 8 tokens to come, half of the window; with 3 to come, there is room for 5.
    primed = [call[2] for call in engine.calls if call[0] == "prime"]
    assert primed == [[1, 3, 2], [5, 6, 7, 8], [9, 0, 1, 2, 3]]


def test_a_prompt_longer_than_the_context_window_is_truncated_to_its_end() -> None:
    prompt = [number % 10 for number in range(25)]
    for length, kept in ((1, 7), (3, 5), (4, 4), (50, 4)):
        engine = CountingEngine(n_ctx=8)
        settings = GenerationSettings(length=length, sampling=GREEDY)
        (text,) = written(engine, engine.hparams, [prompt], settings)
        assert text.exceeded_context
        assert text.prompt == prompt
        assert text.tokens == [number % 10 for number in range(25, 25 + length)]
        assert engine.calls[2] == ("prime", 0, prompt[-kept:])


@pytest.mark.parametrize("n_ctx", [1, 2, 3])
def test_the_smallest_windows_slide_too(n_ctx: int) -> None:
    engine = CountingEngine(n_ctx=n_ctx)
    settings = GenerationSettings(length=9, sampling=GREEDY)
    texts = written(engine, engine.hparams, [[1], [3, 4, 5, 6], [1, 2]], settings, 2)
    for text in texts:
        first = text.prompt[-1] + 1
        assert text.tokens == [number % 10 for number in range(first, first + 9)]


# The end.


def one_text(script: str | list[int], **settings) -> Completion:
    """The text that a scripted engine writes, a token for each byte."""
    tokens = list(script.encode()) if isinstance(script, str) else script
    engine = ScriptedEngine({0: [*tokens, END, *[0] * 50]})
    settings = GenerationSettings(sampling=GREEDY, **{"length": 50, **settings})
    return written(engine, engine.hparams, [[0]], settings, 1, BYTES)[0]


def test_a_text_ends_at_the_end_of_text_and_does_not_hold_it() -> None:
    text = one_text("Once.")
    assert (text.text, text.finish_reason) == ("Once.", "endoftext")
    assert text.tokens == list(b"Once.")


def test_an_ignored_endoftext_is_a_token_like_any_other() -> None:
    text = one_text("Once.", ignore_endoftext=True, length=8)
    assert (text.text, text.finish_reason) == ("Once.<|endoftext|>\0\0", "length")
    assert text.tokens == [*b"Once.", END, 0, 0]


def test_without_endoftext_in_the_vocabulary_only_the_length_ends_a_text() -> None:
    engine = CountingEngine()
    settings = GenerationSettings(length=30, min_length=3)
    (text,) = written(engine, engine.hparams, [[1]], settings, tokenizer=alphabet(10))
    assert (len(text.tokens), text.finish_reason) == (30, "length")


def test_no_text_ends_before_its_minimum_length() -> None:
    engine = FlatEngine(n_ctx=100)
    tokenizer = alphabet(10, endoftext=3)
    for least in (0, 6):
        settings = GenerationSettings(length=40, seed=1, min_length=least)
        texts = written(engine, engine.hparams, [[1]] * 60, settings, 16, tokenizer)
        shortest = min(len(text.tokens) for text in texts if text.finish_reason == "endoftext")
        assert shortest == least
        assert all(3 not in text.tokens for text in texts)


def test_an_early_end_is_not_all_that_may_be_left() -> None:
    banned = tuple((token,) for token in range(10) if token != 3)
    engine = FlatEngine()
    for temperature in (0, 1):
        settings = GenerationSettings(
            length=4, min_length=2, sampling=SamplingSettings(temperature, banned=banned)
        )
        with pytest.raises(UserError, match="All tokens are suppressed"):
            written(engine, engine.hparams, [[1]], settings, tokenizer=alphabet(10, endoftext=3))


@pytest.mark.parametrize(
    ("script", "stop", "expected"),
    [
        ("one. two. three", [". t"], "one"),
        ("one. two. three", ["three"], "one. two. "),
        ("one. two. three", ["o"], ""),
        ("one. two. three", ["two", "ne"], "o"),
        ("one. two. three", ["ne. two", "two", "e. tw"], "on"),  # ends first, begins last
        ("aaab", ["aab"], "a"),
        ("abababc", ["ababc"], "ab"),
        ("Grüße. Ende", ["ße"], "Grü"),
        ("日本語です", ["語"], "日本"),
        ("🙂🙃", ["🙃"], "🙂"),
        ("a\n\nb", ["\n\n"], "a"),
    ],
)
def test_a_text_ends_before_a_stop_string(script: str, stop: list[str], expected: str) -> None:
    text = one_text(script, stop=tuple(stop))
    assert (text.text, text.finish_reason) == (expected, "stop")
    # Nothing is written after the token that completes it.
    whole = bytes(text.tokens).decode()
    assert any(whole.endswith(string) for string in stop)


def test_a_stop_string_that_never_comes_changes_nothing() -> None:
    for stop in (("xyz",), ("Once. ", ".O"), ("once",)):
        text = one_text("Once.", stop=stop)
        assert (text.text, text.finish_reason) == ("Once.", "endoftext")
        text = one_text("Once.", stop=stop, length=4)
        assert (text.text, text.finish_reason) == ("Once", "length")


def test_the_prompt_is_no_part_of_a_stop_string() -> None:
    engine = ScriptedEngine({ord("a"): [*b"bab", END]})
    settings = GenerationSettings(length=9, sampling=GREEDY, stop=("ab",))
    (text,) = written(engine, engine.hparams, [[ord("a")]], settings, 1, BYTES)
    assert (text.text, text.finish_reason) == ("b", "stop")


def test_a_stop_string_in_the_last_token_counts_as_one() -> None:
    text = one_text("one.", stop=(".",), length=4)
    assert (text.text, text.finish_reason) == ("one", "stop")


def test_part_of_a_character_at_the_end_is_shown_as_such() -> None:
    for length, reason in ((3, "length"), (50, "endoftext")):
        text = one_text([*b"ab", 0xE6], length=length)
        assert (text.text, text.finish_reason) == ("ab\ufffd", reason)
    text = one_text([*b"ab", 0xE6], stop=("\ufffd",))
    assert (text.text, text.finish_reason) == ("ab", "stop")


def test_the_text_is_that_of_all_its_tokens_together(random: np.random.Generator) -> None:
    """Whole characters, parts of them and bytes that are none, in any order."""
    pieces = [b"a", "é".encode(), "日".encode(), "🙂".encode(), b"\xff", b"\xe6\x97", b"\xf0\x9f"]
    for _ in range(200):
        script = b"".join(pieces[piece] for piece in random.integers(0, len(pieces), 9))
        text = one_text(list(script[:40]))
        assert text.text == script[:40].decode("utf-8", errors="replace")


def test_stop_strings_are_found_as_a_slow_search_finds_them(random: np.random.Generator) -> None:
    letters = "abé日"
    stopped = 0
    for _ in range(300):
        script = "".join(random.choice(list(letters), int(random.integers(0, 12))))
        stop = tuple(
            "".join(random.choice(list(letters), int(random.integers(1, 5))))
            for _ in range(int(random.integers(1, 4)))
        )
        expected, reason = script, "endoftext"
        for size in range(1, len(script) + 1):
            places = [script[:size].find(string) for string in stop if string in script[:size]]
            if places:
                expected, reason = script[: min(places)], "stop"
                break
        text = one_text(script, stop=stop)
        assert (text.text, text.finish_reason) == (expected, reason), (script, stop)
        stopped += reason == "stop"
    assert 30 < stopped < 290


def test_the_stable_prefix_never_changes_and_is_as_long_as_possible(
    random: np.random.Generator,
) -> None:
    letters = "abé"
    for _ in range(200):
        script = "".join(random.choice(list(letters), 12))
        stop = tuple(
            "".join(random.choice(list(letters), int(random.integers(1, 6))))
            for _ in range(int(random.integers(0, 3)))
        )
        engine = ScriptedEngine({0: [*script.encode(), END]})
        settings = GenerationSettings(length=50, sampling=GREEDY, stop=stop)
        shown = ""
        for text in generate_completions(engine, engine.hparams, BYTES, [(0, [0])], settings, 1):
            stable = text.text[: text.stable_length]
            assert stable.startswith(shown)
            shown = stable
            if not text.finish_reason:
                held_back = text.text[text.stable_length :]
                # Only what may be the beginning of a stop string, and all of that.
                if held_back:
                    assert any(string.startswith(held_back) for string in stop)
                for size in range(len(held_back) + 1, len(text.text) + 1):
                    assert not any(string.startswith(text.text[-size:]) for string in stop)
        assert shown == text.text


# Bad input.


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"length": -1}, "length .* whole number from 0 to 100,000,000, not -1"),
        ({"length": 2.5}, "length .* not 2.5"),
        ({"length": "3"}, "length .* not '3'"),
        ({"length": None}, "length .* not None"),
        ({"length": True}, "length .* not True"),
        ({"min_length": -1}, "min_length .* not -1"),
        ({"min_length": 6}, "min_length is 6, .*length is only 5"),
        ({"seed": -1}, "seed .* whole number at least 0, not -1"),
        ({"seed": 1.5}, "seed .* not 1.5"),
        ({"stop": ("",)}, "stop: .* at least one character"),
        ({"stop": ("a", 3)}, "stop must be a list of strings"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        GenerationSettings(**{"length": 5, **settings})


@pytest.mark.parametrize(
    ("prompts", "settings", "batch_size", "sentence"),
    [
        ([[1]], {"sampling": SamplingSettings(top_k=11)}, 1, "top_k is 11, .* 10 tokens"),
        ([[1]], {"sampling": SamplingSettings(banned=((10,),))}, 1, "10 is not a token id"),
        ([[1]], {}, 0, "batch_size .* whole number from 1 to 65,536, not 0"),
        ([[1]], {}, 1.5, "batch_size .* not 1.5"),
        ([[1, 2], [3, 10]], {}, 2, r"token id 10, .*largest id is 9.*encoder\.json"),
        ([[1, 2], []], {}, 2, "prompt is empty"),
    ],
    ids=str,
)
def test_requests_that_do_not_fit_the_model_are_refused_before_anything_is_computed(
    prompts: list[list[int]], settings: dict, batch_size: int, sentence: str
) -> None:
    engine = CountingEngine()
    with pytest.raises(UserError, match=sentence):
        written(
            engine, engine.hparams, prompts, GenerationSettings(length=5, **settings), batch_size
        )
    assert [call[0] for call in engine.calls] == ["start"]


# Banned words, ids without a token, and a minimum length.


def flat_texts(tokenizer: Tokenizer, **settings) -> list[Completion]:
    """Texts of tokens that are all equally likely."""
    engine = FlatEngine(n_vocab=10, n_ctx=100)
    found = GenerationSettings(**{"length": 60, "seed": 2, **settings})
    return written(engine, engine.hparams, [[1]] * 8, found, 4, tokenizer)


LETTERS = Tokenizer({"a": 0, "t": 1, "at": 2, "Ġa": 3, "Ã": 4, "©": 5, "b": 6, ENDOFTEXT: 7}, [])


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("banned", [("at",), ("é", "tt"), ("aba", " a"), ("b",)])
def test_no_text_contains_a_banned_word_by_whatever_tokens(
    banned: tuple[str, ...], temperature: float
) -> None:
    sampling = SamplingSettings(temperature)
    free = flat_texts(LETTERS, sampling=sampling, ignore_endoftext=True)
    texts = flat_texts(LETTERS, sampling=sampling, ignore_endoftext=True, banned_words=banned)
    assert not any(word in text.text for text in texts for word in banned)
    for text, other in zip(texts, free, strict=True):
        # The same up to the first banned word, and one token differs first.
        same = 0
        while same < 60 and text.tokens[same] == other.tokens[same]:
            same += 1
        if same < 60:
            assert any(word in LETTERS.decode(other.tokens[: same + 1]) for word in banned)


def test_a_text_without_room_beside_banned_words_is_an_error() -> None:
    with pytest.raises(UserError, match="All tokens are suppressed"):
        flat_texts(Tokenizer({"a": 0, "b": 1}, []), banned_words=("a", "b"))


@pytest.mark.parametrize("temperature", [0, 1])
def test_ids_without_a_token_are_never_sampled(temperature: float) -> None:
    texts = flat_texts(LETTERS, sampling=SamplingSettings(temperature), ignore_endoftext=True)
    assert {token for text in texts for token in text.tokens} <= set(range(8))
    if temperature:
        assert len({token for text in texts for token in text.tokens}) == 8


def test_a_stop_string_ends_no_text_that_is_too_short() -> None:
    text = one_text("a.b.c.d", stop=(".",), min_length=3)
    assert (text.text, text.finish_reason) == ("a.b", "stop")
    text = one_text("a.b.c.d", stop=(".b",), min_length=2)  # it begins too early
    assert (text.text, text.finish_reason) == ("a.b.c.d", "endoftext")
    text = one_text("a.b.", stop=(".",), min_length=4)
    assert (text.text, text.finish_reason) == ("a.b.", "endoftext")


def test_the_stable_part_holds_back_nothing_before_the_minimum_length() -> None:
    engine = ScriptedEngine({0: [*b"..!.x", END]})
    settings = GenerationSettings(length=9, sampling=GREEDY, stop=(".!",), min_length=2)
    texts = generate_completions(engine, engine.hparams, BYTES, [(0, [0])], settings, 1)
    assert [text.stable_length for text in texts] == [1, 2, 3, 3, 5, 5]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    engine = FlatEngine()
    engine.scores = lambda tokens: np.array([0, value, *[0] * 8], np.float32)
    for settings in (GREEDY, SamplingSettings(min_p=0.1), SamplingSettings(top_k=3)):
        with pytest.raises(UserError, match="logits are not finite"):
            written(engine, engine.hparams, [[1]], GenerationSettings(length=2, sampling=settings))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "flags",
    [
        {"logit_bias": {1: 3e38}, "repetition_penalty": 1e-37},
        {"logit_bias": {1: 3e38}, "repetition_penalty": 1e-9},
        {"logit_bias": {1: 3e38}, "frequency_penalty": -3e38},
    ],
    ids=str,
)
def test_settings_that_make_the_logits_overflow_are_refused(flags: dict) -> None:
    engine = CountingEngine()
    settings = GenerationSettings(length=5, sampling=SamplingSettings(temperature=0, **flags))
    with pytest.raises(UserError, match="logits overflow"):
        written(engine, engine.hparams, [[1, 3, 2]], settings)
