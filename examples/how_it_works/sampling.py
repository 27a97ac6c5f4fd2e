"""Sampling: from logits to the next token, and from tokens to a text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def distribution(
    logits: np.ndarray, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> np.ndarray:
    """Return the probability of each token, 0 for those that are filtered out: [V] -> [V]."""
    order = np.argsort(-logits, kind="stable")  # the most probable first
    if top_k:
        order = order[:top_k]
    scaled = logits[order].astype(float) / temperature
    kept = np.exp(scaled - scaled.max())
    kept /= kept.sum()
    if top_p < 1:
        count = np.searchsorted(np.cumsum(kept), top_p) + 1  # the fewest that reach top_p
        order, kept = order[:count], kept[:count] / kept[:count].sum()
    probabilities = np.zeros(len(logits))
    probabilities[order] = kept
    return probabilities


def sample(
    logits_of: Callable[[np.ndarray], np.ndarray],
    prompt: list[int],
    length: int,
    random: np.random.Generator,
    temperature: float = 1.0,
    **filters: float,
) -> list[int]:
    """Return `length` tokens that follow a prompt.

    Args:
        logits_of: the model, int [T] -> [T, V].
        temperature: 0 is greedy decoding, the most probable token each time.
    """
    tokens = list(prompt)
    for _ in range(length):
        logits = logits_of(np.array(tokens))[-1]  # only the last position matters
        if temperature == 0:
            tokens.append(int(logits.argmax()))
        else:
            probabilities = distribution(logits, temperature, **filters)
            tokens.append(int(random.choice(len(logits), p=probabilities)))
    return tokens[len(prompt) :]


if __name__ == "__main__":
    words, scores = ["fox", "goat", "hare", "moon", "the"], np.array([2.0, 1.5, 1.0, -1.0, -3.0])
    print(f"{'':16}", *(f"{word:>5}" for word in words))
    for settings in ({}, {"temperature": 0.5}, {"temperature": 1.5}, {"top_k": 2}, {"top_p": 0.8}):
        name = " ".join(f"{key} {value}" for key, value in settings.items()) or "as it is"
        print(f"{name:16}", *(f"{p:5.2f}" for p in distribution(scores, **settings)))
