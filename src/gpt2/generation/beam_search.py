"""Beam search: the likeliest texts, instead of drawn ones."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt2.checks import check_count, check_number
from gpt2.errors import UserError
from gpt2.generation.completions import Completion, GenerationSettings, check_prompt
from gpt2.generation.sampling import process_logits
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.generation.engine import Engine

# Settings that have a meaning only where tokens are drawn, and the values that switch them off.
DRAWING = {"temperature": (1,), "top_k": (0,), "top_p": (0, 1), "min_p": (0,), "typical_p": (0, 1)}


@dataclasses.dataclass(frozen=True)
class BeamSettings:
    """How wide the search is and what it prefers; named as in Hugging Face's `generate`."""

    beams: int  # texts that are followed at once
    length_penalty: float = 1.0  # the score is the log-probability over length to this power
    num_return_sequences: int = 1  # texts that come back, the best first

    def __post_init__(self) -> None:
        check_count("beams", self.beams, least=1)
        check_count("num_return_sequences", self.num_return_sequences, least=1)
        check_number("length_penalty", self.length_penalty, None, None)
        if self.num_return_sequences > self.beams:
            raise UserError(
                f"{self.num_return_sequences} texts cannot come back from {self.beams} beams; "
                "num_return_sequences should be at most beams."
            )

    def check_text(self, settings: GenerationSettings) -> None:
        """Hold the other settings against the search.

        Raises:
            UserError: one of them is about drawing tokens, or about ending at a string.
        """
        for name, off in DRAWING.items():
            if getattr(settings.sampling, name) not in off:
                raise UserError(f"Beam search draws nothing, so {name} cannot go with it.")
        if settings.stop or settings.ignore_endoftext:
            raise UserError("Beam search ends texts at <|endoftext|> or their length only.")


def beam_search(
    engine: Engine,
    hparams: HParams,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    settings: GenerationSettings,
    search: BeamSettings,
) -> list[Completion]:
    """The best texts that go on from a prompt, by log-probability over length.

    Of all ways to go on by one token the best `beams` are followed. A text that ends in
    `<|endoftext|>` is put aside; when `beams` of them are, and what is followed could not beat the
    worst at its present length, the search is over. Penalties and bans change log-probabilities.
    This is how Hugging Face's `generate` does it with `early_stopping=False`.

    Raises:
        UserError: a setting makes no sense here, or prompt and length exceed the window.
    """
    search.check_text(settings)
    check_prompt(prompt, hparams)
    settings.sampling.check_vocabulary(hparams.n_vocab)
    if len(prompt) + settings.length - 1 > hparams.n_ctx:
        raise UserError(
            f"Beam search cannot slide: a prompt of {len(prompt)} tokens and a length of "
            f"{settings.length} are more than the window of {hparams.n_ctx}; choose a smaller "
            "length."
        )
    if settings.length == 0:
        return [
            Completion(number, prompt, settings) for number in range(search.num_return_sequences)
        ]
    engine.reset(1)
    logits = engine.prefill(0, prompt)[None]
    running: list[tuple[float, list[int]]] = [(0.0, [])]  # log-probability and tokens of each row
    finished: list[tuple[float, int, float, list[int]]] = []  # a heap, the worst first

    def finish(total: float, tokens: list[int], length: int) -> None:
        entry = (total / length**search.length_penalty, -len(finished), total, tokens)
        heapq.heappush(finished, entry)
        if len(finished) > search.beams:
            heapq.heappop(finished)

    for length in range(1, settings.length + 1):
        candidates = _candidates(logits, running, prompt, tokenizer, settings, 2 * search.beams)
        following: list[tuple[float, list[int], int]] = []
        for rank, (total, row, token) in enumerate(candidates):
            tokens = running[row][1]
            if token == tokenizer.endoftext:
                if rank < search.beams:
                    finish(total, [*tokens, token], length)
            elif len(following) < search.beams:
                following.append((total, [*tokens, token], row))
        running = [(total, tokens) for total, tokens, _ in following]
        best = running[0][0] / length**search.length_penalty if running else -np.inf
        if len(finished) == search.beams and finished[0][0] >= best:
            running = []
        if not running:
            break
        if length < settings.length:
            engine.reorder([row for _, _, row in following])
            logits = engine.decode(np.array([tokens[-1] for _, tokens in running]))
    for total, tokens in running:
        finish(total, tokens, len(tokens))
    best_first = sorted(finished, reverse=True)[: search.num_return_sequences]
    return [
        _text(number, prompt, settings, tokenizer, total, tokens)
        for number, (_, _, total, tokens) in enumerate(best_first)
    ]


def _candidates(
    logits: np.ndarray,
    running: list[tuple[float, list[int]]],
    prompt: Sequence[int],
    tokenizer: Tokenizer,
    settings: GenerationSettings,
    wanted: int,
) -> list[tuple[float, int, int]]:
    """The best ways to go on: log-probability, row and token of each, the best first."""
    scores = np.empty(logits.shape, np.float64)
    for row, (total, tokens) in enumerate(running):
        shifted = logits[row].astype(np.float64) - logits[row].max()
        probabilities = shifted - np.log(np.exp(shifted).sum())
        suppressed = settings.suppressed_tokens(len(tokens), tokenizer.endoftext)
        scores[row] = total + process_logits(
            probabilities, settings.sampling, prompt, tokens, suppressed
        )
    flat = scores.ravel()
    best = np.argpartition(-flat, min(wanted, len(flat)) - 1)[:wanted]
    best = best[np.argsort(-flat[best], kind="stable")]
    rows, tokens = np.divmod(best, logits.shape[1])
    return [
        (float(flat[at]), int(row), int(token))
        for at, row, token in zip(best, rows, tokens, strict=True)
        if flat[at] > -np.inf
    ]


def _text(
    number: int,
    prompt: Sequence[int],
    settings: GenerationSettings,
    tokenizer: Tokenizer,
    total: float,
    tokens: list[int],
) -> Completion:
    text = Completion(number, prompt, settings)
    text.finish_reason = "length"
    if tokens and tokens[-1] == tokenizer.endoftext:
        tokens = tokens[:-1]
        text.finish_reason = "endoftext"
    text.tokens, text.text, text.logprob = tokens, tokenizer.decode(tokens), total
    return text
