"""The loop around the steps: when to save, to sample, to validate and to stop.

It shows nothing itself; it yields what happened, and the caller shows that.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.run import RunFolder
from gpt2.checkpoint.state import ResumeState
from gpt2.data.samplers import DocumentSampler, StreamSampler
from gpt2.errors import UserError
from gpt2.generation.completions import GenerationSettings, generate_completions
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from gpt2.tokenizer import Tokenizer
from gpt2.training import events
from gpt2.training.loggers import Logger
from gpt2.training.memory import enough_memory
from gpt2.training.progress import TrainingProgress
from gpt2.training.settings import LoopSettings
from gpt2.training.trainer import Trainer

BEGINNING = 12  # tokens of an example that a message quotes
RETRY = 180  # seconds after which a save that failed is tried again, whatever step it is


class Loop:
    """One call's part of a run."""

    def __init__(
        self,
        trainer: Trainer,
        sampler: StreamSampler | DocumentSampler,
        validation: DocumentSampler | None,
        tokenizer: Tokenizer,
        run: RunFolder,
        samples: Path,
        settings: LoopSettings,
        progress: TrainingProgress,
        *,
        done: int = 0,
        loggers: Sequence[Logger] = (),
        encoding: str = "utf-8",
    ):
        """Prepare.

        Args:
            validation: draws the validation batches; may be None if `val_every` is 0.
            run: the run's folder; adopted, if `settings.held_out`.
            samples: the folder for the files of samples.
            progress: of the run so far; with its seed everything random is drawn.
            done: steps of this run that came before; the first one is `done + 1`.
            loggers: are told all numbers and samples, and closed at the end.
            encoding: of the files of samples.
        """
        self._trainer = trainer
        self._sampler = sampler
        self._validation = validation
        self._tokenizer = tokenizer
        self._run = run
        self._samples = samples
        self._settings = settings
        self._progress = progress
        self._watchers = loggers
        self._encoding = encoding
        self._engine = TensorFlowEngine(trainer.weights, trainer.hparams)
        self._text_settings = GenerationSettings(
            length=settings.sample_length_for(trainer.hparams),
            sampling=settings.sampling,
            seed=progress.seed,
            ignore_endoftext=True,
        )
        self._last = settings.last_step(
            sampler.steps_per_epoch(settings.batch_size * settings.accumulate_gradients)
        )
        self._step = self._saved = done
        self._failed: float | None = None  # when the last save did
        self._silent: set[int] = set()  # the loggers whose trouble has been told
        self._parted = False  # whether it has been told that the losses part

    def train(
        self,
        stop: Callable[[], bool] = lambda: False,
        bar: Callable[[Iterable], Iterable] = lambda batches: batches,
    ) -> Iterator[events.Event]:
        """Train until the end that the settings tell or until asked to stop; save at the end.

        Args:
            stop: asked after each step, validation batch and sampled token.
            bar: put around the validation batches, for example to show a bar.

        Raises:
            UserError: the loss is no longer a number, memory has run out, or the last step cannot
                be saved. What was saved before stays as it was.
        """
        self._stop, self._bar = stop, bar
        settings = self._settings
        settings.check_model(self._trainer.hparams)
        files.make_folder(self._run.path)
        self._began = time.monotonic()
        try:
            with enough_memory():
                if self._settings.held_out and self._settings.val_every:
                    yield from self._look_for_another_best()
                if self._validation_is_due():  # also if a run was cut off before it
                    yield from self._validate()
                while not self._stop() and self._end() is None:
                    yield from self._train_step()
                    if self._validation_is_due() and not self._stop():
                        yield from self._validate()  # before saving, so that it is saved with it
                    if self._save_is_due():
                        yield from self._save()
                    if self._step % settings.sample_every == 0 and not self._stop():
                        yield from self._sample()
                if self._stop():
                    yield events.Interrupted()
                if self._step > self._saved:
                    yield from self._save(last=True)
                if not self._stop():
                    yield events.Finished(self._step, self._end())
        finally:
            for logger in self._watchers:
                logger.close()

    def _end(self) -> str | None:
        """Why the run has come to its end; None if it has not."""
        settings, progress = self._settings, self._progress
        if self._last is not None and self._step >= self._last:
            return f"The run has done its {self._step} steps"
        if settings.patience and progress.misses >= settings.patience:
            return (
                f"The validation loss has not fallen for {progress.misses} validations; the best "
                f"is that of step {progress.best_step}"
            )
        minutes = (time.monotonic() - self._began) / 60
        if settings.max_minutes and minutes >= settings.max_minutes:
            return f"{settings.max_minutes:g} minutes are over, after step {self._step}"
        return None

    # --- the step ---

    def _train_step(self) -> Iterator[events.Event]:
        began = time.monotonic()
        batches = self._batches(self._step + 1)
        result = self._trainer.step(self._step + 1, batches)
        if not result.finite:
            broken = not math.isfinite(result.loss)
            what, value = ("loss", result.loss) if broken else ("gradient", result.gradient_norm)
            raise self._diverged(self._step + 1, what, value)
        self._step += 1
        self._progress.add_loss(result.loss)
        now = time.monotonic()
        tokens = sum(int((batch[:, 1:] >= 0).sum()) for batch in batches)
        speed = tokens / max(now - began, 1e-9)
        average = self._progress.average
        yield events.StepFinished(self._step, now - self._began, result.loss, average, speed)
        yield from self._tell(
            loss=result.loss,
            average=average,
            learning_rate=result.learning_rate,
            gradient_norm=result.gradient_norm,
            tokens_per_second=speed,
        )

    def _batch_numbers(self, step: int) -> range:
        each = self._settings.accumulate_gradients
        return range((step - 1) * each, step * each)

    def _batches(self, step: int) -> list[np.ndarray]:
        size = self._settings.batch_size
        return [self._batch(self._sampler, number, size) for number in self._batch_numbers(step)]

    def _batch(
        self, sampler: StreamSampler | DocumentSampler, number: int, size: int
    ) -> np.ndarray:
        batch = sampler.batch(number, size)
        # Shards are not looked through when they are opened.
        token, last = int(batch.max()), self._trainer.hparams.n_vocab - 1
        if token > last:
            place = sampler.describe(number, size)[int(batch.max(axis=1).argmax())]
            raise UserError(
                f"The dataset is damaged: there is the token {token} in {place}, but the "
                f"vocabulary ends at {last}; encode the text again."
            )
        return batch

    def _diverged(self, step: int, what: str, value: float) -> UserError:
        kept = (
            f"the last good checkpoint, of step {self._saved}, is kept: go on from it"
            if self._saved
            else "no checkpoint was written: begin again"
        )
        numbers, size = self._batch_numbers(step), self._settings.batch_size
        where = batch_in_words(self._trainer.loss, self._sampler, numbers, size, self._tokenizer)
        return UserError(
            f"The {what} of step {step} is {value} ({where}), so training has stopped; {kept} with "
            "a lower --learning_rate."
        )

    # --- what is kept ---

    def _save_is_due(self) -> bool:
        waited = self._failed is not None and time.monotonic() - self._failed >= RETRY
        return self._step % self._settings.save_every == 0 or waited

    def _save(self, last: bool = False) -> Iterator[events.Event]:
        # The loss of this step was that of the weights before it; these may be broken already.
        first = self._batch_numbers(self._step + 1)[0]
        loss = self._trainer.loss(self._sampler.batch(first, self._settings.batch_size)[:1])
        if not math.isfinite(loss):
            raise self._diverged(self._step + 1, "loss", loss)
        yield events.Saving(self._run.prefix(self._step))
        weights, hparams = self._trainer.weights, self._trainer.hparams
        state = ResumeState(self._progress.facts(), self._trainer.state())
        try:
            self._run.save(self._step, weights, hparams, state)
        except UserError as error:
            if last:
                self._run.save(self._step, weights, hparams)
                yield events.Warned(
                    f"{error} The weights are saved, but not the optimizer's state."
                )
            else:
                self._failed = time.monotonic()
                kept = f"the checkpoint of step {self._saved} is kept" if self._saved else ""
                kept = kept or "there is no checkpoint yet"
                yield events.Warned(f"{error} Training goes on, and {kept}; saving is tried again.")
                return
        self._saved, self._failed = self._step, None

    def _tell(self, **numbers: float) -> Iterator[events.Warned]:
        yield from self._each(lambda logger: logger.log_metrics(self._step, **numbers))

    def _each(self, tell: Callable[[Logger], None]) -> Iterator[events.Warned]:
        """Tell each logger; training goes on without one that has trouble, which is said once."""
        for number, logger in enumerate(self._watchers):
            try:
                tell(logger)
            except UserError as error:
                if number not in self._silent:
                    yield events.Warned(f"{error} Training goes on without it.")
                self._silent.add(number)

    # --- validation ---

    def _validation_is_due(self) -> bool:
        every = self._settings.val_every
        return every > 0 and self._step % every == 0 and self._progress.validated != self._step

    def _look_for_another_best(self) -> Iterator[events.Warned]:
        """Where the validation batches are others than before, whose losses do not compare."""
        checksum = 0
        for number in range(self._settings.val_batch_count):
            batch = self._validation.batch(number, self._settings.val_batch_size)
            checksum = zlib.crc32(batch.tobytes(), checksum)
        if self._progress.validate_on(checksum):
            yield events.Warned(
                "Validation is on other text than before, so the best checkpoint is looked for "
                "anew from here."
            )

    def _validate(self) -> Iterator[events.Event]:
        yield events.Validating()
        losses = []
        for number in self._bar(range(self._settings.val_batch_count)):
            if self._stop():
                return
            batch = self._batch(self._validation, number, self._settings.val_batch_size)
            losses.append(self._trainer.loss(batch))
        loss = sum(losses) / len(losses)
        yield events.Validated(self._step, time.monotonic() - self._began, loss)
        yield from self._tell(val_loss=loss, val_perplexity=math.exp(min(loss, 700)))
        if self._settings.held_out and self._step:
            yield from self._compare(loss)
        self._progress.validated = self._step

    def _compare(self, loss: float) -> Iterator[events.Event]:
        """Keep the best; say when training has begun to learn its text by heart."""
        progress, best = self._progress, self._run.best
        if loss < progress.best_loss:
            try:
                best.adopt(ModelFolder(self._run.path))
                yield events.Saving(best.prefix(self._step))
                best.save(self._step, self._trainer.weights, self._trainer.hparams)
            except UserError as error:
                yield events.Warned(f"{error} Training goes on; the best so far is kept.")
                return
            progress.set_best(self._step, loss)
            self._parted = False
            return
        progress.misses += 1
        if progress.parts(loss) and not self._parted:
            self._parted = True
            yield events.Warned(
                f"The validation loss was lower at step {progress.best_step} "
                f"({progress.best_loss:.2f}), while the training loss still falls: the text is "
                f"being learnt by heart. The best checkpoint is kept in {best.path}."
            )

    # --- samples ---

    def _sample(self) -> Iterator[events.Event]:
        yield events.Generating()
        number = self._settings.sample_num
        prompt = [self._sampler.token(self._step)]
        first = self._step * number
        texts: dict[int, str] = {}
        for text in generate_completions(
            self._engine,
            self._trainer.hparams,
            self._tokenizer,
            ((first + sample, prompt) for sample in range(number)),
            self._text_settings,
            self._settings.batch_size,
        ):
            if self._stop():
                return
            if text.finish_reason:
                texts[text.number - first] = self._tokenizer.decode([*prompt, *text.tokens])
        path = self._samples / f"samples-{self._step}"
        shown = "\n".join(
            f"======== SAMPLE {sample} ========\n{text}\n"
            for sample, text in enumerate((texts[n] for n in sorted(texts)), start=1)
        )
        yield events.Sampled(shown, path)
        try:
            files.make_folder(self._samples)
            with files.atomic_write(path, "w", encoding=self._encoding, errors="replace") as file:
                file.write(shown)
        except UserError as error:
            yield events.Warned(f"{error} Training goes on.")
        yield from self._each(lambda logger: logger.log_samples(self._step, shown))


def batch_in_words(
    loss: Callable[[np.ndarray], float],
    sampler: StreamSampler | DocumentSampler,
    numbers: Iterable[int],
    size: int,
    tokenizer: Tokenizer,
) -> str:
    """Which of a step's examples broke it: its batch, its place in the data and how it begins.

    Args:
        loss: of a batch, with the weights as they were before the step.
        numbers: of the step's batches, each of this size.
    """
    examples = [
        (number, row, example[np.newaxis])
        for number in numbers
        for row, example in enumerate(sampler.batch(number, size))
    ]
    # Where none is to blame alone, the first one stands for all.
    broken = (example for example in examples if not math.isfinite(loss(example[2])))
    number, row, example = next(broken, examples[0])
    tokens = [int(token) for token in example[0, :BEGINNING] if token >= 0]
    place = sampler.describe(number, size)[row]
    return f"batch {number}, {place}, the text {tokenizer.decode(tokens)!r}..."
