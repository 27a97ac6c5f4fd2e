"""Completions that share an engine are those of the samplers, and wait for each other fairly."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.generation.attention import ROWS
from gpt2.generation.completions import Completion
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.sampling import ids_without_token
from gpt2.web.scheduler import LARGE_PART, PART, Generation, QueueFull, Request, Scheduler, Stopped
from tests.web.conftest import load_numpy_at

LONG = [number % 290 for number in range(900)]


class Client:
    """Submits requests to a scheduler and waits for their end."""

    def __init__(self, scheduler: Scheduler):
        self.scheduler = scheduler
        self.updates: list[tuple[Generation, int]] = []

    def generation(self, prompt: list[int], number: int = 0, **options) -> Generation:
        top, of_prompt = options.pop("top", None), options.pop("of_prompt", False)
        model = self.scheduler.model
        settings = model.settings(**{"seed": 1, "length": 20} | options)
        unknown = ids_without_token(model.tokenizer.vocabulary, model.hparams.n_vocab)
        return Generation(Completion(number, prompt, settings, unknown), top, of_prompt)

    def submit(self, *generations: Generation, grown=lambda generation: None) -> threading.Event:
        """Submit a request, and return what is set when all its completions have ended."""
        finished, left = threading.Event(), [len(generations)]

        def update(generation: Generation) -> None:
            self.updates.append((generation, len(generation.completion.tokens)))
            grown(generation)
            left[0] -= generation.finished
            if not left[0]:
                finished.set()

        finished.request = Request(generations, update)
        self.scheduler.submit(finished.request)
        return finished

    def run(self, *generations: Generation) -> None:
        assert self.submit(*generations).wait(60)


@pytest.fixture
def client(models_dir: Path) -> Iterator[Client]:
    scheduler = Scheduler(load_numpy_at(models_dir / "small"), slots=4, most_waiting=10)
    yield Client(scheduler)
    scheduler.stop()
    assert scheduler.join(60)


def recorded_calls(scheduler: Scheduler) -> list[tuple[str, int]]:
    """Return a list that will hold each call of the engine and its number of tokens."""
    calls: list[tuple[str, int]] = []
    engine = scheduler.model.engine
    prefill, decode = engine.prefill_slices, engine.decode

    def record_prefill(slot, tokens, start, scored):
        calls.append(("prefill", len(tokens)))
        return prefill(slot, tokens, start, scored)

    def record_decode(tokens, slots):
        calls.append(("decode", len(tokens)))
        return decode(tokens, slots)

    engine.prefill_slices, engine.decode = record_prefill, record_decode
    return calls


OPTIONS = [
    {},
    {"temperature": 0},
    {"top_k": 5, "seed": 7},
    {"top_p": 0.8, "presence_penalty": 1.5, "length": 40},
    {"repetition_penalty": 1.3, "no_repeat_ngram": 2},
    {"stop": ["a"], "length": 60},
    {"min_p": 0.05, "logit_bias": {5: 4.0}, "length": 3},
    {"length": 50, "min_length": 20, "temperature": 1.5},
]
PROMPTS = ["the cat", "and", "", "🐱 über", "the cat", "again " * 30, "x", "the hat and " * 20]


def test_completions_in_a_full_batch_are_those_of_generate(
    client: Client, alone: LanguageModel
) -> None:
    requests = [
        [client.generation(alone.encode(prompt), number, **options) for number in range(2)]
        for prompt, options in zip(PROMPTS, OPTIONS, strict=True)
    ]
    waiting = [client.submit(*request) for request in requests]
    assert all(event.wait(60) for event in waiting)
    for prompt, options, request in zip(PROMPTS, OPTIONS, requests, strict=True):
        expected = alone.generate(prompt, nsamples=2, **{"seed": 1, "length": 20} | options)
        for generation, completion in zip(request, expected, strict=True):
            assert generation.error is None
            assert generation.completion.tokens == completion.tokens
            assert generation.completion.text == completion.text
            assert generation.completion.finish_reason == completion.finish_reason
            assert generation.completion.logprob == pytest.approx(completion.logprob, abs=1e-3)


def test_a_long_prompt_joins_in_parts_while_a_text_grows_by_a_token_in_each_step(
    client: Client, alone: LanguageModel
) -> None:
    calls = recorded_calls(client.scheduler)
    first, second = client.generation([5], length=80), client.generation(LONG, length=3)
    joined = []

    def join(generation: Generation) -> None:
        if len(generation.completion.tokens) == 10:
            joined.append(client.submit(second))

    assert client.submit(first, grown=join).wait(60)
    assert joined[0].wait(60)
    parts = [place for place, (name, size) in enumerate(calls) if name == "prefill" and size > 1]
    assert [calls[place][1] for place in parts] == [PART] * 7 + [900 - 7 * PART]
    assert {calls[place - 1] for place in parts} == {("decode", 1)}
    settings = alone.settings(length=3, seed=1)
    (expected,) = alone.samples(LONG, 1, settings)
    assert second.completion.tokens == expected.tokens


def test_a_text_waits_for_a_part_of_one_prompt_at_most(client: Client) -> None:
    calls = recorded_calls(client.scheduler)
    running = client.generation([5], length=400)
    new = [client.generation(LONG[n : n + size]) for n, size in enumerate((7, 200, 90))]
    joined = []

    def join(generation: Generation) -> None:
        if len(generation.completion.tokens) == 10:
            joined.append(client.submit(*new))

    assert client.submit(running, grown=join).wait(60)
    assert joined[0].wait(60)
    prompts = [place for place, (name, size) in enumerate(calls) if name == "prefill"]
    assert [calls[place][1] for place in prompts] == [1, 7, PART, 200 - PART, 90]
    assert {calls[place - 1][0] for place in prompts[1:]} == {"decode"}


DECODE_STEP = 10.0  # seconds of `Clock`


class Clock:
    """A clock that goes on when the engine works: a decode step takes `DECODE_STEP`."""

    def __init__(self, model: LanguageModel, slice_seconds):
        self.now = 0.0
        self.decoded: list[float] = []  # when each decode step ended
        engine = model.engine
        prefill, decode = engine.prefill_slices, engine.decode

        def timed_prefill(*arguments):
            slices = prefill(*arguments)
            while True:
                self.now += slice_seconds()
                try:
                    next(slices)
                except StopIteration as end:
                    return end.value
                yield

        def timed_decode(tokens, slots):
            self.now += DECODE_STEP
            self.decoded.append(self.now)
            return decode(tokens, slots)

        engine.prefill_slices, engine.decode = timed_prefill, timed_decode

    def __call__(self) -> float:
        return self.now


SCORED = {"top": 2, "of_prompt": True}


@pytest.mark.parametrize("options", [{}, SCORED], ids=["plain", "scored"])
@pytest.mark.parametrize("longest", [0.1, 1.0, 4.0, 7.0, 12.0])
def test_a_long_prompt_delays_a_running_text_by_less_than_two_decode_steps(
    models_dir: Path, alone: LanguageModel, longest: float, options: dict
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    chooser = random.Random(seed)
    model = load_numpy_at(models_dir / "small")
    clock = Clock(model, lambda: chooser.uniform(longest / 2, longest))
    client = Client(Scheduler(model, slots=4, most_waiting=10, clock=clock))
    running, joining = client.generation([5], length=300), client.generation(LONG, **options)
    joined = []

    def join(generation: Generation) -> None:
        if len(generation.completion.tokens) == 10:
            joined.append(client.submit(joining))

    assert client.submit(running, grown=join).wait(60)
    assert joined[0].wait(60)
    gaps = np.diff(clock.decoded)
    assert gaps.max() < 3 * DECODE_STEP
    assert client.scheduler.counters.prompt_tokens == len(LONG) + 1
    for generation, prompt in ((running, [5]), (joining, LONG)):
        settings = alone.settings(length=300 if generation is running else 20, seed=1)
        (expected,) = alone.samples(prompt, 1, settings)
        assert generation.completion.tokens == expected.tokens
    # The prompt gets about as much time as the text: more than half a step in each of its own.
    delayed = gaps[gaps > DECODE_STEP + 1e-6]  # the clock's sums are rounded
    assert delayed[:-1].mean() > 1.4 * DECODE_STEP or longest < 1
    client.scheduler.close()
    assert client.scheduler.join(60)


def test_a_long_prompt_is_processed_in_large_parts_while_nothing_runs(client: Client) -> None:
    calls = recorded_calls(client.scheduler)
    client.run(client.generation(LONG, length=1))
    assert calls == [("prefill", LARGE_PART), ("prefill", len(LONG) - LARGE_PART)]


def test_a_prompt_that_is_given_up_halfway_leaves_the_others_as_they_are(
    models_dir: Path, alone: LanguageModel
) -> None:
    model = load_numpy_at(models_dir / "small")
    clock = Clock(model, lambda: DECODE_STEP)  # a slice in each step
    client = Client(Scheduler(model, slots=2, most_waiting=10, clock=clock))
    running = client.generation([5], length=100)
    events = []

    def react(generation: Generation) -> None:
        length = len(generation.completion.tokens)
        if length == 10:
            events.append(client.submit(client.generation(LONG)))
        elif length == 17:  # within a part of the prompt
            events[0].request.cancelled = True
            later = client.generation(LONG[:200])
            events.extend([client.submit(later), later])

    assert client.submit(running, grown=react).wait(60)
    _, event, later = events
    assert event.wait(60)
    for generation, prompt, length in ((running, [5], 100), (later, LONG[:200], 20)):
        (expected,) = alone.samples(prompt, 1, alone.settings(length=length, seed=1))
        assert generation.completion.tokens == expected.tokens
    client.scheduler.close()
    assert client.scheduler.join(60)


def test_a_cancelled_request_frees_its_slots_and_leaves_the_queue(client: Client) -> None:
    started = threading.Event()
    endless = [client.generation([5], number, length=100_000) for number in range(6)]
    event = client.submit(*endless, grown=lambda generation: started.set())
    assert started.wait(60)
    event.request.cancelled = True
    client.run(*[client.generation([number]) for number in range(4)])
    assert client.scheduler.running == 0
    assert client.scheduler.waiting == 0
    assert not any(generation.finished for generation in endless)


def test_a_repeated_prompt_is_processed_from_where_it_differs(
    client: Client, alone: LanguageModel
) -> None:
    client.run(client.generation(LONG[:200]))
    counters = client.scheduler.counters
    assert (counters.prompt_tokens, counters.reused_tokens) == (200, 0)
    for prompt, kept in (
        (LONG[:200], 200 // ROWS * ROWS),
        ([*LONG[:150], 7, 7, 7, 7], 150 // ROWS * ROWS),
        (LONG[:ROWS], 0),  # the last token has to be processed
        (LONG[: ROWS + 1], ROWS),
        (LONG[1:90], 0),
    ):
        generation = client.generation(prompt, seed=5)
        client.run(generation)
        assert generation.reused == kept
        (expected,) = alone.samples(prompt, 1, alone.settings(length=20, seed=5))
        assert generation.completion.tokens == expected.tokens


def test_completions_of_one_prompt_process_it_once(client: Client) -> None:
    client.run(*[client.generation(LONG[:257], number) for number in range(4)])
    assert client.scheduler.counters.prompt_tokens == 257 + 3
    assert client.scheduler.counters.reused_tokens == 3 * 256


def test_requests_take_turns_for_free_slots(client: Client) -> None:
    large = [client.generation([5], number, length=30) for number in range(40)]
    event = client.submit(*large)
    small = client.generation([6], length=30)
    client.run(small)
    assert sum(generation.finished for generation in large) < 20
    assert event.wait(60)


def test_a_full_context_continues_as_in_the_samplers(models_dir: Path) -> None:
    alone = load_numpy_at(models_dir / "narrow")
    client = Client(Scheduler(load_numpy_at(models_dir / "narrow"), slots=3, most_waiting=10))
    prompts = [[1, 2, 3], LONG[:64], LONG[:50]]
    generations = [client.generation(prompt, length=150) for prompt in prompts]
    client.run(*generations)
    for prompt, generation in zip(prompts, generations, strict=True):
        (expected,) = alone.samples(prompt, 1, alone.settings(length=150, seed=1))
        assert generation.completion.tokens == expected.tokens
        assert generation.completion.exceeded_context
    client.scheduler.close()
    assert client.scheduler.join(60)


def test_scores_are_the_log_softmax_of_the_models_logits(
    client: Client, alone: LanguageModel
) -> None:
    prompt = LONG[:70]
    client.run(client.generation(prompt))  # scores need the logits even where a prefix is known
    generation = client.generation(prompt, length=3, top=4, of_prompt=True)
    client.run(generation)
    tokens = [*prompt, *generation.completion.tokens]
    scores = [*generation.prompt_scores, *generation.scores]
    assert len(scores) == len(tokens) - 1
    for place, score in enumerate(scores, start=1):
        logits = alone.logits(tokens[:place]).astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum())
        assert score.token == tokens[place]
        assert score.logprob == pytest.approx(expected[score.token], abs=1e-3)
        best = np.argsort(-expected)[:4]
        assert [token for token, _ in score.top] == best.tolist()
        np.testing.assert_allclose([value for _, value in score.top], expected[best], atol=1e-3)


def test_a_prompt_can_be_scored_without_a_completion(client: Client) -> None:
    scored = client.generation(LONG[:40], length=0, top=0, of_prompt=True)
    nothing = client.generation(LONG[:40], length=0)
    client.run(scored, nothing)
    assert len(scored.prompt_scores) == 39
    assert scored.completion.tokens == nothing.completion.tokens == []


def test_more_requests_than_may_wait_are_refused(client: Client) -> None:
    busy = client.submit(*[client.generation([5], number, length=10**6) for number in range(4)])
    waiting = []
    with pytest.raises(QueueFull):
        for _ in range(20):
            waiting.append(client.submit(client.generation([5])))
    assert len(waiting) >= 9  # the busy one may still be in the queue, too
    busy.request.cancelled = True
    assert all(event.wait(60) for event in waiting)


def test_stopping_ends_running_completions_and_refuses_waiting_ones(client: Client) -> None:
    started = threading.Semaphore(0)
    running = [client.generation([5], number, length=10**6) for number in range(4)]
    first = client.submit(*running, grown=lambda generation: started.release())
    while client.scheduler.running < 4:
        assert started.acquire(timeout=60)
    later = client.generation([5])
    second = client.submit(later)
    client.scheduler.stop()
    assert first.wait(60)
    assert second.wait(60)
    assert {generation.completion.finish_reason for generation in running} == {"stop"}
    assert isinstance(later.error, Stopped)
    with pytest.raises(Stopped):
        client.submit(client.generation([5]))


def test_closing_lets_everything_finish(client: Client) -> None:
    events = [client.submit(client.generation([5], number)) for number in range(9)]
    client.scheduler.close()
    assert client.scheduler.join(60)
    assert all(event.is_set() for event in events)


def test_an_exception_of_the_engine_fails_its_requests_only(
    client: Client, alone: LanguageModel
) -> None:
    client.run(client.generation(LONG[:100]))
    engine, decode = client.scheduler.model.engine, client.scheduler.model.engine.decode

    def failing(tokens, slots):
        engine.decode = decode
        raise MemoryError

    engine.decode = failing
    failed, works = client.generation([5]), client.generation(LONG[:100])
    client.run(failed)
    client.run(works)
    assert isinstance(failed.error, MemoryError)
    (expected,) = alone.samples(LONG[:100], 1, alone.settings(length=20, seed=1))
    assert works.completion.tokens == expected.tokens


@pytest.mark.parametrize("options", [{}, {"top": 1}, {"top": 1, "of_prompt": True, "length": 0}])
def test_logits_that_are_not_finite_fail_their_completion_only(
    client: Client, options: dict
) -> None:
    engine = client.scheduler.model.engine
    prefill = engine.prefill_slices

    def broken(*arguments):
        engine.prefill_slices = prefill
        return np.nan * (yield from prefill(*arguments))

    engine.prefill_slices = broken
    failed = client.generation([5, 6], **options)
    client.run(failed)
    works = client.generation([5, 6], **options)
    client.run(works)
    assert "not finite" in str(failed.error)
    assert works.error is None


def test_a_completion_without_possible_tokens_fails_alone(client: Client) -> None:
    banned = [[token] for token in range(300)]
    impossible, possible = client.generation([5], banned=banned), client.generation([5])
    client.run(impossible, possible)
    assert isinstance(impossible.error, UserError)
    assert possible.error is None
    assert possible.completion.finish_reason == "length"
