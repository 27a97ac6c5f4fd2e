"""One step of training: batches in, a loss out, the weights changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from gpt2 import randomness
from gpt2.hparams import HParams
from gpt2.training.loss import Computation, hardware_precision, next_token_loss
from gpt2.training.optimizers import BY_NAME
from gpt2.training.settings import TrainerSettings

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Trainer:
    """A model's weights as variables, and the step that improves them."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        hparams: HParams,
        settings: TrainerSettings,
        seed: int,
    ):
        self.hparams = hparams
        self.learning_rate = settings.learning_rate
        self.weights = {
            name: tf.Variable(array, name=name.replace("/", "_")) for name, array in weights.items()
        }
        self._settings = settings
        self._seed = seed
        self._trained = [
            variable
            for name, variable in self.weights.items()
            if not settings.only_train_transformer_layers or name.startswith("model/h")
        ]
        self._optimizer = BY_NAME[settings.optimizer](self._trained, settings.learning_rate)
        self._computation = Computation(
            precision=PRECISIONS.get(settings.precision) or hardware_precision(),
            recompute=settings.memory_saving_gradients,
        )
        self._sums: list[tf.Variable] = []  # of gradients, when a step is several batches

    def step(self, step: int, batches: Sequence[np.ndarray]) -> float:
        """Train on the batches of one step as if they were a single large one.

        Args:
            step: its number, of which the noise is a function.
            batches: token ids, each int32 [B, T].

        Returns:
            The mean loss over the batches in nats; NaN or infinite if it went wrong, and then the
            weights have not been touched.
        """
        pairs = [
            (self._with_noise(batch[:, :-1], step, number), batch[:, 1:])
            for number, batch in enumerate(batches)
        ]
        if len(pairs) == 1:
            return float(self._train_on(*pairs[0]))
        if not self._sums:
            self._sums = [tf.Variable(tf.zeros_like(variable)) for variable in self._trained]
        loss = float(np.mean([float(self._accumulate(*pair)) for pair in pairs]))
        if np.isfinite(loss):
            self._apply_sums(tf.constant(len(pairs), tf.float32))
        return loss

    def loss(self, batch: np.ndarray) -> float:
        """Mean loss in nats on token ids int32 [B, T], without noise and without training."""
        return float(self._loss(batch[:, :-1], batch[:, 1:]))

    def _with_noise(self, inputs: np.ndarray, step: int, number: int) -> np.ndarray:
        if self._settings.noise == 0:
            return inputs
        random = randomness.generator(self._seed, randomness.NOISE, step, number)
        replaced = random.random(inputs.shape) < self._settings.noise
        others = random.integers(self.hparams.n_vocab, size=inputs.shape, dtype=np.int32)
        return np.where(replaced, others, inputs)

    @tf.function(reduce_retracing=True)
    def _loss(self, inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        computation = Computation(self._computation.precision, gradient=False)
        return next_token_loss(self.weights, self.hparams, inputs, targets, computation)

    def _loss_and_gradients(
        self, inputs: tf.Tensor, targets: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._trained)
            loss = next_token_loss(self.weights, self.hparams, inputs, targets, self._computation)
        gradients = tape.gradient(loss, self._trained)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    @tf.function(reduce_retracing=True)
    def _train_on(self, inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        loss, gradients = self._loss_and_gradients(inputs, targets)
        if tf.math.is_finite(loss):
            self._optimizer.apply(gradients)
        return loss

    @tf.function(reduce_retracing=True)
    def _accumulate(self, inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        loss, gradients = self._loss_and_gradients(inputs, targets)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient)
        return loss

    @tf.function
    def _apply_sums(self, batches: tf.Tensor) -> None:
        self._optimizer.apply([total / batches for total in self._sums])
        for total in self._sums:
            total.assign(tf.zeros_like(total))
