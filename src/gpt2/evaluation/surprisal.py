"""How little a model expected each token of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpt2 import model
from gpt2.evaluation.scoring import Scorer
from gpt2.hparams import HParams


def surprisal(
    weights: model.Weights, hparams: HParams, tokens: Sequence[int], endoftext: int | None
) -> np.ndarray:
    """Minus the log-probability of each token in nats, float64 [T].

    A text longer than the window is read in windows that follow one another.

    Args:
        tokens: ids [T].
        endoftext: the token that a text begins after. Without one, nothing is known of the first
            token, and its number is NaN.
    """
    given = tokens if endoftext is None else [endoftext, *tokens]
    [scores] = Scorer(weights, hparams).score([np.array(given, np.int32)])
    unknown = [math.nan] if endoftext is None else []
    return np.concatenate([unknown, scores.nats]).astype(np.float64)
