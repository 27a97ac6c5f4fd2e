"""Beam search: the most probable completions instead of sampled ones."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np

from gpt2.checks import check_count, check_fields, setting
from gpt2.errors import UserError
from gpt2.generation.completions import (
    Completion,
    GenerationSettings,
    check_prompt,
    contains_any,
)
from gpt2.generation.engine import Engine, prefill_prompt
from gpt2.generation.sampling import all_suppressed, ids_without_token, process_logits
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer

# Settings that only matter for sampling, and the values that switch them off.
SAMPLING_ONLY = {
    "temperature": (1,),
    "top_k": (0,),
    "top_p": (0, 1),
    "min_p": (0,),
    "typical_p": (0, 1),
}


@dataclasses.dataclass(frozen=True)
class BeamSettings:
    """How wide the beam search is and how it ranks completions, as in Hugging Face's `generate`."""

    beams: int = setting(
        help="beam search with N beams, which finds the most probable samples; 0 for sampling",
        low=0,
        high=1000,
    )
    length_penalty: float = setting(
        1.0,
        "beam search ranks by log-probability / length ** PENALTY: >1 favors longer samples, "
        "<1 shorter ones",
        metavar="PENALTY",
        low=-100,
        high=100,
    )
    num_return_sequences: int = setting(
        1, "completions to return, most probable first; at most the number of beams", low=1
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_count("beams", self.beams, least=1)
        if self.num_return_sequences > self.beams:
            raise UserError(
                f"{self.beams} beams cannot return {self.num_return_sequences} samples. Use at "
                f"least {self.num_return_sequences} beams."
            )

    def check_settings(self, settings: GenerationSettings) -> None:
        """Check that the other settings make sense for beam search.

        Raises:
            UserError: one of them is only for sampling, or ends samples in another way.
        """
        for name, off in SAMPLING_ONLY.items():
            if getattr(settings.sampling, name) not in off:
                raise UserError(
                    f"{name} cannot be combined with beams: beam search does not sample."
                )
        for name, value in (("stop", settings.stop), ("ignore_eos", settings.ignore_endoftext)):
            if value:
                raise UserError(
                    f"{name} cannot be combined with beams: beam search ends samples only at "
                    "<|endoftext|> or at their length."
                )


def beam_search(
    engine: Engine,
    hparams: HParams,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    settings: GenerationSettings,
    search: BeamSettings,
) -> list[Completion]:
    """Return the best completions of a prompt, ranked by log-probability over length.

    Each decode step keeps the `beams` best of all one-token extensions. A sequence that ends in
    `<|endoftext|>` moves to the finished ones. The search is over when `beams` are finished and
    the best running sequence cannot beat the worst of them at its present length. Penalties and
    bans apply to log-probabilities.

    Source: Hugging Face's `generate` with `early_stopping=False`.

    Args:
        prompt: token ids, at least one.

    Raises:
        UserError: a setting does not work with beam search, or prompt and length exceed the
            context window.
    """
    search.check_settings(settings)
    settings.sampling.check_vocabulary(hparams.n_vocab)
    check_beam_prompt(prompt, settings, hparams)
    if settings.length == 0:
        return [
            Completion(number, prompt, settings) for number in range(search.num_return_sequences)
        ]
    unknown = ids_without_token(tokenizer.vocabulary, hparams.n_vocab)
    engine.reset(1)
    logits = prefill_prompt(engine, 0, prompt)[None]
    running: list[tuple[float, list[int]]] = [(0.0, [])]  # log-probability and tokens of each beam
    finished: list[tuple[float, int, float, list[int]]] = []  # heap, worst first

    def finish(total: float, tokens: list[int], length: int) -> None:
        entry = (total / length**search.length_penalty, -len(finished), total, tokens)
        heapq.heappush(finished, entry)
        if len(finished) > search.beams:
            heapq.heappop(finished)

    for length in range(1, settings.length + 1):
        candidates = _candidates(
            logits, running, prompt, tokenizer, settings, unknown, 2 * search.beams
        )
        following: list[tuple[float, list[int], int]] = []
        for rank, (total, beam, token) in enumerate(candidates):
            tokens = running[beam][1]
            if token == tokenizer.endoftext:
                if rank < search.beams:
                    finish(total, [*tokens, token], length)
            elif len(following) < search.beams:
                following.append((total, [*tokens, token], beam))
        running = [(total, tokens) for total, tokens, _ in following]
        best = running[0][0] / length**search.length_penalty if running else -np.inf
        if len(finished) == search.beams and finished[0][0] >= best:
            running = []
        if not running:
            break
        if length < settings.length:
            engine.reorder([beam for _, _, beam in following])
            logits = engine.decode(np.array([tokens[-1] for _, tokens in running]))
    for total, tokens in running:
        finish(total, tokens, len(tokens))
    best_first = sorted(finished, reverse=True)[: search.num_return_sequences]
    return [
        _completion(number, prompt, settings, tokenizer, total, tokens)
        for number, (_, _, total, tokens) in enumerate(best_first)
    ]


def no_speculation() -> UserError:
    """Return the error for beam search with a model that was loaded with speculation."""
    return UserError(
        "speculate cannot be combined with beams: beam search decodes several sequences at once."
    )


def check_beam_prompt(
    prompt: Sequence[int], settings: GenerationSettings, hparams: HParams
) -> None:
    """Check the tokens of a prompt and its length against the model.

    Raises:
        UserError: see `check_prompt`, or prompt and length exceed the context window.
    """
    check_prompt(prompt, hparams)
    if len(prompt) + settings.length - 1 > hparams.n_ctx:
        raise UserError(
            f"Beam search is limited to the context window of {hparams.n_ctx} tokens, but the "
            f"prompt has {len(prompt)} tokens and the length is {settings.length}. Use a smaller "
            "length."
        )


@np.errstate(invalid="ignore")  # process_logits refuses logits that are not finite
def _candidates(
    logits: np.ndarray,
    running: list[tuple[float, list[int]]],
    prompt: Sequence[int],
    tokenizer: Tokenizer,
    settings: GenerationSettings,
    unknown: Sequence[int],
    wanted: int,
) -> list[tuple[float, int, int]]:
    """Return the best extensions by one token: log-probability, beam and token, best first.

    Extensions that complete a banned word are left out.

    Args:
        logits: float32 [beams, V].
        running: log-probability and tokens of each beam.
        unknown: ids without a token, which are suppressed.
        wanted: number of extensions.

    Raises:
        UserError: all tokens of a beam are suppressed, or logits are not finite.
    """
    scores = np.empty(logits.shape, np.float64)  # [beams, V]
    for beam, (total, tokens) in enumerate(running):
        shifted = logits[beam].astype(np.float64) - logits[beam].max()
        log_probabilities = shifted - np.log(np.exp(shifted).sum())
        suppressed = [*unknown, *settings.suppressed_tokens(len(tokens), tokenizer.endoftext)]
        scores[beam] = total + process_logits(
            log_probabilities, settings.sampling, prompt, tokens, suppressed
        )
    flat = scores.ravel()
    while True:
        best = np.argpartition(-flat, min(wanted, len(flat)) - 1)[:wanted]
        best = best[np.argsort(-flat[best], kind="stable")]
        beams, following = np.divmod(best, logits.shape[1])
        found = [
            (float(flat[at]), int(beam), int(token))
            for at, beam, token in zip(best, beams, following, strict=True)
            if flat[at] > -np.inf
        ]
        if not found:
            raise all_suppressed()
        banned = [
            beam * logits.shape[1] + token
            for _, beam, token in found
            if settings.banned_words
            and token != tokenizer.endoftext
            and contains_any(tokenizer.decode([*running[beam][1], token]), settings.banned_words)
        ]
        if not banned:
            return found
        flat[banned] = -np.inf


def _completion(
    number: int,
    prompt: Sequence[int],
    settings: GenerationSettings,
    tokenizer: Tokenizer,
    total: float,
    tokens: list[int],
) -> Completion:
    completion = Completion(number, prompt, settings)
    completion.finish_reason = "length"
    if tokens and tokens[-1] == tokenizer.endoftext:
        tokens = tokens[:-1]
        completion.finish_reason = "endoftext"
    completion.tokens, completion.text = tokens, tokenizer.decode(tokens)
    completion.logprob = total
    return completion
