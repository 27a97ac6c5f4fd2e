"""The optimizers: from gradients to changed weights.

Where TensorFlow has a fused kernel, an optimizer is that kernel: Keras's Adam takes longer and
needs memory for what lies between its operations. Keras's Adafactor keeps a number for every
weight, which is what the method is there to avoid. benchmarks/optimizers.py measures both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from gpt2.training.settings import TrainerSettings


class Optimizer:
    """Changes variables by their gradients, one variable after the other.

    `slots` is all that it remembers, by name: what it is, then the variable's name, for example
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
        """Take one step against the gradients.

        Weight decay is decoupled from them (Loshchilov and Hutter 2019): beside its step, a weight
        loses learning_rate times decay of itself. Biases and gains do not; they are few, and a
        gain's place of rest is 1.

        Args:
            gradients: one of each variable, in their order; float32.
            learning_rate: a float32 scalar.
            factor: what the gradients are to be multiplied by first, a float32 scalar.
        """
        step = tf.cast(self._steps.assign_add(1), tf.float32)
        before: list[tf.Operation] = []
        for (name, variable), gradient in zip(self._variables.items(), gradients, strict=True):
            # In turn, so that intermediate results exist for one variable at a time.
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
        """A slot of this kind for each variable, of the variable's shape."""
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
        """Change one variable; `step` is a float32 scalar, 1 at first."""
        raise NotImplementedError


class Adam(Optimizer):
    """Kingma and Ba 2015, algorithm 1 in its second form, with TensorFlow 1's constants.

    Epsilon is added before the bias correction, as TensorFlow 1 did and PyTorch does not.
    """

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, variables: Mapping[str, tf.Variable], settings: TrainerSettings):
        super().__init__(variables, settings)
        self._means = self._slots("mean")
        self._squares = self._slots("square")

    def _update(self, name, variable, gradient, learning_rate, step):
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
    """Adam with weight decay, its epsilon after the bias correction as in the paper and PyTorch.

    Loshchilov and Hutter 2019, algorithm 2, with the decay times the learning rate.
    """

    def _epsilon(self, step: tf.Tensor) -> float | tf.Tensor:
        return self.EPSILON * tf.sqrt(1 - self.BETA_2**step)  # the kernel divides by this root


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak 1964) if the settings give some."""

    def __init__(self, variables: Mapping[str, tf.Variable], settings: TrainerSettings):
        super().__init__(variables, settings)
        self._momentum = settings.momentum
        self._velocities = self._slots("velocity") if settings.momentum else {}

    def _update(self, name, variable, gradient, learning_rate, step):
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
    """Shazeer and Stern 2018, algorithm 4, with the learning rate as it is given.

    The mean square of a matrix's gradient is kept as a mean per row and one per column, so of a
    model it takes a four-hundredth of the weights' memory. Neither is the rate scaled by the size
    of the weights nor is there momentum: a rate means about what it means to Adam.
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

    def _update(self, name, variable, gradient, learning_rate, step):
        keep = 1 - step**self.DECAY  # 0 at the first step, so nothing needs a bias correction
        square = tf.square(gradient) + self.FLOOR

        def moved(slot: tf.Variable, square: tf.Tensor) -> tf.Tensor:
            average = keep * slot + (1 - keep) * square
            slot.assign(average)
            return average

        if name in self._rows:
            row = moved(self._rows[name], tf.reduce_mean(square, axis=-1))  # [..., in]
            column = moved(self._columns[name], tf.reduce_mean(square, axis=-2))  # [..., out]
            row /= tf.reduce_mean(row, axis=-1, keepdims=True)
            update = gradient * tf.math.rsqrt(row)[..., None] * tf.math.rsqrt(column)[..., None, :]
        else:
            update = gradient * tf.math.rsqrt(moved(self._squares[name], square))
        size = tf.sqrt(2 * tf.nn.l2_loss(update) / tf.cast(tf.size(update), tf.float32))
        return tf.raw_ops.ResourceApplyGradientDescent(
            var=variable.handle,
            alpha=learning_rate / tf.maximum(1.0, size / self.CLIP),
            delta=update,
        )


BY_NAME = {"adam": Adam, "adamw": AdamW, "sgd": SGD, "adafactor": Adafactor}
