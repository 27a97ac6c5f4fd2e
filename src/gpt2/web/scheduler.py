"""Continuous batching: the completions of many requests share the slots of one engine.

A thread runs the engine in steps. In each step every running completion gets a token, and a part of
a new prompt is processed. Requests join and leave between steps. A completion is a function of its
prompt, settings, seed and number (see `Completion`), so its text does not depend on what else is
running.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable

import numpy as np

from gpt2.errors import UserError
from gpt2.generation.attention import ROWS
from gpt2.generation.cached_engine import common_prefix
from gpt2.generation.completions import Completion
from gpt2.generation.engine import Engine
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.token_scores import TokenScore, score_token

# Prompt tokens that are processed together: few while a text is running. Parts of a prompt begin at
# multiples of `ROWS`, so that its logits are those of the whole prompt, to the bit.
PART, LARGE_PART = ROWS, 4 * ROWS
# Time for the slices of a part between two decode steps, as a multiple of the last one's: running
# texts wait for less than 3 decode steps, with a slice that takes longer than expected.
PREFILL_SHARE = 0.75


class QueueFull(Exception):
    """As many requests are waiting as the scheduler takes."""


class Stopped(Exception):
    """The scheduler has been stopped and takes no more requests."""


class Generation:
    """A completion on its way through a scheduler.

    Attributes:
        completion: the completion.
        prompt_scores: scores of the prompt's tokens but the first, if they are wanted.
        scores: scores of the generated tokens, if they are wanted.
        reused: tokens of the prompt whose keys and values were in the KV cache already.
        error: why it ended without being finished, or None.
        slot: its slot of the engine, -1 before it has one.
        context: the tokens to prefill.
    """

    def __init__(self, completion: Completion, top: int | None = None, of_prompt: bool = False):
        """Prepare a completion for a scheduler.

        Args:
            top: how many of the most probable tokens to record with each token; None for no scores.
            of_prompt: whether to score the tokens of the prompt, too.
        """
        self.completion = completion
        self.prompt_scores: list[TokenScore] = []
        self.scores: list[TokenScore] = []
        self.reused = 0
        self.error: Exception | None = None
        self.slot = -1
        self._top = top
        self._scores_prompt = of_prompt and top is not None
        self.context: list[int] = []
        self._position: int | None = None  # how many of these are in the KV cache
        self._slices: Generator[None, None, int] | None = None  # of the part that has begun

    @property
    def wants_scores(self) -> bool:
        """Whether the scores of tokens are recorded."""
        return self._top is not None

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        waits_for_scores = self._scores_prompt and self.error is None
        return bool(self.error or self.completion.finish_reason) and not waits_for_scores

    @property
    def decoding(self) -> bool:
        """Whether the prompt has been processed, so that the next step is a decode step."""
        return self._position == len(self.context)

    def start(self, n_ctx: int) -> None:
        """Begin with the prompt, or with the most recent tokens when the context is full."""
        self.context = self.completion.context(n_ctx)
        self._position = None

    def prefill(
        self, engine: Engine, most: int, model: LanguageModel, pause: Callable[[], bool]
    ) -> int:
        """Process a part of the prompt, and add the first token after the last part.

        Args:
            most: the largest number of tokens of a part.
            pause: asked between two slices of the computation whether to return; the next call
                continues.

        Returns:
            The number of tokens of the part if it is finished, otherwise 0.
        """
        self._slices = self._slices or self._prefill(engine, most, model)
        while True:
            try:
                next(self._slices)
            except StopIteration as end:
                self._slices = None
                return end.value
            if pause():
                return 0

    def _prefill(
        self, engine: Engine, most: int, model: LanguageModel
    ) -> Generator[None, None, int]:
        if self._position is None:
            self._position = 0 if self._scores_prompt else engine.reuse(self.slot, self.context)
            self.reused = max(self.reused, self._position)
            yield  # the KV cache may have been copied
        start = self._position
        tokens = self.context[start : start + most]
        logits = yield from engine.prefill_slices(self.slot, tokens, start, self._scores_prompt)
        if self._scores_prompt:
            following = self.context[start + 1 : start + len(tokens) + 1]
            yield from self._score_prompt(logits, following)
        self._position += len(tokens)
        if self.decoding:
            self._scores_prompt = False
            if not self.finished:
                self.add_token(logits[-1], model)
        return len(tokens)

    def add_token(self, logits: np.ndarray, model: LanguageModel) -> None:
        """Add the next token of the completion from its logits, float32 [V]."""
        length = len(self.completion.tokens)
        try:
            self.completion.add_token(logits, model.tokenizer)
            if self._top is not None and len(self.completion.tokens) > length:
                self.scores.append(score_token(logits, self.completion.tokens[-1], self._top))
        except Exception as error:  # which must not end the other completions
            self.error = error

    def end(self) -> None:
        """End the completion where it is."""
        self._scores_prompt = False
        self.completion.stop()

    def _score_prompt(
        self, logits: np.ndarray, following: list[int]
    ) -> Generator[None, None, None]:
        try:
            for row, token in zip(logits, following, strict=False):  # none follows the last row
                self.prompt_scores.append(score_token(row, token, self._top or 0))
                yield
        except UserError as error:
            self.error = error


class Request:
    """Completions that somebody waits for.

    Attributes:
        waiting: those that have no slot yet.
        cancelled: set this to give up the request; its slots are free after the current step.
    """

    def __init__(self, generations: Iterable[Generation], update: Callable[[Generation], None]):
        """Prepare a request.

        Args:
            update: called in the scheduler's thread when a completion has grown, has ended, or has
                failed. It must not block or raise.
        """
        self.waiting = collections.deque(generations)
        self.update = update
        self.cancelled = False


@dataclasses.dataclass
class Counters:
    """What a scheduler has done since it was created."""

    prompt_tokens: int = 0  # processed
    reused_tokens: int = 0  # of prompts, found in the KV cache
    generated_tokens: int = 0
    steps: int = 0


class Scheduler:
    """Runs the requests of one model in a thread of its own."""

    def __init__(
        self,
        model: LanguageModel,
        slots: int,
        most_waiting: int,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Start the thread.

        Args:
            model: nothing else may use its engine from here on.
            slots: completions that are generated at once.
            most_waiting: requests that may wait for a slot.
            clock: returns the time in seconds.
        """
        self.model = model
        self.slots = slots
        self.counters = Counters()
        self._most_waiting = most_waiting
        self._clock = clock
        self._engine = model.engine
        self._engine.reset(slots)
        self._contexts: list[list[int]] = [[] for _ in range(slots)]  # the last one in each slot
        self._free = list(range(slots))  # the one that has been free for the longest time first
        self._running: dict[Generation, Request] = {}
        self._requests: collections.deque[Request] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """How many completions have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._requests)

    def submit(self, request: Request) -> None:
        """Add a request to the queue.

        Raises:
            QueueFull: too many requests are waiting.
            Stopped: the scheduler has been closed or stopped.
        """
        with self._changed:
            if self._closed:
                raise Stopped
            if len(self._requests) >= self._most_waiting:
                raise QueueFull
            self._requests.append(request)
            self._changed.notify()

    def close(self) -> None:
        """Take no more requests, and end the thread when the present ones are finished."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def stop(self) -> None:
        """End all running completions after the current step, and refuse those that wait."""
        with self._changed:
            self._closed = self._stopping = True
            self._changed.notify()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the end of the thread and return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._has_work():
            try:
                self._drop_cancelled()
                if self._stopping:
                    self._end_all()
                self._admit()
                self._step()
            except Exception as error:  # a bug or a lack of memory must not end the thread
                self._fail(error)

    def _has_work(self) -> bool:
        """Wait for a request; return False if the scheduler is closed and none is left."""
        with self._changed:
            while not (self._running or self._requests or self._closed):
                self._changed.wait()
            return bool(self._running or self._requests)

    def _drop_cancelled(self) -> None:
        for generation, request in list(self._running.items()):
            if request.cancelled:
                self._release(generation)
        with self._changed:
            remaining = [request for request in self._requests if not request.cancelled]
            self._requests = collections.deque(remaining)

    def _admit(self) -> None:
        """Give free slots to waiting completions, one of each request in turn."""
        while self._free and (next_one := self._next_waiting()):
            generation, request = next_one
            if generation.finished:  # of length 0
                request.update(generation)
                continue
            generation.start(self.model.hparams.n_ctx)
            self._take_slot(generation)
            self._running[generation] = request

    def _take_slot(self, generation: Generation) -> None:
        """Give a completion the slot whose prompt was most like its own, to keep the other ones."""
        context = generation.context
        shared = [common_prefix(self._contexts[slot], context) for slot in self._free]
        generation.slot = self._free.pop(shared.index(max(shared)))
        self._contexts[generation.slot] = context

    def _next_waiting(self) -> tuple[Generation, Request] | None:
        with self._changed:
            while self._requests:
                request = self._requests.popleft()
                if request.waiting:
                    generation = request.waiting.popleft()
                    if request.waiting:
                        self._requests.append(request)
                    return generation, request
            return None

    def _step(self) -> None:
        """Extend all running completions by a token, and process some of the next prompt."""
        decoding = [generation for generation in self._running if generation.decoding]
        start = self._clock()
        self._decode(sorted(decoding, key=lambda generation: generation.slot))
        seconds = self._clock() - start
        prompts = [generation for generation in self._running if not generation.decoding]
        if prompts:
            is_awaited = len(prompts) < len(self._running)
            self._prefill(prompts[0], PREFILL_SHARE * seconds if is_awaited else math.inf)
        self.counters.steps += bool(decoding or prompts)

    def _decode(self, generations: list[Generation]) -> None:
        """Add a token to completions, except to those whose context is full: they begin again."""
        n_ctx = self.model.hparams.n_ctx
        for generation in generations:
            if self._engine.lengths[generation.slot] == n_ctx:
                generation.start(n_ctx)
        generations = [generation for generation in generations if generation.decoding]
        if not generations:
            return
        tokens = np.array([generation.completion.tokens[-1] for generation in generations])
        slots = [generation.slot for generation in generations]
        for generation, logits in zip(generations, self._engine.decode(tokens, slots), strict=True):
            length = len(generation.completion.tokens)
            generation.add_token(logits, self.model)
            self._report(generation, length)

    def _prefill(self, generation: Generation, seconds: float) -> None:
        """Process a part of a prompt, or at least a slice of it: as much as that time allows."""
        end, last = self._clock() + seconds, self._clock()

        def pause() -> bool:
            nonlocal last
            before, last = last, self._clock()
            return last + (last - before) > end  # the next slice may take as long as this one

        length, reused = len(generation.completion.tokens), generation.reused
        most = LARGE_PART if seconds == math.inf else PART
        processed = generation.prefill(self._engine, most, self.model, pause)
        self.counters.prompt_tokens += processed
        self.counters.reused_tokens += generation.reused - reused
        if generation.decoding or generation.finished:
            self._report(generation, length)

    def _report(self, generation: Generation, length: int) -> None:
        """Report a completion that had `length` tokens before the present step."""
        self.counters.generated_tokens += len(generation.completion.tokens) - length
        request = self._running[generation]
        if generation.finished:
            self._release(generation)
        request.update(generation)

    def _release(self, generation: Generation) -> None:
        del self._running[generation]
        self._free.append(generation.slot)

    def _end_all(self) -> None:
        """End running completions with finish_reason "stop" and refuse the waiting ones."""
        for generation, request in list(self._running.items()):
            generation.end()
            self._release(generation)
            request.update(generation)
        self._refuse_waiting(Stopped())

    def _fail(self, error: Exception) -> None:
        for generation, request in list(self._running.items()):
            generation.error = error
            self._release(generation)
            request.update(generation)
        self._engine.reset(self.slots)

    def _refuse_waiting(self, error: Exception) -> None:
        while next_one := self._next_waiting():
            generation, request = next_one
            generation.error = error
            request.update(generation)
