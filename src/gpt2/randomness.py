"""Random numbers as functions of a seed, a purpose and an index, never of earlier draws.

So sample 7 has the same text in any batch, and training step 700 sees the same batch whether or not
training was interrupted before.
"""

from __future__ import annotations

import math
import secrets

import numpy as np

from gpt2.checks import is_count
from gpt2.errors import UserError, quoted

# Purposes; under one seed, each has independent random numbers.
BATCH, NOISE, PROMPT, SAMPLE, WEIGHTS, DROPOUT, LORA = range(7)


def check_seed(seed: int | None) -> int:
    """Return `seed`, or a random one for None.

    Raises:
        UserError: it is not a whole number of at least 0.
    """
    if seed is None:
        return secrets.randbits(32)
    if not is_count(seed, math.inf) or seed < 0:
        raise UserError(f"seed must be a whole number at least 0, not {quoted(seed)}.")
    return int(seed)


def generator(seed: int, purpose: int, *index: int) -> np.random.Generator:
    """Return the generator for one index, for example `generator(seed, BATCH, step)`."""
    return np.random.default_rng((seed, purpose, *index))
