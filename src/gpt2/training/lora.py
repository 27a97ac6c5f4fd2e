"""LoRA: low-rank adaptation. Small factors are trained, and their product is added to a matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from gpt2 import randomness


class LoRA:
    """Low-rank updates of matrices: W = W_base + (alpha / rank) a b.

    The model's variables always hold W, so code that reads, saves or samples from them works as
    without LoRA; `merge` recomputes W from the factors. Factor a [in, rank] starts normal with
    standard deviation in**-0.5, and b [rank, out] at 0, so that W starts at W_base.

    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
    """

    def __init__(self, matrices: Mapping[str, tf.Variable], rank: int, alpha: float, seed: int):
        """Create the factors.

        Args:
            matrices: the model's matrices by name, each [1, in, out].
            rank: columns of a and rows of b.
            alpha: scale of the update, see above.
            seed: of the random initialization of a.
        """
        self._matrices = matrices
        self._rank = rank
        self._scale = tf.Variable(alpha / rank, trainable=False)
        self._bases = {
            name: tf.Variable(matrix, trainable=False) for name, matrix in matrices.items()
        }
        self._a: dict[str, tf.Variable] = {}
        self._b: dict[str, tf.Variable] = {}
        for number, (name, matrix) in enumerate(matrices.items()):
            _, inputs, outputs = matrix.shape
            random = randomness.generator(seed, randomness.LORA, number)
            initial = random.standard_normal((inputs, rank), np.float32) * np.float32(inputs**-0.5)
            self._a[name] = tf.Variable(initial)
            self._b[name] = tf.Variable(tf.zeros([rank, outputs]))

    @property
    def alpha(self) -> float:
        """The scale of the update in effect, to 6 digits, as it is stored as alpha / rank."""
        return float(f"{float(self._scale.numpy()) * self._rank:.6g}")

    @property
    def factors(self) -> dict[str, tf.Variable]:
        """The trained variables, by name."""
        return _prefixed("lora/a", self._a) | _prefixed("lora/b", self._b)

    @property
    def state(self) -> dict[str, tf.Variable]:
        """The state to save besides the matrices, by name; it includes alpha / rank."""
        return {"lora/scale": self._scale} | _prefixed("lora/base", self._bases) | self.factors

    def gradients(self, gradients: Iterable[tf.Tensor]) -> list[tf.Tensor]:
        """Return the gradients of `factors` for those of the matrices, each [1, in, out]."""
        d_a, d_b = [], []
        for gradient, a, b in zip(gradients, self._a.values(), self._b.values(), strict=True):
            d_product = self._scale * gradient[0]  # [in, out]
            d_a.append(tf.matmul(d_product, b, transpose_b=True))  # [in, rank]
            d_b.append(tf.matmul(a, d_product, transpose_a=True))  # [rank, out]
        return d_a + d_b

    def merge(self) -> None:
        """Set each matrix to W_base + (alpha / rank) a b."""
        for name, matrix in self._matrices.items():
            product = tf.matmul(self._scale * self._a[name], self._b[name])
            matrix.assign(self._bases[name] + product)


def _prefixed(prefix: str, variables: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    return {f"{prefix}/{name}": variable for name, variable in variables.items()}
