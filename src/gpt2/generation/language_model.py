"""A loaded model: its weights in an engine, its tokenizer and its hyperparameters."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt2 import randomness
from gpt2.data.readers import normalize_line_ends
from gpt2.errors import UserError
from gpt2.generation.beam_search import BeamSettings, beam_search
from gpt2.generation.completions import (
    Completion,
    GenerationSettings,
    check_prompt,
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
    """Generates completions of prompts, and computes logits and log-probabilities.

    Example:
        >>> model = gpt2.load("117M")
        >>> for completion in model.generate("Once upon a time", length=100, top_k=40, seed=1):
        ...     print(completion.text)
    """

    def __init__(self, engine: Engine, hparams: HParams, tokenizer: Tokenizer):
        self.engine = engine
        self.hparams = hparams
        self.tokenizer = tokenizer

    @property
    def start_token(self) -> int:
        """Return the token that stands in for an empty prompt: `<|endoftext|>`.

        For a vocabulary without it, this is the last id, which is that of `<|endoftext|>` in GPT-2.
        """
        endoftext = self.tokenizer.endoftext
        return self.hparams.n_vocab - 1 if endoftext is None else endoftext

    def encode(self, prompt: str) -> list[int]:
        """Return the token ids of a prompt, which are `[start_token]` if it is empty."""
        return self.tokenizer.encode(prompt) or [self.start_token]

    def settings(
        self, length: int | None = None, seed: int | None = None, **options
    ) -> GenerationSettings:
        """Return settings from keyword options.

        Args:
            length: maximum number of generated tokens; None for n_ctx // 2, as in 2019.
            seed: random seed; None for a random one.
            options: fields of `GenerationSettings` and of `SamplingSettings`.

        Raises:
            UserError: an option does not exist, or its value is not allowed.
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
        """Return `nsamples` completions of each prompt, in the order of the prompts.

        Args:
            prompts: one prompt or several.
            nsamples: completions of each prompt.
            batch_size: sequences that are decoded at once; it does not change the completions.
            options: see `settings`.

        Raises:
            UserError: an option or a prompt is not valid.
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
        """Return the most probable completions of a prompt that beam search finds, best first.

        Args:
            beams: beam width.
            length_penalty: exponent of the length that a log-probability is divided by.
            num_return_sequences: completions to return, at most `beams`.
            options: see `settings`; options of sampling cannot be combined with beam search.

        Raises:
            UserError: an option or the prompt is not valid.
        """
        search = BeamSettings(beams, length_penalty, num_return_sequences)
        settings = self.settings(**options)
        tokens = self.encode(prompt)
        return beam_search(self.engine, self.hparams, self.tokenizer, tokens, settings, search)

    def stream(self, prompt: str = "", **options) -> Iterator[str]:
        """Yield one completion of a prompt in pieces, as it is generated.

        Args:
            options: see `settings`.

        Raises:
            UserError: an option or the prompt is not valid.
        """
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
        """Yield completions while they are generated; see `generate_completions`."""
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
        """Yield finished completions of one prompt, in order.

        Args:
            prompt: token ids, at least one.
            nsamples: number of completions; None for an endless stream.
            batch_size: sequences that are decoded at once; it does not change the completions.
            first_sample: index of the first completion; with the seed it decides the text.
        """
        numbers: Iterable[int] = itertools.count(first_sample)
        if nsamples is not None:
            numbers = range(first_sample, first_sample + nsamples)
        texts = self.completions(((number, prompt) for number in numbers), settings, batch_size)
        return in_order(texts, first_sample)

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Return the logits of the token after 1 to n_ctx token ids, float32 [V]."""
        self.engine.reset(1)
        return self.engine.prefill(0, tokens)

    def score(self, text: str) -> float:
        """Return the log-probability of a text, the sum over its tokens in nats.

        It is what `evaluate score` computes: the first token follows `<|endoftext|>` (without it in
        the vocabulary, the first token is not predicted), line ends become newlines, and a text
        longer than the context window is scored in consecutive windows.

        Raises:
            UserError: there is no token to predict, or the vocabulary cannot encode the text.
        """
        endoftext = self.tokenizer.endoftext
        tokens = [] if endoftext is None else [endoftext]
        tokens += self.tokenizer.encode(normalize_line_ends(text))
        if len(tokens) < 2:
            raise UserError("text: no token to predict. Give a longer text.")
        check_prompt(tokens, self.hparams)
        self.engine.reset(1)
        logits = self.engine.prefill(0, tokens[:1])
        total = log_probability(logits, tokens[1])
        for token, following in itertools.pairwise(tokens[1:]):
            if self.engine.lengths[0] < self.hparams.n_ctx:
                logits = self.engine.decode(np.array([token]))[0]
            else:
                logits = self.engine.prefill(0, [token])
            total += log_probability(logits, following)
        return total
