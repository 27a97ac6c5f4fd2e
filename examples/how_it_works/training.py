"""Training by hand: logits in a table, softmax, cross-entropy, its gradient, Adam."""

from __future__ import annotations

import numpy as np

TEXT = (
    "Mila was a proud fox. Otto was a lazy goat. The fox said that no one was as fast as she was. "
    "The goat slept in the tall grass. The fox ran past the mill and lost her way. The goat woke, "
    "saw the fox and led her home."
)


def loss_and_gradient(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy, in nats, and its gradient: [N, V], int [N] -> scalar, [N, V].

    The gradient is the probabilities, minus 1 at the targets, over N.
    """
    rows = np.arange(len(targets))
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    loss = -np.log(probabilities[rows, targets]).mean()
    probabilities[rows, targets] -= 1
    return float(loss), probabilities / len(targets)


class Adam:
    """Adam (Kingma and Ba 2015): step by the mean gradient over the root of the mean square."""

    def __init__(self, shape: tuple[int, ...]):
        self.mean, self.square, self.steps = np.zeros(shape), np.zeros(shape), 0

    def update(self, weights: np.ndarray, gradient: np.ndarray, learning_rate: float) -> None:
        """Change the weights, in place."""
        self.steps += 1
        self.mean += 0.1 * (gradient - self.mean)
        self.square += 0.001 * (gradient**2 - self.square)
        rate = learning_rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        weights -= rate * self.mean / (np.sqrt(self.square) + 1e-8)


def train(tokens: np.ndarray, n_vocab: int, steps: int) -> tuple[np.ndarray, list[float]]:
    """Return a bigram model's logits, [V, V], and the loss before each step."""
    table, losses = np.zeros((n_vocab, n_vocab)), []
    optimizer = Adam(table.shape)
    before, after = tokens[:-1], tokens[1:]
    for _ in range(steps):
        loss, of_logits = loss_and_gradient(table[before], after)  # forward: look up rows
        of_table = np.zeros_like(table)
        np.add.at(of_table, before, of_logits)  # backward: each row gets its gradients
        optimizer.update(table, of_table, learning_rate=0.1)
        losses.append(loss)
    return table, losses


if __name__ == "__main__":
    characters = sorted(set(TEXT))
    _, curve = train(np.array([characters.index(c) for c in TEXT]), len(characters), 301)
    print(*(f"step {step:3}: loss {curve[step]:.2f}" for step in (0, 1, 10, 100, 300)), sep="\n")
