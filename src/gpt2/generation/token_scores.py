"""Log-probabilities of tokens and of their most probable alternatives."""

from __future__ import annotations

import dataclasses

import numpy as np

from gpt2.errors import not_finite
from gpt2.generation.sampling import largest_indices


@dataclasses.dataclass(frozen=True)
class TokenScore:
    """How probable a token of a text is, and what else could be in its place.

    Attributes:
        token: its id.
        logprob: its log-probability, in nats.
        top: ids and log-probabilities of the most probable tokens, in descending order.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def score_token(logits: np.ndarray, token: int, top: int) -> TokenScore:
    """Return the score of a token.

    Args:
        logits: unprocessed logits, float32 [V].
        token: id of the token.
        top: how many of the most probable tokens to return, 0 to V.

    Raises:
        UserError: the logits are not finite.

    Example:
        >>> score_token(np.log(np.array([0.5, 0.25, 0.25])), token=1, top=1)
        TokenScore(token=1, logprob=-1.386..., top=((0, -0.693...),))
    """
    largest = float(logits.max())
    if not np.isfinite(largest):  # it is NaN if any logit is
        raise not_finite()
    log_sum = largest + float(np.log(np.exp(logits - largest).sum()))
    best = largest_indices(logits, min(top, len(logits))) if top else np.empty(0, np.int64)
    best = best[np.argsort(-logits[best], kind="stable")]
    alternatives = tuple((int(each), float(logits[each]) - log_sum) for each in best)
    return TokenScore(token, float(logits[token]) - log_sum, alternatives)
