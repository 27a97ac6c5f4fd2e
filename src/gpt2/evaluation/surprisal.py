"""Surprisal: the negative log-probability of each token of a text."""

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
    """Return the surprisal of each token in nats, float64 [T].

    A text longer than the context window is scored in consecutive windows.

    Args:
        tokens: ids [T].
        endoftext: id of the token that the first one is predicted from; None if the vocabulary
            has no `<|endoftext|>`, and the surprisal of the first token is then NaN.
    """
    given = tokens if endoftext is None else [endoftext, *tokens]
    [scores] = Scorer(weights, hparams).score([np.array(given, np.int32)])
    unknown = [math.nan] if endoftext is None else []
    return np.concatenate([unknown, scores.nats]).astype(np.float64)
