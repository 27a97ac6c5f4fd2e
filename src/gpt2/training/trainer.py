"""One training step: loss, gradients, and the update of the weights."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from gpt2 import randomness
from gpt2.data.samplers import Batch
from gpt2.errors import UserError
from gpt2.forward import ComputeSettings, graph, hardware_precision
from gpt2.hparams import HParams
from gpt2.training.distribution import Distribution
from gpt2.training.lora import LoRA
from gpt2.training.loss import LossScale, next_token_loss
from gpt2.training.optimizers import BY_NAME
from gpt2.training.settings import TrainerSettings, learning_rate

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclasses.dataclass(frozen=True)
class StepResult:
    """The metrics of a step."""

    loss: float  # nats, mean over all targets of the step
    gradient_norm: float  # global norm of the trained tensors' gradients, before clipping
    learning_rate: float

    @property
    def finite(self) -> bool:
        """Whether loss and gradient norm are finite; otherwise the step changed nothing."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


class Trainer:
    """A model's weights as variables, and the step that trains them.

    `weights` always holds the ordinary model's tensors, with LoRA too.
    """

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        hparams: HParams,
        settings: TrainerSettings,
        seed: int,
        distribution: Distribution | None = None,
    ):
        """Create the variables and the optimizer.

        Args:
            weights: the model's tensors, by OpenAI's names.
            seed: of noise, dropout and LoRA's initialization.
            distribution: the devices that share each batch (default: one).

        Raises:
            UserError: the settings do not fit the model; see `TrainerSettings.trained_tensors`.
        """
        self.hparams = hparams
        self._settings = settings
        self._seed = seed
        self._distribution = distribution or Distribution()
        self._compute_settings = ComputeSettings(
            precision=PRECISIONS.get(settings.precision) or hardware_precision(),
            gradient_checkpointing=settings.memory_saving_gradients,
            dropout=settings.dropout,
        )
        with self._distribution.variables():
            self.weights = {
                name: tf.Variable(array, name=name.replace("/", "_"))
                for name, array in weights.items()
            }
            # The loss is differentiated by `_trained`; the optimizer updates `_parameters`. They
            # are the same variables unless LoRA trains factors of them.
            self._trained = {name: self.weights[name] for name in settings.trained_tensors(hparams)}
            self._lora = None
            parameters = self._trained
            if settings.lora_rank:
                self._lora = LoRA(self._trained, settings.lora_rank, settings.lora_alpha, seed)
                parameters = self._lora.factors
            self._parameters = list(parameters.values())
            self._optimizer = BY_NAME[settings.optimizer](parameters, settings)
        self._loss_scale = LossScale() if self._compute_settings.precision == "float16" else None
        self._sums: list[tf.Variable] = []  # accumulated gradients of a step of several batches

    def step(self, step: int, batches: Sequence[Batch]) -> StepResult:
        """Train on the batches of one step as on one large batch.

        With float16, a step whose gradients overflow is repeated with a lower loss scale.

        Args:
            step: number of the step, from 1; noise, dropout and learning rate are functions of it.
            batches: their targets weigh the same, in whichever batch they are.

        Returns:
            The metrics. If they are not finite, weights and optimizer state are unchanged.

        Raises:
            ValueError: the batches have no targets.
        """
        rate = learning_rate(self._settings, step)
        while True:
            scale = self._loss_scale.scale if self._loss_scale else 1.0
            loss, norm = self._try_step(step, batches, rate, scale)
            result = StepResult(loss, norm, rate)
            if self._loss_scale:
                if result.finite:
                    self._loss_scale.succeeded()
                elif math.isfinite(loss) and self._loss_scale.lower():
                    continue
            return result

    def loss(self, batch: Batch) -> float:
        """Return the mean loss of a batch in nats, without noise and dropout, on one device."""
        return float(self._loss(batch))

    def shared_loss(self, batch: Batch) -> float:
        """Return `loss`, computed by all devices together."""
        devices = self._distribution
        return float(devices.call(self._loss_on_devices, *self._shared(batch)))

    @property
    def lora_alpha(self) -> float | None:
        """The LoRA scale in effect, which `restore` may have changed; None without LoRA."""
        return self._lora.alpha if self._lora else None

    def state(self) -> dict[str, np.ndarray | tf.Variable]:
        """Return what an exact resume needs besides `weights` and the step number, by name.

        The optimizer's slots, the loss scale, and LoRA's factors and base matrices.
        """
        return {
            **self._optimizer.slots,
            **(self._lora.state if self._lora else {}),
            **(self._loss_scale.state if self._loss_scale else {}),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned for the current weights.

        Raises:
            UserError: it was saved with other settings; nothing has been changed.
        """
        own = self.state()
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            found = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is unexpected"
            raise UserError(
                "The saved optimizer state does not fit these settings: it is of another "
                f"optimizer, other trained layers, another precision or LoRA rank ({found}). "
                "Use the settings of the earlier training to restore it."
            )
        for name, value in own.items():
            if tuple(state[name].shape) != tuple(value.shape):
                raise UserError(
                    f"The saved optimizer state has other shapes: {name} is "
                    f"{list(state[name].shape)}, not {list(value.shape)}. Use the settings of the "
                    "earlier training to restore it, including the LoRA rank."
                )
        with self._distribution.variables():
            for name, value in own.items():
                if isinstance(value, tf.Variable):
                    value.assign(tf.cast(state[name], value.dtype))
        if self._loss_scale:
            self._loss_scale.restore(state)

    def _try_step(
        self, step: int, batches: Sequence[Batch], rate: float, scale: float
    ) -> tuple[float, float]:
        """Return loss and gradient norm of a step, which is taken if both are finite."""
        counts = [batch.target_count for batch in batches]
        if not any(counts):
            raise ValueError(f"the batches of step {step} have no targets")
        # Batches are weighted by their number of targets, so that each target weighs the same.
        parts = [
            (
                *self._shared(
                    batch._replace(inputs=self._with_noise(batch.inputs, step, number)),
                    functools.partial(self._dropout_seed, step, number),
                ),
                tf.constant(scale * count / sum(counts), tf.float32),
            )
            for number, (batch, count) in enumerate(zip(batches, counts, strict=True))
            if count
        ]
        scalars = tf.constant(rate, tf.float32), tf.constant(scale, tf.float32)
        call = self._distribution.call
        if len(parts) == 1:
            loss, norm = call(self._train_on, *parts[0], *scalars)
            return float(loss), float(norm)
        with self._distribution.variables():
            if not self._sums:
                self._sums = [tf.Variable(tf.zeros_like(variable)) for variable in self._parameters]
            for total in self._sums:
                total.assign(tf.zeros_like(total))
        losses = [float(call(self._accumulate, *part)) for part in parts]
        loss = float(np.average(losses, weights=[count for count in counts if count]))
        return loss, float(call(self._apply_sums, tf.constant(loss), *scalars))

    def _shared(
        self, batch: Batch, seed: Callable[[int], tf.Tensor | None] = lambda device: None
    ) -> tuple:
        """Return for each device its rows, its dropout seed, and its share of the targets."""
        count = max(batch.target_count, 1)

        def of_device(device: int) -> tuple:
            rows = self._distribution.rows_of(batch, device)
            return rows, seed(device), tf.constant(rows.target_count / count, tf.float32)

        return self._distribution.share(of_device)

    def _with_noise(self, inputs: np.ndarray, step: int, number: int) -> np.ndarray:
        if self._settings.noise == 0:
            return inputs
        random = randomness.generator(self._seed, randomness.NOISE, step, number)
        replaced = random.random(inputs.shape) < self._settings.noise
        others = random.integers(self.hparams.n_vocab, size=inputs.shape, dtype=np.int32)
        return np.where(replaced, others, inputs)

    def _dropout_seed(self, step: int, number: int, device: int) -> tf.Tensor | None:
        if self._settings.dropout == 0:
            return None
        numbers = (step, number, device) if device else (step, number)
        random = randomness.generator(self._seed, randomness.DROPOUT, *numbers)
        return tf.constant(random.integers(2**31, size=2), tf.int64)

    @graph(reduce_retracing=True)
    def _loss(self, batch: Batch) -> tf.Tensor:
        settings = ComputeSettings(self._compute_settings.precision, gradient=False)
        return next_token_loss(self.weights, self.hparams, batch, settings)

    @graph(reduce_retracing=True)
    def _loss_on_devices(self, batch: Batch, seed: None, share: tf.Tensor) -> tf.Tensor:
        settings = ComputeSettings(self._compute_settings.precision, gradient=False)

        def on_device(batch: Batch, share: tf.Tensor) -> tf.Tensor:
            loss = next_token_loss(self.weights, self.hparams, batch, settings)
            return self._distribution.sum([share * loss])[0]

        return self._distribution.run(on_device, batch, share)

    @graph(reduce_retracing=True)
    def _train_on(
        self,
        batch: Batch,
        dropout_seed: tf.Tensor | None,
        share: tf.Tensor,
        weight: tf.Tensor,
        learning_rate: tf.Tensor,
        scale: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Take the step of a single batch; return loss and gradient norm."""

        def on_device(
            batch: Batch, dropout_seed: tf.Tensor | None, share: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            found = self._loss_and_gradients(batch, dropout_seed, share, weight)
            loss, *gradients = self._distribution.sum(found)
            return loss, self._apply(loss, gradients, learning_rate, scale)

        return self._distribution.run(on_device, batch, dropout_seed, share)

    @graph(reduce_retracing=True)
    def _accumulate(
        self,
        batch: Batch,
        dropout_seed: tf.Tensor | None,
        share: tf.Tensor,
        weight: tf.Tensor,
    ) -> tf.Tensor:
        """Add the gradients of one of several batches to the sums; return its loss."""

        def on_device(batch: Batch, dropout_seed: tf.Tensor | None, share: tf.Tensor) -> tf.Tensor:
            loss, *gradients = self._loss_and_gradients(batch, dropout_seed, share, weight)
            for total, gradient in zip(self._sums, gradients, strict=True):
                total.assign_add(gradient)
            return self._distribution.sum([loss])[0]

        return self._distribution.run(on_device, batch, dropout_seed, share)

    @graph
    def _apply_sums(self, loss: tf.Tensor, learning_rate: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Take the step of the accumulated gradients; return the gradient norm."""

        def on_device() -> tf.Tensor:
            gradients = self._distribution.sum([tf.convert_to_tensor(sum_) for sum_ in self._sums])
            return self._apply(loss, gradients, learning_rate, scale)

        return self._distribution.run(on_device)

    def _loss_and_gradients(
        self,
        batch: Batch,
        dropout_seed: tf.Tensor | None,
        share: tf.Tensor,
        weight: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Return a device's part of the loss, and the gradients of `weight` times it.

        Args:
            batch: the rows of the device.
            share: the device's share of the targets of the whole batch.
        """
        trained = list(self._trained.values())
        # Only these are watched, so the backward pass ends at the lowest trained layer.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            loss = share * next_token_loss(
                self.weights, self.hparams, batch, self._compute_settings, dropout_seed
            )
            weighted = weight * loss
        gradients = [
            tf.convert_to_tensor(gradient) for gradient in tape.gradient(weighted, trained)
        ]
        return [loss, *(self._lora.gradients(gradients) if self._lora else gradients)]

    def _apply(
        self,
        loss: tf.Tensor,
        gradients: Sequence[tf.Tensor],
        learning_rate: tf.Tensor,
        scale: tf.Tensor,
    ) -> tf.Tensor:
        """Take the step if it is finite; return the norm of the gradients without loss scale."""
        norm = tf.linalg.global_norm(gradients) / scale
        factor = 1 / scale if self._loss_scale else None
        if self._settings.clip_norm is not None:
            # Pascanu et al. 2013: gradients above the threshold are scaled down to it.
            clip_norm = self._settings.clip_norm
            factor = clip_norm / tf.maximum(norm, clip_norm) / scale

        def take() -> tf.Tensor:
            self._optimizer.apply(gradients, learning_rate, factor)
            if self._lora:
                self._lora.merge()
            return norm

        return tf.cond(tf.math.is_finite(loss) & tf.math.is_finite(norm), take, lambda: norm)
