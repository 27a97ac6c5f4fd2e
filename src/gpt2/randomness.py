"""Random numbers as functions of a seed and of what they are for, never of what was drawn before.

So the text of sample 7 is the same whether it is drawn alone or in a batch, and training step 700
sees the same batch whether or not it was interrupted before.
"""

from __future__ import annotations

import secrets

import numpy as np

from gpt2.errors import UserError

# What a number is for; each purpose has a stream of its own under the same seed.
BATCH, NOISE, PROMPT, SAMPLE, WEIGHTS, DROPOUT, LORA = range(7)


def check_seed(seed: int | None) -> int:
    """`seed` itself, or a fresh one for None.

    Raises:
        UserError: it is not a whole number of at least 0.
    """
    if seed is None:
        return secrets.randbits(32)
    if type(seed) is not int or seed < 0:
        raise UserError(f"The seed should be a whole number of at least 0, not {seed!r}.")
    return seed


def generator(seed: int, purpose: int, *index: int) -> np.random.Generator:
    """The random numbers for one thing, for example `generator(seed, BATCH, step)`."""
    return np.random.default_rng((seed, purpose, *index))
