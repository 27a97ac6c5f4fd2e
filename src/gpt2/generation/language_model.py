"""A loaded model: its weights in an engine, its tokenizer and its hyperparameters."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2 import randomness
from gpt2.checks import check_count, check_type, plain
from gpt2.data.readers import normalize_line_ends
from gpt2.errors import UserError, not_finite, quoted
from gpt2.generation.beam_search import BeamSettings, beam_search, no_speculation
from gpt2.generation.completions import (
    LARGEST_BATCH,
    MOST_SAMPLES,
    Completion,
    Failed,
    GenerationSettings,
    check_prompt,
    generate_completions,
    in_order,
)
from gpt2.generation.engine import Engine, prefill_prompt
from gpt2.generation.sampling import SamplingSettings, log_probability
from gpt2.generation.speculation import Speculation
from gpt2.generation.turns import Turns
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer

# The keyword options of generation; `length` and `seed` have defaults of their own.
SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingSettings))
GENERATION = tuple(
    field.name
    for field in dataclasses.fields(GenerationSettings)
    if field.name not in ("length", "seed", "sampling")
)
BEAM_SEARCH = tuple(field.name for field in dataclasses.fields(BeamSettings))


class LanguageModel:
    """Generates completions of prompts, and computes logits and log-probabilities.

    Several threads may use one model: each call waits for the one before, and a stream for the one
    that another thread has begun. Within a thread, the next call ends a stream that is not read to
    its end.

    Example:
        >>> model = gpt2.load("117M")
        >>> for completion in model.generate("Once upon a time", length=100, top_k=40, seed=1):
        ...     print(completion.text)
    """

    def __init__(
        self,
        engine: Engine,
        hparams: HParams,
        tokenizer: Tokenizer,
        name: str = "",
        engine_name: str = "",
        speculation: Speculation | None = None,
    ):
        """Combine the parts of a model; `open_model` does this for a model folder.

        Args:
            name, engine_name: shown by `repr`.
            speculation: guesses several tokens, which are verified at once.
        """
        self.engine = engine
        self.hparams = hparams
        self.tokenizer = tokenizer
        self._names = (name, engine_name)
        self._turns = Turns()
        self._speculation = speculation

    def __repr__(self) -> str:
        name, engine_name = self._names
        parts = (name, f"{self.hparams.parameters:,} parameters", engine_name)
        return f"LanguageModel({', '.join(filter(None, parts))})"

    @property
    def start_token(self) -> int:
        """Return the token that stands in for an empty prompt: `<|endoftext|>`.

        For a vocabulary without it, this is the last id, which is that of `<|endoftext|>` in GPT-2.
        """
        endoftext = self.tokenizer.endoftext
        return self.hparams.n_vocab - 1 if endoftext is None else endoftext

    def encode(self, prompt: str) -> list[int]:
        """Return the token ids of a prompt, which are `[start_token]` if it is empty.

        Raises:
            UserError: the prompt is not a string, or the vocabulary cannot encode it.
        """
        _check_text("prompt", prompt)
        return self.tokenizer.encode(prompt) or [self.start_token]

    def settings(
        self, length: int | None = None, seed: int | None = None, **options: Any
    ) -> GenerationSettings:
        """Return settings from keyword options.

        Args:
            length: maximum number of generated tokens; None for n_ctx // 2, as in 2019.
            seed: random seed; None for a random one.
            options: fields of `GenerationSettings` and of `SamplingSettings`.

        Raises:
            UserError: an option does not exist, or its value is not allowed.
        """
        if unknown := sorted(set(options) - {*SAMPLING, *GENERATION}):
            if unknown[0] in BEAM_SEARCH:
                raise UserError(f"{unknown[0]}: not an option here. Call beam_search() instead.")
            known = ", ".join(("length", "seed", *GENERATION, *SAMPLING))
            raise UserError(f"unknown option {unknown[0]!r}. Available: {known}.")
        sampling = {name: options.pop(name) for name in SAMPLING if name in options}
        if "banned" in sampling:
            try:
                sampling["banned"] = tuple(map(tuple, sampling["banned"]))
            except TypeError as error:
                raise UserError("banned must be a list of lists of token ids.") from error
        sampling, options = plain(sampling), plain(options)
        if "stop" in options:
            options["stop"] = tuple(_strings("stop", options["stop"]))
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
        **options: Any,
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
        check_count("nsamples", nsamples, least=0, most=MOST_SAMPLES)
        check_count("batch_size", batch_size, least=1, most=LARGEST_BATCH)
        encoded = [self.encode(prompt) for prompt in _strings("prompts", prompts)]
        tokens = (prompt for prompt in encoded for _ in range(nsamples))
        settings = self.settings(**options)
        return list(in_order(self.completions(enumerate(tokens), settings, batch_size)))

    def beam_search(
        self,
        prompt: str = "",
        *,
        beams: int,
        length_penalty: float = 1.0,
        num_return_sequences: int = 1,
        **options: Any,
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
        if self._speculation:
            raise no_speculation()
        search = BeamSettings(beams, length_penalty, num_return_sequences)
        settings = self.settings(**options)
        tokens = self.encode(prompt)
        return self.best(tokens, settings, search)

    def best(
        self, prompt: Sequence[int], settings: GenerationSettings, search: BeamSettings
    ) -> list[Completion]:
        """Return what beam search finds for the tokens of a prompt; see `beam_search`."""
        with self._turns.take():
            return beam_search(self.engine, self.hparams, self.tokenizer, prompt, settings, search)

    def stream(self, prompt: str = "", **options: Any) -> Iterator[str]:
        """Yield one completion of a prompt in pieces, as it is generated.

        Args:
            options: see `settings`.

        Raises:
            UserError: an option or the prompt is not valid.
        """
        # The arguments are checked here, not when the first piece is asked for.
        return self._pieces(self.encode(prompt), self.settings(**options))

    def _pieces(self, prompt: Sequence[int], settings: GenerationSettings) -> Iterator[str]:
        shown = 0
        for text in self.completions([(0, prompt)], settings, 1):
            yield text.text[shown : text.stable_length]
            shown = max(shown, text.stable_length)

    def completions(
        self,
        prompts: Iterable[tuple[int, Sequence[int]]],
        settings: GenerationSettings,
        batch_size: int,
        failed: Failed | None = None,
    ) -> Iterator[Completion]:
        """Yield completions while they are generated.

        Args:
            prompts, settings, batch_size, failed: see `generate_completions`.
        """
        check_type("settings", settings, GenerationSettings)
        check_count("batch_size", batch_size, least=1, most=LARGEST_BATCH)
        if not isinstance(prompts, Iterable):
            raise UserError(f"prompts must be numbers and token ids, not {quoted(prompts)}.")
        return self._completions(prompts, settings, batch_size, failed)

    def _completions(
        self,
        prompts: Iterable[tuple[int, Sequence[int]]],
        settings: GenerationSettings,
        batch_size: int,
        failed: Failed | None,
    ) -> Iterator[Completion]:
        with self._turns.take() as check_turn:
            for completion in generate_completions(
                self.engine,
                self.hparams,
                self.tokenizer,
                prompts,
                settings,
                batch_size,
                failed,
                self._speculation,
            ):
                yield completion
                check_turn()

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
        ids = self._checked_ids(prompt, longest=None)
        check_count("first_sample", first_sample, least=0)
        numbers: Iterable[int] = itertools.count(first_sample)
        if nsamples is not None:
            check_count("nsamples", nsamples, least=0, most=MOST_SAMPLES)
            numbers = range(first_sample, first_sample + nsamples)
        texts = self.completions(((number, ids) for number in numbers), settings, batch_size)
        return in_order(texts, first_sample)

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Return the logits of the token after 1 to n_ctx token ids, float32 [V].

        Raises:
            UserError: `tokens` is not a sequence of so many ids of this model, or the logits are
                not finite.
        """
        ids = self._checked_ids(tokens, longest=self.hparams.n_ctx)
        with self._turns.take():
            self.engine.reset(1)
            logits = prefill_prompt(self.engine, 0, ids)
        if not np.isfinite(logits).all():
            raise not_finite()
        return logits

    def _checked_ids(self, tokens: Sequence[int], longest: int | None) -> list[int]:
        if isinstance(tokens, str):
            raise UserError("tokens must be token ids, not text. Use model.encode(text).")
        try:
            ids = np.asarray(tokens)
        except ValueError:  # lists of different lengths
            ids = np.empty((0, 0))
        n_vocab = self.hparams.n_vocab
        if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
            raise UserError(f"tokens must be a list of token ids, not {quoted(tokens)}.")
        if not len(ids) or (longest and len(ids) > longest):
            most = f"1 to {longest} ids (the context window)" if longest else "at least 1 id"
            raise UserError(f"tokens must be {most}, not {len(ids)}.")
        outside = ids[(ids < 0) | (ids >= n_vocab)]
        if len(outside):
            raise UserError(f"tokens must be ids from 0 to {n_vocab - 1}, not {outside[0]}.")
        return ids.tolist()

    @np.errstate(invalid="ignore")
    def score(self, text: str) -> float:
        """Return the log-probability of a text, the sum over its tokens in nats.

        It is what `evaluate score` computes: the first token follows `<|endoftext|>` (without it in
        the vocabulary, the first token is not predicted), line ends become newlines, and a text
        longer than the context window is scored in consecutive windows.

        Raises:
            UserError: there is no token to predict, the vocabulary cannot encode the text, or the
                logits are not finite.
        """
        _check_text("text", text)
        endoftext = self.tokenizer.endoftext
        tokens = [] if endoftext is None else [endoftext]
        tokens += self.tokenizer.encode(normalize_line_ends(text))
        if len(tokens) < 2:
            raise UserError("text: no token to predict. Give a longer text.")
        check_prompt(tokens, self.hparams)
        with self._turns.take():
            return self._log_probability(tokens)

    def _log_probability(self, tokens: Sequence[int]) -> float:
        """Return the sum of the log-probabilities of all tokens but the first."""
        self.engine.reset(1)
        logits = self.engine.prefill(0, tokens[:1])
        total = log_probability(logits, tokens[1])
        for token, following in itertools.pairwise(tokens[1:]):
            if self.engine.lengths[0] < self.hparams.n_ctx:
                logits = self.engine.decode(np.array([token]))[0]
            else:
                logits = self.engine.prefill(0, [token])
            total += log_probability(logits, following)
        if not np.isfinite(total):
            raise not_finite()
        return total


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise UserError(f"{name} must be a string, not {quoted(value)}.")


def _strings(name: str, value: object) -> list[str]:
    """Return a string, or several strings, as a list."""
    value = plain(value)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise UserError(f"{name} must be a string or a list of strings, not {quoted(value)}.")
    strings = list(value)
    for each in strings:
        if not isinstance(each, str):
            raise UserError(f"{name} must be a string or a list of strings, not of {quoted(each)}.")
    return strings
