"""A model that is ready to write: its vocabulary, its weights in an engine, its sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from gpt2 import randomness
from gpt2.errors import UserError
from gpt2.generation.beam_search import BeamSettings, beam_search
from gpt2.generation.completions import (
    Completion,
    GenerationSettings,
    generate_completions,
    in_order,
)
from gpt2.generation.sampling import SamplingSettings, log_probability
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.generation.engine import Engine

SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingSettings))


class LanguageModel:
    """Writes texts that go on from prompts, and tells how likely a text is.

    model = gpt2.load("117M")
    for text in model.generate(["Once upon a time"], length=100, top_k=40, seed=1):
        print(text.text)
    """

    def __init__(self, engine: Engine, hparams: HParams, tokenizer: Tokenizer):
        self.engine = engine
        self.hparams = hparams
        self.tokenizer = tokenizer

    @property
    def start_token(self) -> int:
        """The token that a text without a prompt begins after.

        It is `<|endoftext|>`; a vocabulary without one gets its last id, where GPT-2 has its own.
        """
        endoftext = self.tokenizer.endoftext
        return self.hparams.n_vocab - 1 if endoftext is None else endoftext

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a prompt; of an empty one, the token that any text begins after."""
        return self.tokenizer.encode(prompt) or [self.start_token]

    def settings(
        self, length: int | None = None, seed: int | None = None, **options
    ) -> GenerationSettings:
        """Settings from plain options: fields of `GenerationSettings` and of `SamplingSettings`.

        Args:
            length: tokens at most; None for half of the window, as in 2019.
            seed: None for a random one.

        Raises:
            UserError: an option does not exist, or has a value that makes no sense.
        """
        sampling = {name: options.pop(name) for name in SAMPLING if name in options}
        known = {field.name for field in dataclasses.fields(GenerationSettings)}
        if unknown := set(options) - known:
            raise UserError(f"There is no option {min(unknown)!r} for generating text.")
        if "stop" in options:
            stop = options["stop"]
            options["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        return GenerationSettings(
            length=self.hparams.n_ctx // 2 if length is None else length,
            seed=randomness.check_seed(seed),
            sampling=SamplingSettings(**sampling),
            **options,
        )

    def generate(
        self,
        prompts: str | Sequence[str] = "",
        *,
        nsamples: int = 1,
        batch_size: int = 16,
        **options,
    ) -> list[Completion]:
        """Texts that go on from each prompt, `nsamples` of each, in the order of the prompts.

        Args:
            batch_size: how many are written at once; changes no text.
            options: see `settings`.

        Raises:
            UserError: an option makes no sense, or a prompt cannot be spelled.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        tokens = [self.encode(prompt) for prompt in prompts for _ in range(nsamples)]
        settings = self.settings(**options)
        return list(in_order(self.completions(enumerate(tokens), settings, batch_size)))

    def beam_search(
        self,
        prompt: str = "",
        *,
        beams: int,
        length_penalty: float = 1.0,
        num_return_sequences: int = 1,
        **options,
    ) -> list[Completion]:
        """The likeliest texts that go on from a prompt; see `beam.beam_search`."""
        search = BeamSettings(beams, length_penalty, num_return_sequences)
        settings = self.settings(**options)
        tokens = self.encode(prompt)
        return beam_search(self.engine, self.hparams, self.tokenizer, tokens, settings, search)

    def stream(self, prompt: str = "", **options) -> Iterator[str]:
        """The text that goes on from a prompt, piece by piece as it is written."""
        shown = 0
        for text in self.completions([(0, self.encode(prompt))], self.settings(**options), 1):
            yield text.text[shown : text.stable_length]
            shown = max(shown, text.stable_length)

    def completions(
        self,
        prompts: Iterable[tuple[int, Sequence[int]]],
        settings: GenerationSettings,
        batch_size: int,
    ) -> Iterator[Completion]:
        """Texts as they are being written; see `writing.write`."""
        return generate_completions(
            self.engine, self.hparams, self.tokenizer, prompts, settings, batch_size
        )

    def samples(
        self,
        prompt: Sequence[int],
        nsamples: int | None,
        settings: GenerationSettings,
        batch_size: int = 1,
        first_sample: int = 0,
    ) -> Iterator[Completion]:
        """Finished texts that go on from one prompt, in order.

        Args:
            nsamples: how many; None for no end of them.
            first_sample: the number of the first one.
        """
        numbers = count(first_sample)
        if nsamples is not None:
            numbers = range(first_sample, first_sample + nsamples)
        texts = self.completions(((number, prompt) for number in numbers), settings, batch_size)
        return in_order(texts, first_sample)

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """The scores of the token after these, float32 [V]; at most n_ctx tokens."""
        self.engine.reset(1)
        return self.engine.prefill(0, tokens)

    def score(self, text: str) -> float:
        """The log-probability of a text in nats, the sum over its tokens.

        A text longer than the window is scored by what the window holds of it, slid as in writing.

        Raises:
            UserError: the text has no token, or cannot be spelled.
        """
        tokens = self.tokenizer.encode(text)
        if not tokens:
            raise UserError("There is no text to score.")
        self.engine.reset(1)
        total = 0.0
        logits = self.engine.prefill(0, [self.start_token])
        for place, token in enumerate(tokens):
            total += log_probability(logits, token)
            if self.engine.lengths[0] == self.hparams.n_ctx:
                logits = self.engine.prefill(0, tokens[: place + 1][-self.hparams.n_ctx // 2 :])
            elif place + 1 < len(tokens):
                logits = self.engine.decode(np.array([token]))[0]
        return total
