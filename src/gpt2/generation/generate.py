"""From prompts to texts, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt2 import randomness
from gpt2.errors import UserError
from gpt2.generation.sampling import SamplingSettings, check_count, choose

if TYPE_CHECKING:
    from gpt2.generation.engine import Engine


def check_length(length: int, prompt: int, n_ctx: int) -> None:
    """Hold the wished length of a text against the window.

    The last token is not fed back to the model, so it may lie one beyond the window.

    Args:
        length: tokens to generate.
        prompt: tokens before them.

    Raises:
        UserError: together they are more than the model can look at.
    """
    check_count("length", length, least=0)
    if prompt + length - 1 > n_ctx:
        raise UserError(
            f"A length of {length} after a prompt of {prompt} tokens is more than the model's "
            f"window of {n_ctx}; a length of at most {max(n_ctx + 1 - prompt, 0)} fits."
        )


def generate(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    length: int,
    settings: SamplingSettings,
    seed: int,
    first_sample: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> np.ndarray | None:
    """Texts that go on from prompts, all at once.

    Args:
        prompts: token ids, at least one each; one text is made for each prompt.
        length: tokens to generate for each.
        seed: with `first_sample`, which counts on from row to row, decides the texts; the same
            numbers give the same texts in any batch.
        stop: asked before each token whether to give up.

    Returns:
        The generated tokens without the prompts, int32 [prompts, length]; None if it gave up.

    Raises:
        UserError: prompt and length do not fit into the window, or a token of a prompt or top_k
            into the vocabulary.
    """
    if length == 0:
        return np.zeros([len(prompts), 0], np.int32)
    generated = []
    for tokens in stream(engine, prompts, length, settings, seed, first_sample):
        if stop():
            return None
        generated.append(tokens)
    return np.stack(generated, axis=1)


def stream(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    length: int,
    settings: SamplingSettings,
    seed: int,
    first_sample: int = 0,
) -> Iterator[np.ndarray]:
    """As `generate`, but yields the next token of each text as it is chosen, int32 [prompts]."""
    longest = max(map(len, prompts))
    check_length(length, longest, engine.hparams.n_ctx)
    n_vocab = engine.hparams.n_vocab
    settings.check_vocabulary(n_vocab)
    largest = max(map(max, prompts))
    if largest >= n_vocab:
        raise UserError(
            f"The prompt holds the token {largest}, but the model's vocabulary ends at "
            f"{n_vocab - 1}: encoder.json and hparams.json do not belong together."
        )
    padding = np.array([longest - len(prompt) for prompt in prompts], np.int32)
    tokens = np.zeros([len(prompts), longest], np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, padding[row] :] = prompt
    engine.start(padding, longest + length - 1)
    for position in range(length):
        logits = engine.feed(tokens)
        tokens = np.array(
            [
                [choose(row_logits, settings, _uniform(seed, first_sample + row, position))]
                for row, row_logits in enumerate(logits)
            ],
            np.int32,
        )
        yield tokens[:, 0]


def _uniform(seed: int, sample: int, position: int) -> float:
    return randomness.generator(seed, randomness.SAMPLE, sample, position).random()
