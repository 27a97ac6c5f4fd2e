"""What a training may be told, checked before anything heavy is loaded."""

from __future__ import annotations

import dataclasses

from gpt2.errors import UserError
from gpt2.generation.sampling import SamplingSettings, check_count
from gpt2.hparams import HParams

OPTIMIZERS = ("adam", "sgd")


@dataclasses.dataclass(frozen=True)
class TrainerSettings:
    """How a step changes the weights; the defaults are those of 2019."""

    optimizer: str = "adam"  # one of OPTIMIZERS
    learning_rate: float = 0.00002
    only_train_transformer_layers: bool = False  # leaves the embeddings and the last norm
    memory_saving_gradients: bool = False  # recompute each block in the backward pass
    noise: float = 0.0  # share of the input tokens replaced by random ones

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UserError(
                f"There is no optimizer {self.optimizer!r}; there are {', '.join(OPTIMIZERS)}."
            )
        if not 0 <= self.noise <= 1:
            raise UserError(f"The noise should be a share from 0 to 1, not {self.noise}.")
        if not 0 < self.learning_rate < float("inf"):
            raise UserError(f"The learning rate should be above 0, not {self.learning_rate}.")


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
    max_steps: int | None = None  # of the run as a whole; None goes on until stopped

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
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps, least=1)

    def sample_length_for(self, hparams: HParams) -> int:
        """Tokens in each sample of a model."""
        return hparams.n_ctx - 1 if self.sample_length is None else self.sample_length

    def check_model(self, hparams: HParams) -> None:
        """Hold what the samples ask for against the model's vocabulary.

        Raises:
            UserError: it is smaller.
        """
        self.sampling.check_vocabulary(hparams.n_vocab)
