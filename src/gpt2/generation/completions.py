"""From prompts to texts, token by token, several at once."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from gpt2 import randomness
from gpt2.checks import check_count
from gpt2.errors import UserError
from gpt2.generation.sampling import (
    SamplingSettings,
    log_probability,
    process_logits,
    sample_token,
)
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.generation.engine import Engine


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """How texts are written and where they end."""

    length: int  # tokens at most
    sampling: SamplingSettings = dataclasses.field(default_factory=SamplingSettings)
    seed: int = 0  # with the number of a text, decides it
    min_length: int = 0  # tokens before the end of text may come
    ignore_endoftext: bool = False  # write on after an end of text, as in 2019
    stop: tuple[str, ...] = ()  # strings before which a text ends

    def __post_init__(self) -> None:
        check_count("length", self.length, least=0)
        check_count("min_length", self.min_length, least=0)
        randomness.check_seed(self.seed)
        if self.min_length > self.length:
            raise UserError(
                f"min_length is {self.min_length}, but the length is only {self.length}."
            )
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            raise UserError("A stop string should be a text of at least one character.")

    def suppressed_tokens(self, length: int, endoftext: int | None) -> list[int]:
        """The tokens that must not come next in a text of this length: too early an end of it."""
        return [] if endoftext is None or length >= self.min_length else [endoftext]


class Completion:
    """A text while it is being written, and then the finished one.

    Attributes:
        number: which one it is; with the seed, decides the random numbers.
        prompt: the tokens it goes on from.
        tokens: those that were generated, without a closing `<|endoftext|>`.
        text: their text, up to a stop string.
        logprob: the model's own log-probability of all that was generated, in nats.
        finish_reason: None while it goes on; then "endoftext", "stop" or "length".
        slid: whether it has outgrown the model's window.
    """

    def __init__(self, number: int, prompt: Sequence[int], settings: GenerationSettings):
        self.number = number
        self.prompt = list(prompt)
        self.tokens: list[int] = []
        self.text = ""
        self.logprob = 0.0
        self.finish_reason: str | None = None if settings.length else "length"
        self.slid = False
        self._settings = settings
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def settled(self) -> int:
        """How many characters of the text no stop string can take back any more."""
        if self.finish_reason:
            return len(self.text)
        return min(
            (
                len(self.text) - size
                for stop in self._settings.stop
                for size in range(min(len(stop) - 1, len(self.text)), 0, -1)
                if self.text.endswith(stop[:size])
            ),
            default=len(self.text),
        )

    def window(self, n_ctx: int) -> list[int]:
        """What a model with this window is given of the text: all of it, or the end of it.

        Of a longer text it is the last half of the window, or more if what is still to be written
        leaves room for more.
        """
        tokens = [*self.prompt, *self.tokens]
        if len(tokens) <= n_ctx:
            return tokens
        self.slid = True
        wanted = self._settings.length - len(self.tokens)
        return tokens[-max(n_ctx // 2, n_ctx - wanted, 1) :]

    def take(self, logits: np.ndarray, tokenizer: Tokenizer) -> None:
        """Go on by one token, given the scores of the next one: float32 [V]."""
        settings = self._settings
        endoftext = tokenizer.endoftext
        suppressed = settings.suppressed_tokens(len(self.tokens), endoftext)
        allowed = process_logits(logits, settings.sampling, self.prompt, self.tokens, suppressed)
        place = (settings.seed, randomness.SAMPLE, self.number, len(self.tokens))
        token = sample_token(allowed, settings.sampling, randomness.generator(*place))
        self.logprob += log_probability(logits, token)
        if token == endoftext and not settings.ignore_endoftext:
            self._finish("endoftext")
            return
        self.tokens.append(token)
        searched = len(self.text)
        self.text += self._decoder.decode(tokenizer.decode_bytes([token]))
        if not self._cut_at_stop(searched) and len(self.tokens) == settings.length:
            self._finish("length")

    def _cut_at_stop(self, searched: int) -> bool:
        found = [
            self.text.find(stop, max(searched - len(stop) + 1, 0)) for stop in self._settings.stop
        ]
        places = [place for place in found if place >= 0]
        if places:
            self.text = self.text[: min(places)]
            self.finish_reason = "stop"
        return bool(places)

    def _finish(self, reason: str) -> None:
        searched = len(self.text)
        self.text += self._decoder.decode(b"", final=True)
        if not self._cut_at_stop(searched):
            self.finish_reason = reason


def generate_completions(
    engine: Engine,
    hparams: HParams,
    tokenizer: Tokenizer,
    prompts: Iterable[tuple[int, Sequence[int]]],
    settings: GenerationSettings,
    batch_size: int,
) -> Iterator[Completion]:
    """Write a text for each prompt, some at once; the next begins when one of them is finished.

    Args:
        prompts: number and tokens of each, at least one token; may be endless.
        batch_size: how many are written at once; changes no text.

    Yields:
        A text whenever a token was added to it, for the last time when it is finished.

    Raises:
        UserError: a prompt holds a token, or the settings name one, that the model lacks.
    """
    check_count("batch_size", batch_size, least=1)
    settings.sampling.check_vocabulary(hparams.n_vocab)
    waiting = (_begun(item, settings, hparams) for item in prompts)
    if settings.length == 0:
        yield from waiting
        return
    texts = list(islice(waiting, batch_size))

    def prepare(row: int) -> Iterator[Completion]:
        """Give a row a text with a token to feed and a place for it, if any is left."""
        while True:
            if texts[row].finish_reason:
                following = next(waiting, None)
                if following is None:
                    return
                texts[row] = following
            elif texts[row].tokens and engine.lengths[row] < hparams.n_ctx:
                return
            logits = engine.prefill(row, texts[row].window(hparams.n_ctx))
            texts[row].take(logits, tokenizer)
            yield texts[row]

    if len(texts) > 1 and all(text.prompt == texts[0].prompt for text in texts):
        # Several texts from one prompt, which is taken in once.
        engine.reset(1)
        logits = engine.prefill(0, texts[0].window(hparams.n_ctx))
        engine.reorder([0] * len(texts))
        for text in texts:
            text.take(logits, tokenizer)
            yield text
    else:
        engine.reset(max(len(texts), 1))
    while texts:
        for row in range(len(texts)):
            yield from prepare(row)
        going = [row for row, text in enumerate(texts) if not text.finish_reason]
        if going and len(going) < len(texts):
            engine.reorder(going)
        texts = [texts[row] for row in going]
        if texts:
            logits = engine.decode(np.array([text.tokens[-1] for text in texts]))
            for row, text in enumerate(texts):
                text.take(logits[row], tokenizer)
                yield text


def in_order(
    texts: Iterable[Completion], first: int = 0, stop: Callable[[], bool] = lambda: False
) -> Iterator[Completion]:
    """The finished ones of texts that are being written, by their number.

    Args:
        first: the lowest number; none may be missing.
        stop: asked after each token whether to give up.
    """
    finished: dict[int, Completion] = {}
    for text in texts:
        if stop():
            return
        if text.finish_reason:
            finished[text.number] = text
        while first in finished:
            yield finished.pop(first)
            first += 1


def check_prompt(prompt: Sequence[int], hparams: HParams) -> None:
    """Hold a prompt's tokens against the vocabulary.

    Raises:
        UserError: there is none, or one is beyond it.
    """
    if not len(prompt):
        raise UserError("A prompt should have at least one token.")
    if max(prompt) >= hparams.n_vocab:
        raise UserError(
            f"The prompt holds the token {max(prompt)}, but the model's vocabulary ends at "
            f"{hparams.n_vocab - 1}: encoder.json and hparams.json do not belong together."
        )


def _begun(
    item: tuple[int, Sequence[int]], settings: GenerationSettings, hparams: HParams
) -> Completion:
    number, prompt = item
    check_prompt(prompt, hparams)
    return Completion(number, prompt, settings)
