"""Settings of a training run, checked before TensorFlow is imported."""

from __future__ import annotations

import dataclasses
import math
import re

from gpt2.checks import LARGEST_COUNT, check_fields, setting
from gpt2.errors import UserError, quoted
from gpt2.generation.completions import LONGEST, MOST_SAMPLES
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams

OPTIMIZERS = ("adam", "adamw", "sgd", "adafactor")
SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")


@dataclasses.dataclass(frozen=True)
class TrainerSettings:
    """How a training step changes the weights; the defaults are those of 2019.

    `schedule_steps` has no flag: the command derives it from `max_steps` or `epochs`.
    """

    optimizer: str = setting("adam", "optimizer", choices=OPTIMIZERS)
    learning_rate: float = setting(0.00002, "learning rate", metavar="LR", above=0)
    lr_schedule: str = setting(
        "constant",
        "learning rate schedule after the warm-up; linear and cosine decay to 0 at the last step",
        choices=SCHEDULES,
    )
    warmup_steps: int = setting(0, "linear learning rate warm-up (steps)", low=0)
    schedule_steps: int | None = setting(None, "step at which the schedule reaches 0", low=1)
    clip_norm: float | None = setting(
        None, "clip gradients to this global norm (default: off)", metavar="NORM", above=0
    )
    weight_decay: float | None = setting(
        None,
        "weight decay, applied to weight matrices (default: 0.01 for adamw, 0 for the others)",
        metavar="RATE",
        low=0,
    )
    momentum: float = setting(0.0, "momentum for SGD, 0 to 1", metavar="SHARE", low=0, below=1)
    dropout: float = setting(0.0, "dropout probability, 0 to 1", metavar="P", low=0, below=1)
    noise: float = setting(
        0.0,
        "probability of replacing an input token by a random one, 0 to 1",
        metavar="P",
        low=0,
        high=1,
    )
    precision: str = setting(
        "fp32",
        "precision of matrix products; auto selects bf16 where the hardware supports it",
        choices=PRECISIONS,
    )
    memory_saving_gradients: bool = setting(
        False,
        "gradient checkpointing: recompute activations in the backward pass (less memory, slower)",
        aliases=("twremat",),
    )
    only_train_transformer_layers: bool = setting(
        False, "freeze the embeddings and the final layer normalization"
    )
    train_layers: str | None = setting(
        None, "train only these layers, for example 8-11 or 0,5-7", metavar="LAYERS"
    )
    lora_rank: int = setting(
        0,
        "LoRA rank: train low-rank updates instead of the full matrices, for example 8; 0 for off",
        metavar="RANK",
        low=0,
    )
    lora_alpha: float = setting(
        32.0, "LoRA scale: updates are multiplied by ALPHA / RANK", metavar="ALPHA", above=0
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: a value is out of range, or two settings contradict each other.
        """
        check_fields(self)
        if self.momentum and self.optimizer != "sgd":
            raise UserError(
                f"momentum is a setting of the optimizer sgd; {self.optimizer} has its own. Omit "
                "momentum, or choose the optimizer sgd."
            )
        if self.train_layers is not None:
            _parse_layers(self.train_layers)
        if self.lr_schedule == "constant":
            return
        if self.schedule_steps is None:
            raise UserError(
                f"lr_schedule {self.lr_schedule} needs the length of the training. Give "
                "max_steps or epochs."
            )
        if self.warmup_steps >= self.schedule_steps:
            raise UserError(
                f"warmup_steps ({self.warmup_steps}) must be below the {self.schedule_steps} steps "
                "of the training. Give fewer warmup_steps."
            )

    @property
    def decay(self) -> float:
        """The weight decay in effect."""
        if self.weight_decay is None:
            return 0.01 if self.optimizer == "adamw" else 0.0
        return self.weight_decay

    def trained_tensors(self, hparams: HParams) -> list[str]:
        """Return the names of the tensors that a training changes, sorted.

        Raises:
            UserError: the settings name a layer, or a rank, that the model does not have.
        """
        names = list(hparams.tensor_shapes())
        if self.only_train_transformer_layers or self.train_layers is not None or self.lora_rank:
            names = [name for name in names if name.startswith("model/h")]
        if self.train_layers is not None:
            layers = _parse_layers(self.train_layers)
            if max(layers) >= hparams.n_layer:
                raise UserError(
                    f"train_layers: there is no layer {max(layers)}. The layers of this model are "
                    f"0 to {hparams.n_layer - 1}."
                )
            names = [name for name in names if int(name.split("/")[1][1:]) in layers]
        if self.lora_rank:
            if self.lora_rank > hparams.n_embd:
                raise UserError(
                    f"lora_rank ({self.lora_rank}) must be at most n_embd ({hparams.n_embd}). "
                    "Common ranks are 4 to 64."
                )
            names = [name for name in names if name.endswith("/w")]
        return names


def learning_rate(settings: TrainerSettings, step: int) -> float:
    """Return the learning rate of a step.

    The rate rises linearly over the warm-up, whose last step has the full rate. Then it is
    constant, or decays to 0 linearly or as a cosine without restarts. It reaches 0 after the last
    step of `schedule_steps`, so that no step is spent at rate 0.

    Args:
        step: from 1; beyond `schedule_steps` the rate of linear and cosine is 0.

    Source: Loshchilov and Hutter 2017, "SGDR", https://arxiv.org/abs/1608.03983, equation 5.

    Example:
        >>> learning_rate(TrainerSettings(learning_rate=0.1, warmup_steps=4), step=2)
        0.05
    """
    if step <= settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    if settings.lr_schedule == "constant" or settings.schedule_steps is None:
        return settings.learning_rate
    decay_steps = settings.schedule_steps - settings.warmup_steps
    share = min(1.0, (step - 1 - settings.warmup_steps) / decay_steps)
    left = 1 - share if settings.lr_schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
    return settings.learning_rate * left


def _parse_layers(text: str) -> set[int]:
    """Return the numbers of layers: "0,5-7" -> {0, 5, 6, 7}."""
    layers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", part, re.ASCII)
        if not found or int(found[1]) > int(found[2] or found[1]):
            raise UserError(
                f"train_layers: {quoted(text)} is not a list of layers. Give numbers and ascending "
                "ranges, such as 8-11 or 0,5-7."
            )
        layers.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return layers


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """When to save, sample, validate and stop; the defaults are those of 2019."""

    batch_size: int = setting(1, "sequences per batch", metavar="SIZE", low=1)
    accumulate_gradients: int = setting(
        1, "gradient accumulation: batches per optimizer step", low=1
    )
    save_every: int = setting(1000, "save a checkpoint every N steps", low=1)
    sample_every: int = setting(100, "generate samples every N steps", low=1)
    sample_length: int | None = setting(
        None,
        "length of each sample (tokens; default: n_ctx - 1, which is 1023 for released models)",
        metavar="TOKENS",
        low=0,
        high=LONGEST,
    )
    sample_num: int = setting(
        1, "number of samples to generate each time", low=0, high=MOST_SAMPLES
    )
    sampling: SamplingSettings = dataclasses.field(
        default_factory=lambda: SamplingSettings(top_k=40)
    )
    val_every: int = setting(0, "compute the validation loss every N steps; 0 for never", low=0)
    val_batch_size: int = setting(2, "sequences per validation batch", metavar="SIZE", low=1)
    val_batch_count: int = setting(40, "number of validation batches", low=1)
    held_out: bool = False  # whether the validation set is text that is not trained on
    patience: int | None = setting(
        None,
        "early stopping: stop when the validation loss has not improved for N validations; the "
        "best checkpoint is in checkpoint/RUN/best",
        low=1,
    )
    max_steps: int | None = setting(
        None, "stop after N steps of the run (default: train until interrupted)", low=1
    )
    epochs: float | None = setting(None, "stop after N epochs of the run", metavar="N", above=0)
    max_minutes: float | None = setting(
        None, "stop N minutes after this call started training", metavar="N", above=0
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: a value is out of range, or early stopping lacks its validation set.
        """
        check_fields(self)
        if self.patience is not None and not self.val_every:
            raise UserError("patience counts validations. Give val_every too.")
        if self.patience is not None and not self.held_out:
            raise UserError(
                "patience needs a validation set that is not trained on. Give val_split, for "
                "example 0.1, or val_dataset."
            )

    @property
    def examples_per_step(self) -> int:
        """The number of examples that a step sees."""
        return self.batch_size * self.accumulate_gradients

    def last_step(
        self, steps_per_epoch: int, done: int = 0, examples: int | None = None
    ) -> int | None:
        """Return the last step of the run by `max_steps` and `epochs`; None without either.

        Args:
            steps_per_epoch: with these settings.
            done: steps of the run so far.
            examples: seen in them, maybe with another batch size; by default with this one.

        Example:
            >>> LoopSettings(batch_size=4, epochs=1).last_step(10, done=10, examples=10)
            18
        """
        ends = [self.max_steps] if self.max_steps else []
        if self.epochs:
            seen = done if examples is None else examples / self.examples_per_step
            left = math.ceil(min(self.epochs * steps_per_epoch - seen, LARGEST_COUNT - done))
            ends.append(done + max(0, left))
        return min(ends, default=None)

    def sample_length_for(self, hparams: HParams) -> int:
        """Return the length of each sample of a model (tokens)."""
        return hparams.n_ctx - 1 if self.sample_length is None else self.sample_length

    def check_model(self, hparams: HParams) -> None:
        """Check the sampling settings against the model's vocabulary.

        Raises:
            UserError: they need a larger vocabulary.
        """
        self.sampling.check_vocabulary(hparams.n_vocab)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Which run is trained, on what, and from where."""

    dataset: str = setting(
        help="dataset: text or the output of encode; a file, folder, or glob pattern",
        metavar="PATH",
    )
    model_name: str | None = setting(
        None, "model to start from (default: 124M; a resumed run has its own)", metavar="MODEL"
    )
    seed: int | None = setting(
        None,
        "random seed (default: a random one; a resumed run has its own)",
        low=0,
        high=math.inf,
    )
    restore_from: str = setting(
        "latest",
        '"latest", "fresh", or a checkpoint: its folder, its prefix, or its .index file',
        metavar="WHERE",
    )
    run_name: str = setting("run1", "name of the run: its folder under checkpoint/", metavar="RUN")
    wandb: str | None = setting(
        None, "also log to this Weights & Biases project (pip install wandb)", metavar="PROJECT"
    )
    distribute: str = setting(
        "auto",
        "share each batch among several devices: the workers of TF_CONFIG or SLURM, all GPUs of "
        "this machine, or off; auto does so where there are several",
        choices=("auto", "off", "mirrored", "multi_worker"),
    )
    val_dataset: str | None = setting(
        None, "validation set, as for --dataset (default: the training set)", metavar="PATH"
    )
    val_split: float | None = setting(
        None,
        "use this fraction of the dataset, at its end, as the validation set",
        metavar="FRACTION",
        above=0,
        below=1,
    )
    models_dir: str | None = None  # see `Workspace.find`

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: a value is invalid.
        """
        check_fields(self)
