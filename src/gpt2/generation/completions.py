"""Generates completions of prompts token by token, several sequences at once."""

from __future__ import annotations

import codecs
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from gpt2 import randomness
from gpt2.checks import check_count, check_fields, setting
from gpt2.errors import UserError, quoted
from gpt2.generation.engine import Engine, prefill_prompt
from gpt2.generation.sampling import (
    NoTokenError,
    SamplingSettings,
    ids_without_token,
    log_probability,
    process_logits,
    sample_token,
)
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.generation.speculation import Speculation


# Larger numbers are mistakes: they would take years, or more memory than there is.
LONGEST = 100_000_000  # tokens per sample
MOST_SAMPLES = 10_000_000  # per prompt
LARGEST_BATCH = 65_536  # samples generated at once


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """How completions are sampled and where they end."""

    length: int = setting(
        help="tokens per sample (default: half of the context window; without a prompt, all of it)",
        low=0,
        high=LONGEST,
    )
    sampling: SamplingSettings = dataclasses.field(default_factory=SamplingSettings)
    seed: int = setting(0, "random seed (default: a random one)", low=0, high=math.inf)
    min_length: int = setting(
        0, "tokens before <|endoftext|> or a stop sequence may end a sample", low=0
    )
    ignore_endoftext: bool = setting(
        False, "do not stop at <|endoftext|>, as in 2019", flag="ignore_eos"
    )
    stop: tuple[str, ...] = setting(
        (),
        "stop sequence: end the sample before this string; several as a list: "
        r"""'["\n", "###"]'""",
        metavar="TEXT",
    )
    banned_words: tuple[str, ...] = ()  # strings that the text never contains

    def __post_init__(self) -> None:
        check_fields(self)
        randomness.check_seed(self.seed)
        if self.min_length > self.length:
            raise UserError(
                f"min_length is {self.min_length}, but the length is only {self.length}. Use a "
                "smaller min_length or a larger length."
            )
        for name, strings in (("stop", self.stop), ("banned_words", self.banned_words)):
            if not all(strings):
                raise UserError(f"{name}: a string is empty. Give at least one character.")

    def suppressed_tokens(self, length: int, endoftext: int | None) -> list[int]:
        """Return the tokens suppressed after `length` tokens: <|endoftext|> before min_length."""
        return [] if endoftext is None or length >= self.min_length else [endoftext]


class Completion:
    """The continuation of a prompt, while it is generated and when it is finished.

    Attributes:
        number: index of the sample; with the seed, it decides the random numbers.
        prompt: token ids of the prompt.
        tokens: generated token ids, without a final `<|endoftext|>`.
        text: the generated text, up to a stop sequence.
        logprob: the model's log-probability of all generated tokens, in nats.
        finish_reason: None until it is finished; then "endoftext", "stop", "length" or "error".
        exceeded_context: whether prompt and completion did not fit into the context window.
    """

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        settings: GenerationSettings,
        suppressed: Sequence[int] = (),
    ):
        """Begin an empty completion.

        Args:
            number, prompt: see the attributes.
            suppressed: tokens that are never generated.
        """
        self.number = number
        self.prompt = list(prompt)
        self.tokens: list[int] = []
        self.text = ""
        self.logprob = 0.0
        self.finish_reason: str | None = None if settings.length else "length"
        self.exceeded_context = False
        self._settings = settings
        self._suppressed = suppressed
        self._fixed_length = 0  # characters of the first min_length tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __repr__(self) -> str:
        state = self.finish_reason or "unfinished"
        return f"Completion({quoted(self.text)}, {len(self.tokens):,} tokens, {state})"

    @property
    def stable_length(self) -> int:
        """The number of leading characters of the text that no stop sequence can remove."""
        if self.finish_reason:
            return len(self.text)
        fixed = self._fixed_length
        return fixed + stable_length(self.text[fixed:], self._settings.stop)

    def context(self, n_ctx: int) -> list[int]:
        """Return the tokens to prefill: all of them, or the most recent ones if they do not fit.

        In the second case these are half a context window, or more if the tokens that are still to
        be generated leave room for more.
        """
        tokens = [*self.prompt, *self.tokens]
        if len(tokens) <= n_ctx:
            return tokens
        self.exceeded_context = True
        remaining = self._settings.length - len(self.tokens)
        return tokens[-max(n_ctx // 2, n_ctx - remaining, 1) :]

    def add_token(self, logits: np.ndarray, tokenizer: Tokenizer) -> None:
        """Sample the next token from its logits, float32 [V], and add it.

        A token that would complete a banned word is suppressed, and another one is sampled with the
        same random numbers.

        Raises:
            NoTokenError: all tokens are suppressed, or the settings make the logits overflow.
        UserError: the model's own logits are not finite.
        """
        settings = self._settings
        endoftext = tokenizer.endoftext
        suppressed = [*self._suppressed, *settings.suppressed_tokens(len(self.tokens), endoftext)]
        state = self._decoder.getstate()
        recent = self.text[-max(map(len, settings.banned_words), default=0) :]
        while True:
            processed = process_logits(
                logits, settings.sampling, self.prompt, self.tokens, suppressed
            )
            random = randomness.generator(
                settings.seed, randomness.SAMPLE, self.number, len(self.tokens)
            )
            token = sample_token(processed, settings.sampling, random)
            if token == endoftext and not settings.ignore_endoftext:
                self.logprob += log_probability(logits, token)
                self._finish("endoftext")
                return
            added = self._decoder.decode(tokenizer.decode_bytes([token]))
            if not contains_any(recent + added, settings.banned_words):
                break
            self._decoder.setstate(state)
            suppressed.append(token)
        self.logprob += log_probability(logits, token)
        self.tokens.append(token)
        searched = len(self.text)
        self.text += added
        if len(self.tokens) <= settings.min_length:
            self._fixed_length = len(self.text)
        if not self._stopped(searched) and len(self.tokens) == settings.length:
            self._finish("length")

    def stop(self) -> None:
        """End an unfinished completion where it is, with finish_reason "stop"."""
        if not self.finish_reason:
            self._finish("stop")

    def _stopped(self, searched: int) -> bool:
        """Truncate the text at the first stop sequence, and return whether there is one.

        One that begins within the first min_length tokens does not count.

        Args:
            searched: number of leading characters that have been searched before.
        """
        found = [
            self.text.find(stop, max(searched - len(stop) + 1, self._fixed_length))
            for stop in self._settings.stop
        ]
        places = [place for place in found if place >= 0]
        if places:
            self.text = self.text[: min(places)]
            self.finish_reason = "stop"
        return bool(places)

    def _finish(self, reason: str) -> None:
        searched = len(self.text)
        self.text += self._decoder.decode(b"", final=True)
        if not self._stopped(searched):
            self.finish_reason = reason


Failed = Callable[[Completion, NoTokenError], object]


def stable_length(text: str, stop: Sequence[str]) -> int:
    """Return the length of a growing text without an end that may begin one of the strings.

    Example:
        >>> stable_length("one\\n#", ["##"])
        4
    """
    return min(
        (
            len(text) - size
            for string in stop
            for size in range(min(len(string) - 1, len(text)), 0, -1)
            if text.endswith(string[:size])
        ),
        default=len(text),
    )


def contains_any(text: str, words: Sequence[str]) -> bool:
    """Return whether one of the words is part of the text."""
    return any(word in text for word in words)


def generate_completions(
    engine: Engine,
    hparams: HParams,
    tokenizer: Tokenizer,
    prompts: Iterable[tuple[int, Sequence[int]]],
    settings: GenerationSettings,
    batch_size: int,
    failed: Failed | None = None,
    speculation: Speculation | None = None,
) -> Iterator[Completion]:
    """Generate a completion of each prompt; a finished sequence makes room for the next prompt.

    Args:
        prompts: number and tokens (at least one) of each; may be endless.
        batch_size: sequences generated at once; does not change the completions.
        failed: called for a completion that cannot continue, which is not yielded again; without
            it, the error is raised and all end.
        speculation: decodes a sequence that is alone in its batch; does not change the completions.

    Yields:
        A completion whenever a token was added to it, for the last time when it is finished.

    Raises:
        UserError: a prompt or a setting has a token id that the model lacks.
        NoTokenError: a completion cannot continue, and `failed` is not given.
    """
    check_count("batch_size", batch_size, least=1, most=LARGEST_BATCH)
    settings.sampling.check_vocabulary(hparams.n_vocab)
    unknown = ids_without_token(tokenizer.vocabulary, hparams.n_vocab)
    waiting = (_new_completion(item, settings, hparams, unknown) for item in prompts)
    if settings.length == 0:
        yield from waiting
        return
    batch = list(islice(waiting, batch_size))

    def extended(completion: Completion, logits: np.ndarray) -> Iterator[Completion]:
        """Yield a completion with its next token, unless it fails."""
        try:
            completion.add_token(logits, tokenizer)
        except NoTokenError as error:
            if failed is None:
                raise
            completion.finish_reason = "error"
            failed(completion, error)
        else:
            yield completion

    def prepare(slot: int) -> Iterator[Completion]:
        """Make a slot ready for a decode step, if a completion is left for it."""
        while True:
            if batch[slot].finish_reason:
                following = next(waiting, None)
                if following is None:
                    return
                batch[slot] = following
            elif batch[slot].tokens and engine.lengths[slot] < hparams.n_ctx:
                return
            logits = prefill_prompt(engine, slot, batch[slot].context(hparams.n_ctx))
            yield from extended(batch[slot], logits)

    if len(batch) > 1 and all(completion.prompt == batch[0].prompt for completion in batch):
        # Prefill a prompt that all sequences share only once.
        engine.reset(1)
        logits = prefill_prompt(engine, 0, batch[0].context(hparams.n_ctx))
        engine.reorder([0] * len(batch))
        for completion in batch:
            yield from extended(completion, logits)
    else:
        engine.reset(max(len(batch), 1))
    while batch:
        for slot in range(len(batch)):
            yield from prepare(slot)
        unfinished = [slot for slot, item in enumerate(batch) if not item.finish_reason]
        if unfinished and len(unfinished) < len(batch):
            engine.reorder(unfinished)
        batch = [batch[slot] for slot in unfinished]
        if speculation and len(batch) == 1:
            room = hparams.n_ctx - int(engine.lengths[0])
            most = min(room, settings.length - len(batch[0].tokens))
            yield from speculation.advance(engine, batch[0], most, extended)
        elif batch:
            logits = engine.decode(np.array([completion.tokens[-1] for completion in batch]))
            for slot, completion in enumerate(batch):
                yield from extended(completion, logits[slot])


def in_order(
    completions: Iterable[Completion], first: int = 0, stop: Callable[[], bool] = lambda: False
) -> Iterator[Completion]:
    """Yield the finished completions of `generate_completions` in the order of their numbers.

    Args:
        first: the lowest number; none may be missing.
        stop: asked after each token whether to stop.
    """
    finished: dict[int, Completion] = {}
    for completion in completions:
        if stop():
            return
        if completion.finish_reason:
            finished[completion.number] = completion
        while first in finished:
            yield finished.pop(first)
            first += 1


def check_prompt(prompt: Sequence[int], hparams: HParams) -> None:
    """Check the tokens of a prompt against the vocabulary size.

    Raises:
        UserError: the prompt is empty, or a token id is too large.
    """
    if not len(prompt):
        raise UserError("The prompt is empty. Give it at least one token.")
    if max(prompt) >= hparams.n_vocab:
        raise UserError(
            f"The prompt contains token id {max(prompt)}, but the model's largest id is "
            f"{hparams.n_vocab - 1}. encoder.json and hparams.json belong to different models."
        )


def _new_completion(
    item: tuple[int, Sequence[int]],
    settings: GenerationSettings,
    hparams: HParams,
    suppressed: Sequence[int],
) -> Completion:
    number, prompt = item
    check_prompt(prompt, hparams)
    return Completion(number, prompt, settings, suppressed)
