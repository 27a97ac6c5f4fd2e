"""Low-rank adaptation: small factors are trained in place of the matrices they add to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from gpt2 import randomness


class LoRA:
    """Hu et al. 2021: each matrix is what it was plus (alpha / rank) times the product a b.

    The model's variables always hold that sum, so whoever reads, saves or samples from them need
    not know of it; `merge` brings them up to date. a [in, rank] begins at random, with a deviation
    that keeps the size of what it is given, and b [rank, out] at 0, so at first nothing changes.
    """

    def __init__(self, matrices: Mapping[str, tf.Variable], rank: int, alpha: float, seed: int):
        """Take a model's matrices, by name; each [1, in, out]."""
        self._matrices = matrices
        self._scale = tf.Variable(alpha / rank, trainable=False)
        self._bases = {
            name: tf.Variable(matrix, trainable=False) for name, matrix in matrices.items()
        }
        self._a: dict[str, tf.Variable] = {}
        self._b: dict[str, tf.Variable] = {}
        for number, (name, matrix) in enumerate(matrices.items()):
            _, inputs, outputs = matrix.shape
            random = randomness.generator(seed, randomness.LORA, number)
            start = random.standard_normal((inputs, rank), np.float32) * np.float32(inputs**-0.5)
            self._a[name] = tf.Variable(start)
            self._b[name] = tf.Variable(tf.zeros([rank, outputs]))

    @property
    def factors(self) -> dict[str, tf.Variable]:
        """What is trained, by name."""
        return _prefixed("lora/a", self._a) | _prefixed("lora/b", self._b)

    @property
    def state(self) -> dict[str, tf.Variable]:
        """What a continuation needs beside the matrices, by name; alpha is part of it."""
        return {"lora/scale": self._scale} | _prefixed("lora/base", self._bases) | self.factors

    def gradients(self, gradients: Iterable[tf.Tensor]) -> list[tf.Tensor]:
        """The factors' gradients, in their order, from those of the matrices in theirs."""
        of_a, of_b = [], []
        for gradient, a, b in zip(gradients, self._a.values(), self._b.values(), strict=True):
            of_sum = self._scale * gradient[0]  # [in, out]
            of_a.append(tf.matmul(of_sum, b, transpose_b=True))
            of_b.append(tf.matmul(a, of_sum, transpose_a=True))
        return of_a + of_b

    def merge(self) -> None:
        """Set the matrices to their sums."""
        for name, matrix in self._matrices.items():
            product = tf.matmul(self._scale * self._a[name], self._b[name])
            matrix.assign(self._bases[name] + product)


def _prefixed(prefix: str, variables: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    return {f"{prefix}/{name}": variable for name, variable in variables.items()}
