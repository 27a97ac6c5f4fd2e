"""The optimizers: Adam, AdamW, SGD and Adafactor.

They use TensorFlow's fused kernels where these exist: Keras's Adam is slower and allocates memory
for intermediate results. Keras's Adafactor keeps a full-size slot per weight, which the method is
meant to avoid. benchmarks/optimizers.py measures both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from gpt2.training.settings import TrainerSettings


class Optimizer:
    """Base class: updates variables by their gradients, one variable after the other.

    Attributes:
        slots: the optimizer's state to save, by optimizer, kind and variable, for example
            "adam/mean/model/wte".
    """

    def __init__(self, variables: Mapping[str, tf.Variable], settings: TrainerSettings):
        self.slots: dict[str, tf.Variable] = {}
        self._variables = variables
        self._name = settings.optimizer
        self._decay = settings.decay
        self._steps = self._slot("steps", (), tf.int64)

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        learning_rate: tf.Tensor,
        factor: tf.Tensor | None = None,
    ) -> None:
        """Take one step.

        Weight decay is decoupled from the gradients (Loshchilov and Hutter 2019): each weight is
        first multiplied by 1 - learning_rate * decay. Biases and gains are not decayed; a gain
        should stay near 1, not 0.

        Args:
            gradients: float32, one per variable in the variables' order.
            learning_rate: float32 scalar.
            factor: float32 scalar that scales the gradients, for clipping and loss scaling.
        """
        step = tf.cast(self._steps.assign_add(1), tf.float32)
        before: list[tf.Operation] = []
        for (name, variable), gradient in zip(self._variables.items(), gradients, strict=True):
            # One after the other, so that temporaries exist for only one variable at a time.
            with tf.control_dependencies(before):
                if factor is not None:
                    gradient = gradient * factor
                if self._decay and not name.endswith(("/b", "/g")):
                    variable.assign(variable * (1 - learning_rate * self._decay))
                before = [self._update(name, variable, gradient, learning_rate, step)]

    def _slot(self, name: str, shape: Sequence[int], dtype: tf.DType = tf.float32) -> tf.Variable:
        slot = tf.Variable(tf.zeros(shape, dtype), trainable=False)
        self.slots[f"{self._name}/{name}"] = slot
        return slot

    def _slots(self, kind: str) -> dict[str, tf.Variable]:
        """Return a new slot for each variable, of the variable's shape."""
        return {
            name: self._slot(f"{kind}/{name}", variable.shape)
            for name, variable in self._variables.items()
        }

    def _update(
        self,
        name: str,
        variable: tf.Variable,
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> tf.Operation:
        """Update one variable; `step` is a float32 scalar, 1 for the first step."""
        raise NotImplementedError


class Adam(Optimizer):
    """Adam as in TensorFlow 1: epsilon is added before the bias correction, unlike in PyTorch.

    Source: Kingma and Ba 2015, algorithm 1, in the more efficient order at the end of section 2.
    """

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, variables: Mapping[str, tf.Variable], settings: TrainerSettings):
        super().__init__(variables, settings)
        self._means = self._slots("mean")
        self._squares = self._slots("square")

    def _update(
        self,
        name: str,
        variable: tf.Variable,
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> tf.Operation:
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._means[name].handle,
            v=self._squares[name].handle,
            beta1_power=self.BETA_1**step,
            beta2_power=self.BETA_2**step,
            lr=learning_rate,
            beta1=self.BETA_1,
            beta2=self.BETA_2,
            epsilon=self._epsilon(step),
            grad=gradient,
        )

    def _epsilon(self, step: tf.Tensor) -> float | tf.Tensor:
        return self.EPSILON


class AdamW(Adam):
    """Adam with decoupled weight decay, and epsilon after the bias correction as in PyTorch.

    Source: Loshchilov and Hutter 2019, algorithm 2, with decay scaled by the learning rate.
    """

    def _epsilon(self, step: tf.Tensor) -> float | tf.Tensor:
        return self.EPSILON * tf.sqrt(1 - self.BETA_2**step)  # cancels the kernel's correction


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak 1964) if `settings.momentum` is not 0."""

    def __init__(self, variables: Mapping[str, tf.Variable], settings: TrainerSettings):
        super().__init__(variables, settings)
        self._momentum = settings.momentum
        self._velocities = self._slots("velocity") if settings.momentum else {}

    def _update(
        self,
        name: str,
        variable: tf.Variable,
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> tf.Operation:
        if not self._momentum:
            return tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.handle, alpha=learning_rate, delta=gradient
            )
        return tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self._velocities[name].handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self._momentum,
        )


class Adafactor(Optimizer):
    """Adafactor with an explicit learning rate: no relative step, parameter scaling or momentum.

    The squared gradients of a matrix are kept as row means and column means, which take about
    1/400 of the weights' memory. Without parameter scaling, learning rates are comparable to
    Adam's.

    Source: Shazeer and Stern 2018, algorithm 4.
    """

    DECAY, FLOOR, CLIP = -0.8, 1e-30, 1.0

    def __init__(self, variables: Mapping[str, tf.Variable], settings: TrainerSettings):
        super().__init__(variables, settings)
        self._rows: dict[str, tf.Variable] = {}
        self._columns: dict[str, tf.Variable] = {}
        self._squares: dict[str, tf.Variable] = {}
        for name, variable in variables.items():
            shape = variable.shape.as_list()
            if len(shape) > 1:
                self._rows[name] = self._slot(f"row/{name}", shape[:-1])
                self._columns[name] = self._slot(f"column/{name}", [*shape[:-2], shape[-1]])
            else:
                self._squares[name] = self._slot(f"square/{name}", shape)

    def _update(
        self,
        name: str,
        variable: tf.Variable,
        gradient: tf.Tensor,
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> tf.Operation:
        beta_2 = 1 - step**self.DECAY  # 0 at the first step, so no bias correction is needed
        square = tf.square(gradient) + self.FLOOR

        def averaged(slot: tf.Variable, square: tf.Tensor) -> tf.Tensor:
            average = beta_2 * slot + (1 - beta_2) * square
            slot.assign(average)
            return average

        if name in self._rows:
            row = averaged(self._rows[name], tf.reduce_mean(square, axis=-1))  # [..., in]
            column = averaged(self._columns[name], tf.reduce_mean(square, axis=-2))  # [..., out]
            row /= tf.reduce_mean(row, axis=-1, keepdims=True)
            update = gradient * tf.math.rsqrt(row)[..., None] * tf.math.rsqrt(column)[..., None, :]
        else:
            update = gradient * tf.math.rsqrt(averaged(self._squares[name], square))
        rms = tf.sqrt(2 * tf.nn.l2_loss(update) / tf.cast(tf.size(update), tf.float32))
        return tf.raw_ops.ResourceApplyGradientDescent(
            var=variable.handle,
            alpha=learning_rate / tf.maximum(1.0, rms / self.CLIP),
            delta=update,
        )


BY_NAME = {"adam": Adam, "adamw": AdamW, "sgd": SGD, "adafactor": Adafactor}
