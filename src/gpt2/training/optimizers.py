"""The optimizers, each one of TensorFlow's own fused kernels.

An optimizer is made for a list of variables and applied to a list of gradients of equal length.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


class Adam:
    """Kingma and Ba 2015, algorithm 1 in its second form, with TensorFlow 1's constants.

    Epsilon is added before the bias correction, as TensorFlow 1 did and PyTorch does not.
    """

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, variables: Sequence[tf.Variable], learning_rate: float):
        self._variables = variables
        self._learning_rate = learning_rate
        self._steps = tf.Variable(0, dtype=tf.int64)
        self._means = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        self._squares = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Take one step against the gradients."""
        step = tf.cast(self._steps.assign_add(1), tf.float32)
        for variable, mean, square, gradient in zip(
            self._variables, self._means, self._squares, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=mean.handle,
                v=square.handle,
                beta1_power=self.BETA_1**step,
                beta2_power=self.BETA_2**step,
                lr=self._learning_rate,
                beta1=self.BETA_1,
                beta2=self.BETA_2,
                epsilon=self.EPSILON,
                grad=gradient,
            )


class SGD:
    """Stochastic gradient descent without momentum."""

    def __init__(self, variables: Sequence[tf.Variable], learning_rate: float):
        self._variables = variables
        self._learning_rate = learning_rate

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Take one step against the gradients."""
        for variable, gradient in zip(self._variables, gradients, strict=True):
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.handle, alpha=self._learning_rate, delta=gradient
            )


BY_NAME = {"adam": Adam, "sgd": SGD}
