"""The loop around the steps: when to save, to sample, to validate and to stop.

It shows nothing itself; it yields what happened, and the caller shows that.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gpt2 import files
from gpt2.checkpoint.run import RunFolder
from gpt2.data.sampler import Sampler
from gpt2.errors import UserError
from gpt2.generation.tensorflow import TensorFlowEngine
from gpt2.generation.writing import TextSettings, write
from gpt2.tokenizer import Tokenizer
from gpt2.training.events import EventFile
from gpt2.training.settings import LoopSettings
from gpt2.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Step:
    """A step has been done."""

    step: int
    seconds: float  # since the loop began
    loss: float  # nats
    average: float  # of the losses so far, each step weighing 0.99 of the next


@dataclasses.dataclass(frozen=True)
class Validating:
    """The loss on the validation batches is about to be computed."""


@dataclasses.dataclass(frozen=True)
class Validated:
    """The loss on the validation batches, in nats."""

    step: int
    seconds: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Saving:
    """A checkpoint is about to be written under this prefix."""

    prefix: Path


@dataclasses.dataclass(frozen=True)
class Generating:
    """Samples are about to be generated."""


@dataclasses.dataclass(frozen=True)
class Sampled:
    """Samples have been generated and written to a file."""

    text: str  # with a banner above each
    path: Path


@dataclasses.dataclass(frozen=True)
class Interrupted:
    """The loop was asked to stop; it saves and ends."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """The run has done as many steps as it was to do."""

    step: int


Event = Step | Validating | Validated | Saving | Generating | Sampled | Interrupted | Finished


def train(
    trainer: Trainer,
    sampler: Sampler,
    validation: Sampler | None,
    tokenizer: Tokenizer,
    run: RunFolder,
    samples: Path,
    settings: LoopSettings,
    seed: int,
    done: int = 0,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Iterable], Iterable] = lambda batches: batches,
    encoding: str = "utf-8",
) -> Iterator[Event]:
    """Train until `max_steps` or until asked to stop, saving at the end in either case.

    Args:
        validation: draws the validation batches; may be None if `val_every` is 0.
        samples: the folder for the files of samples.
        done: steps of this run that came before; the first one is `done + 1`.
        stop: asked after each step, validation batch and sampled token.
        progress: put around the validation batches, for example to show a bar.
        encoding: of the files of samples.

    Raises:
        UserError: the loss is no longer a number, or something cannot be written. What was saved
            before stays as it was.
    """
    hparams = trainer.hparams
    settings.check_model(hparams)
    text_settings = TextSettings(
        length=settings.sample_length_for(hparams),
        sampling=settings.sampling,
        seed=seed,
        ignore_endoftext=True,
    )
    files.make_folder(run.path)
    engine = TensorFlowEngine(trainer.weights, hparams)
    curves = EventFile(run.path)
    began = time.monotonic()
    saved = done
    total = weight = 0.0

    def validate(step: int) -> Iterator[Event]:
        yield Validating()
        losses = []
        for number in progress(range(settings.val_batch_count)):
            if stop():
                return
            losses.append(trainer.loss(validation.batch(number, settings.val_batch_size)))
        loss = sum(losses) / len(losses)
        curves.scalars(step, val_loss=loss)
        yield Validated(step, time.monotonic() - began, loss)

    def sample(step: int) -> Iterator[Event]:
        yield Generating()
        prompt = [sampler.token(step)]
        first = step * settings.sample_num
        texts: dict[int, str] = {}
        for text in write(
            engine,
            hparams,
            tokenizer,
            ((first + number, prompt) for number in range(settings.sample_num)),
            text_settings,
            settings.batch_size,
        ):
            if stop():
                return
            if text.finish_reason:
                texts[text.number - first] = tokenizer.decode([*prompt, *text.tokens])
        files.make_folder(samples)
        path = samples / f"samples-{step}"
        text = "\n".join(
            f"======== SAMPLE {number} ========\n{text}\n"
            for number, text in enumerate((texts[n] for n in sorted(texts)), start=1)
        )
        with files.written(path, "w", encoding=encoding, errors="replace") as file:
            file.write(text)
        yield Sampled(text, path)

    def diverged(step: int, value: float, what: str = "loss") -> UserError:
        kept = (
            f"the last good checkpoint, of step {saved}, is kept: go on from it"
            if saved
            else "no checkpoint was written: begin again"
        )
        return UserError(
            f"The {what} of step {step} is {value}, so training has stopped; {kept} with a lower "
            "--learning_rate."
        )

    def save(step: int) -> Iterator[Event]:
        nonlocal saved
        # The loss of this step was that of the weights before it; these may be broken already.
        loss = trainer.loss(sampler.batch(step * settings.accumulate_gradients, 1))
        if not math.isfinite(loss):
            raise diverged(step + 1, loss)
        yield Saving(run.prefix(step))
        run.save(step, trainer.weights, hparams)
        saved = step

    try:
        step = done
        if settings.val_every and step == 0:
            yield from validate(step)
        while not stop() and (settings.max_steps is None or step < settings.max_steps):
            step += 1
            first = (step - 1) * settings.accumulate_gradients
            result = trainer.step(
                step,
                [
                    sampler.batch(first + number, settings.batch_size)
                    for number in range(settings.accumulate_gradients)
                ],
            )
            loss = result.loss
            if not math.isfinite(loss):
                raise diverged(step, loss)
            if not result.finite:
                raise diverged(step, result.gradient_norm, "gradient")
            total, weight = 0.99 * total + loss, 0.99 * weight + 1
            curves.scalars(step, loss=loss, learning_rate=result.learning_rate)
            yield Step(step, time.monotonic() - began, loss, total / weight)
            if step % settings.save_every == 0:
                yield from save(step)
            if step % settings.sample_every == 0 and not stop():
                yield from sample(step)
            if settings.val_every and step % settings.val_every == 0 and not stop():
                yield from validate(step)
        if stop():
            yield Interrupted()
        if step > saved:
            yield from save(step)
        if not stop():
            yield Finished(step)
    finally:
        curves.close()
