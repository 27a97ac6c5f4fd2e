"""What a training may be told, checked before anything heavy is loaded."""

from __future__ import annotations

import dataclasses
import math
import re

from gpt2.checks import check_count
from gpt2.errors import UserError
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams

OPTIMIZERS = ("adam", "adamw", "sgd", "adafactor")
SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")


@dataclasses.dataclass(frozen=True)
class TrainerSettings:
    """How a step changes the weights; the defaults are those of 2019."""

    optimizer: str = "adam"  # one of OPTIMIZERS
    learning_rate: float = 0.00002
    lr_schedule: str = "constant"  # one of SCHEDULES, after the warm-up
    warmup_steps: int = 0  # over which the learning rate rises from 0
    schedule_steps: int | None = None  # at which linear and cosine reach 0
    clip_norm: float | None = None  # the longest a gradient may be, over all tensors together
    weight_decay: float | None = None  # None is 0.01 for adamw and 0 for the others
    momentum: float = 0.0  # of sgd
    dropout: float = 0.0  # share of the activations set to 0
    noise: float = 0.0  # share of the input tokens replaced by random ones
    precision: str = "fp32"  # of the matrix products, one of PRECISIONS
    memory_saving_gradients: bool = False  # recompute each block in the backward pass
    only_train_transformer_layers: bool = False  # leaves the embeddings and the last norm
    train_layers: str | None = None  # only these blocks and nothing else, such as "0,5-7"
    lora_rank: int = 0  # of the factors trained in place of the blocks' matrices; 0 for off
    lora_alpha: float = 32.0  # their product counts alpha / rank times; the paper's for GPT-2

    def __post_init__(self) -> None:
        for name, choices in {
            "optimizer": OPTIMIZERS,
            "lr_schedule": SCHEDULES,
            "precision": PRECISIONS,
        }.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"There is no {name} {getattr(self, name)!r}; there are {', '.join(choices)}."
                )
        if not 0 <= self.noise <= 1:
            raise UserError(f"The noise should be a share from 0 to 1, not {self.noise}.")
        for name in ("dropout", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"{name} should be at least 0 and below 1, not {getattr(self, name)}."
                )
        for name in ("learning_rate", "clip_norm", "lora_alpha"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} should be a number above 0, not {value}.")
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise UserError(
                f"weight_decay should be a number of at least 0, not {self.weight_decay}."
            )
        if self.momentum and self.optimizer != "sgd":
            raise UserError(
                f"momentum is for the optimizer sgd, and {self.optimizer} has its own; leave out "
                "one of the two."
            )
        check_count("warmup_steps", self.warmup_steps, least=0)
        check_count("lora_rank", self.lora_rank, least=0)
        self._check_schedule()
        if self.train_layers is not None:
            _parse_layers(self.train_layers)

    def _check_schedule(self) -> None:
        if self.schedule_steps is not None:
            check_count("schedule_steps", self.schedule_steps, least=1)
        if self.lr_schedule == "constant":
            return
        if self.schedule_steps is None:
            raise UserError(
                f"The schedule {self.lr_schedule} needs to know when the training ends; say it "
                "with --max_steps or --epochs."
            )
        if self.warmup_steps >= self.schedule_steps:
            raise UserError(
                f"A warm-up of {self.warmup_steps} steps leaves nothing of a training of "
                f"{self.schedule_steps}; give fewer --warmup_steps."
            )

    @property
    def decay(self) -> float:
        """The weight decay in force."""
        if self.weight_decay is None:
            return 0.01 if self.optimizer == "adamw" else 0.0
        return self.weight_decay

    def trained_tensors(self, hparams: HParams) -> list[str]:
        """Names of the tensors that a training of this model changes, in the names' order.

        Raises:
            UserError: the settings ask for layers, or a rank, that the model does not have.
        """
        names = list(hparams.tensor_shapes())
        if self.only_train_transformer_layers or self.train_layers is not None or self.lora_rank:
            names = [name for name in names if name.startswith("model/h")]
        if self.train_layers is not None:
            layers = _parse_layers(self.train_layers)
            if max(layers) >= hparams.n_layer:
                raise UserError(
                    f"train_layers asks for layer {max(layers)}, but the model's layers are 0 to "
                    f"{hparams.n_layer - 1}."
                )
            names = [name for name in names if int(name.split("/")[1][1:]) in layers]
        if self.lora_rank:
            if self.lora_rank > hparams.n_embd:
                raise UserError(
                    f"lora_rank is {self.lora_rank}, but the model's matrices have no more than "
                    f"rank {hparams.n_embd}; ranks from 4 to 64 are usual."
                )
            names = [name for name in names if name.endswith("/w")]
        return names


def _parse_layers(text: str) -> set[int]:
    """Numbers and ranges: "0,5-7" -> {0, 5, 6, 7}."""
    layers: set[int] = set()
    for part in str(text).split(","):
        found = re.fullmatch(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", part, re.ASCII)
        if not found or int(found[1]) > int(found[2] or found[1]):
            raise UserError(
                "train_layers should be numbers and rising ranges of layers, such as 8-11 or "
                f"0,5-7, not {text!r}."
            )
        layers.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return layers


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How often each thing is done; the defaults are those of 2019."""

    batch_size: int = 1
    accumulate_gradients: int = 1  # batches that make up one step
    save_every: int = 1000  # steps
    sample_every: int = 100  # steps
    sample_length: int | None = None  # tokens; None is the window less one
    sample_num: int = 1
    sampling: SamplingSettings = dataclasses.field(
        default_factory=lambda: SamplingSettings(top_k=40)
    )
    val_every: int = 0  # steps; 0 never validates
    val_batch_size: int = 2
    val_batch_count: int = 40
    held_out: bool = False  # whether validation is on text that is not trained on
    patience: int | None = None  # validations without a new best that end the run
    max_steps: int | None = None  # of the run as a whole; None goes on until stopped
    epochs: float | None = None  # as max_steps, in steps_per_epoch of the sampler
    max_minutes: float | None = None  # of this part of the run

    def __post_init__(self) -> None:
        for name, least in {
            "batch_size": 1,
            "accumulate_gradients": 1,
            "save_every": 1,
            "sample_every": 1,
            "sample_num": 0,
            "val_every": 0,
            "val_batch_size": 1,
            "val_batch_count": 1,
        }.items():
            check_count(name, getattr(self, name), least)
        if self.sample_length is not None:
            check_count("sample_length", self.sample_length, least=0)
        for name in ("max_steps", "patience"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=1)
        for name in ("epochs", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{name} should be above 0, not {value}.")
        if self.patience is not None and not self.val_every:
            raise UserError("Patience counts validations: give --val_every N too.")
        if self.patience is not None and not self.held_out:
            raise UserError(
                "Patience needs text that is not trained on: give --val_split 0.1 or "
                "--val_dataset PATH too."
            )

    def last_step(self, steps_per_epoch: int) -> int | None:
        """The step that ends the run, by `max_steps` or `epochs`; None if neither is given."""
        ends = [self.max_steps] if self.max_steps else []
        ends += [math.ceil(self.epochs * steps_per_epoch)] if self.epochs else []
        return min(ends, default=None)

    def sample_length_for(self, hparams: HParams) -> int:
        """Tokens in each sample of a model."""
        return hparams.n_ctx - 1 if self.sample_length is None else self.sample_length

    def check_model(self, hparams: HParams) -> None:
        """Hold what the samples ask for against the model's vocabulary.

        Raises:
            UserError: it is smaller.
        """
        self.sampling.check_vocabulary(hparams.n_vocab)


def learning_rate(settings: TrainerSettings, step: int) -> float:
    """The learning rate of a step; the first step is 1.

    Over the warm-up it rises in a straight line, and the last step of it has the full rate. Then it
    stays, or falls to 0 in a straight line or along half a wave of the cosine (Loshchilov and
    Hutter 2017, without restarts), which it reaches after the last step of `schedule_steps`: no
    step is spent at rate 0. Steps beyond those have rate 0.
    """
    if step <= settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return settings.learning_rate
    behind = step - 1 - settings.warmup_steps
    share = min(1.0, behind / (settings.schedule_steps - settings.warmup_steps))
    left = 1 - share if settings.lr_schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
    return settings.learning_rate * left
