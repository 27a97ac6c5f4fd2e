"""The training loop: steps, and when to save, sample, validate and stop.

It prints nothing: it yields events (`gpt2.training.events`), and the caller shows them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from gpt2 import files
from gpt2.checkpoint.run import RunFolder
from gpt2.checkpoint.state import ResumeState
from gpt2.data.samplers import Batch, DocumentSampler, StreamSampler
from gpt2.errors import UserError
from gpt2.generation.completions import GenerationSettings, generate_completions
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from gpt2.tokenizer import Tokenizer
from gpt2.training import events
from gpt2.training.best import BestCheckpoint, BestValidation
from gpt2.training.distribution import Distribution
from gpt2.training.loggers import Logger
from gpt2.training.memory import enough_memory
from gpt2.training.progress import TrainingProgress
from gpt2.training.settings import LoopSettings
from gpt2.training.trainer import Trainer

QUOTED_TOKENS = 12  # tokens of an example that an error message quotes
RETRY = 180  # seconds after a failed save before it is retried, at any step


class Loop:
    """The part of a run that one call trains."""

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
        distribution: Distribution | None = None,
    ):
        """Prepare.

        Args:
            validation: sampler of the validation batches; may be None if `val_every` is 0.
            run: the run's folder; `RunFolder.adopt` must have been called if `settings.held_out`.
            samples: folder for the files of samples.
            progress: of the run so far; its seed is the seed of everything random. Steps of
                unknown `examples` count as steps of today's batch size.
            done: steps of this run before this call; the first step is `done + 1`.
            loggers: receive metrics and samples, and are closed at the end.
            encoding: of the files of samples.
            distribution: of the trainer. Only the chief writes files; all processes have to make
                the same decisions, so they exchange what only one of them knows.
        """
        self._distribution = distribution or Distribution()
        self._trainer = trainer
        self._sampler = sampler
        self._validation = validation
        self._tokenizer = tokenizer
        self._run = run
        self._samples = samples
        self._settings = settings
        self._progress = progress
        self._loggers = loggers
        self._encoding = encoding
        self._engine = TensorFlowEngine(trainer.weights, trainer.hparams)
        self._generation_settings = GenerationSettings(
            length=settings.sample_length_for(trainer.hparams),
            sampling=settings.sampling,
            seed=progress.seed,
            ignore_endoftext=True,
        )
        if progress.examples is None:
            progress.examples = done * settings.examples_per_step
            progress.tokens = None if done else 0
        epoch = sampler.steps_per_epoch(settings.examples_per_step)
        self._last_step = settings.last_step(epoch, done, progress.examples)
        self._step = self._saved = done
        self._save_failed: float | None = None  # time of the last save, if it failed
        self._failed_loggers: set[int] = set()  # those whose error has been reported
        self._overfitting = False  # whether overfitting since the best step has been reported
        self._best = BestCheckpoint(run)
        self._known_best: BestValidation | None = None  # what is in `best/`, if that is known

    def train(
        self,
        stop: Callable[[], bool] = lambda: False,
        bar: Callable[[Iterable], Iterable] = lambda batches: batches,
    ) -> Iterator[events.Event]:
        """Train until the settings or `stop` end it, then save.

        Args:
            stop: called after each step, validation batch and sampled token; True ends the loop.
            bar: wraps the validation batches, for example in a progress bar.

        Raises:
            UserError: training diverged, memory ran out, or the last step cannot be saved.
                Checkpoints saved before are kept.
        """
        self._stop, self._bar = stop, bar
        self._stopping = False  # whether `stop` was true in any process when they last compared
        settings = self._settings
        settings.check_model(self._trainer.hparams)
        files.make_folder(self._run.path)
        self._started = time.monotonic()
        try:
            with enough_memory():
                if settings.held_out and settings.val_every:
                    yield from self._check_validation_set()
                # Also if the run was interrupted before them.
                if self._validation_is_due():
                    yield from self._validate()
                if self._sample_is_due() and not self._sample_path.exists() and not stop():
                    yield from self._sample()
                while not self._stops() and (reason := self._end_reason()) is None:
                    yield from self._train_step()
                    if self._validation_is_due() and not self._stops():
                        yield from self._validate()  # before saving, so that its result is saved
                    if self._save_is_due():
                        yield from self._save()
                    if self._sample_is_due() and not stop():
                        yield from self._sample()
                if self._stopping:
                    yield events.Interrupted()
                if self._step > self._saved:
                    yield from self._save(last=True)
                if not self._stopping:
                    yield events.Finished(self._step, reason)
        finally:
            for logger in self._loggers:
                logger.close()

    def _stops(self) -> bool:
        """Return whether any process has been asked to stop; all call it at the same point."""
        self._stopping = self._stopping or self._distribution.any(self._stop())
        return self._stopping

    def _end_reason(self) -> str | None:
        """Return why the run ends here, a sentence, or None if it continues for all processes."""
        reason = self._own_end_reason()
        ended = self._distribution.any(reason is not None)
        return (reason or "Another worker has ended the training.") if ended else None

    def _own_end_reason(self) -> str | None:
        settings, progress = self._settings, self._progress
        if self._last_step is not None and self._step >= self._last_step:
            return f"Finished {self._step:,} steps."
        if settings.patience and progress.misses >= settings.patience:
            return (
                f"Early stopping: validation loss has not improved for {progress.misses} "
                f"validations; the best was {progress.best_loss:.2f} at step {progress.best_step}."
            )
        minutes = (time.monotonic() - self._started) / 60
        if settings.max_minutes and minutes >= settings.max_minutes:
            return f"Stopped after {settings.max_minutes:g} minutes, at step {self._step}."
        return None

    # --- the step ---

    def _train_step(self) -> Iterator[events.Event]:
        """Train on the next batches."""
        step, started = self._step + 1, time.monotonic()
        size = self._settings.batch_size
        batches = [self._batch(self._sampler, first, size) for first in self._firsts()]
        result = self._trainer.step(step, batches)
        if not math.isfinite(result.loss):
            raise self._diverged(step, "loss", result.loss)
        if not result.finite:
            raise self._diverged(step, "gradient norm", result.gradient_norm)
        self._step = step
        tokens = sum(batch.target_count for batch in batches)
        self._progress.add_loss(result.loss, self._settings.examples_per_step, tokens)
        average = self._progress.average
        now = time.monotonic()
        speed = tokens / max(now - started, 1e-9)
        yield events.StepFinished(step, now - self._started, result.loss, average, speed)
        yield from self._log_metrics(
            loss=result.loss,
            average=average,
            learning_rate=result.learning_rate,
            gradient_norm=result.gradient_norm,
            tokens_per_second=speed,
        )

    def _firsts(self) -> range:
        """Return the first example of each batch of the next step, from 0.

        With another batch size than before, training continues after the examples seen so far.
        """
        seen, settings = self._progress.examples, self._settings
        return range(seen, seen + settings.examples_per_step, settings.batch_size)

    def _batch(self, sampler: StreamSampler | DocumentSampler, first: int, size: int) -> Batch:
        """Return a batch after checking it against the vocabulary.

        Shards are not checked when they are opened.
        """
        batch, last = batch_from(sampler, first, size), self._trainer.hparams.n_vocab - 1
        if batch.largest_token > last:
            places = zip(batch.examples(), places_from(sampler, first, size), strict=True)
            token, place = max((example.largest_token, place) for example, place in places)
            raise UserError(
                f"Corrupted dataset: token {token} in {place} is outside the vocabulary "
                f"(0 to {last}). Encode the text again."
            )
        return batch

    def _diverged(self, step: int, metric: str, value: float) -> UserError:
        """Return the error for a loss or a gradient norm that is not finite."""
        kept = (
            f"The last good checkpoint, of step {self._saved}, is kept: resume from it"
            if self._saved
            else "No checkpoint has been saved: start again"
        )
        firsts, size = self._firsts(), self._settings.batch_size
        where = find_bad_example(self._trainer.loss, self._sampler, firsts, size, self._tokenizer)
        return UserError(
            f"Training diverged: {metric} of step {step} is {value} ({where}). {kept} with a lower "
            "--learning_rate."
        )

    # --- checkpoints ---

    def _save_is_due(self) -> bool:
        failed = self._save_failed
        retry = failed is not None and time.monotonic() - failed >= RETRY
        return self._step % self._settings.save_every == 0 or retry

    def _save(self, last: bool = False) -> Iterator[events.Event]:
        if not self._distribution.is_chief:
            self._saved = self._step
            return
        # The step's loss was that of the weights before its update, which may have broken them.
        first, size = self._firsts()[0], self._settings.batch_size
        loss = self._trainer.loss(batch_from(self._sampler, first, size).rows(slice(1)))
        if not math.isfinite(loss):
            raise self._diverged(self._step + 1, "loss", loss)
        yield events.Saving(self._run.prefix(self._step))
        weights, hparams = self._trainer.weights, self._trainer.hparams
        state = ResumeState(self._progress.facts(), self._trainer.state())
        try:
            self._run.save(self._step, weights, hparams, state)
        except UserError as error:
            if not last:
                self._save_failed = time.monotonic()
                kept = (
                    f"the checkpoint of step {self._saved} is kept"
                    if self._saved
                    else "there is no checkpoint yet"
                )
                yield events.Warned(f"{error} Training continues; {kept}. Saving will be retried.")
                return
            self._run.save(self._step, weights, hparams)  # which needs less space
            yield events.Warned(f"{error} The weights are saved, but not the optimizer state.")
        self._saved, self._save_failed = self._step, None

    # --- loggers ---

    def _log_metrics(self, **values: float) -> Iterator[events.Warned]:
        yield from self._log(lambda logger: logger.log_metrics(self._step, **values))

    def _log(self, call: Callable[[Logger], None]) -> Iterator[events.Warned]:
        """Call each logger; report the first error of each, and continue without it."""
        for number, logger in enumerate(self._loggers):
            try:
                call(logger)
            except UserError as error:
                if number not in self._failed_loggers:
                    yield events.Warned(f"{error} Training continues without it.")
                self._failed_loggers.add(number)

    # --- validation ---

    def _validation_is_due(self) -> bool:
        every = self._settings.val_every
        return every > 0 and self._step % every == 0 and self._progress.validated != self._step

    def _check_validation_set(self) -> Iterator[events.Warned]:
        """Drop the best step of another validation set, whose losses are not comparable."""
        fingerprint = 0
        for first, size in self._validation_batches():
            fingerprint = batch_from(self._validation, first, size).fingerprint(fingerprint)
        self._known_best = self._best.read(self._progress)
        if self._progress.validate_on(fingerprint):
            yield events.Warned(
                "The validation set has changed (or its loss is from an older version), and such "
                "losses are not comparable: "
                f"the search for the best checkpoint restarts at step {self._step}."
            )

    def _validation_batches(self) -> list[tuple[int, int]]:
        """Return first example and size of each batch: no example of the set comes twice."""
        size = self._settings.val_batch_size
        count = min(size * self._settings.val_batch_count, self._validation.steps_per_epoch(1))
        return [(first, min(size, count - first)) for first in range(0, count, size)]

    def _validate(self) -> Iterator[events.Event]:
        """Compute the validation loss, the mean over all targets; keep the best checkpoint."""
        yield events.Validating()
        total, targets = 0.0, 0
        for first, size in self._bar(self._validation_batches()):
            if self._stops():
                return
            batch = self._batch(self._validation, first, size)
            count = batch.target_count
            total += self._trainer.shared_loss(batch) * count
            targets += count
        loss = total / targets
        yield events.Validated(self._step, time.monotonic() - self._started, loss)
        yield from self._log_metrics(val_loss=loss, val_perplexity=math.exp(min(loss, 700)))
        if self._settings.held_out and self._step:
            if loss < self._progress.best_loss:
                yield from self._save_best(loss)
            else:
                yield from self._count_miss(loss)
        self._progress.validated = self._step
        self._progress.validated_recent = self._progress.recent

    def _save_best(self, loss: float) -> Iterator[events.Event]:
        """Save a new best of this training, unless `best/` has a lower loss on the same set.

        It may, after a resume from an earlier checkpoint than its own.
        """
        progress, known = self._progress, self._known_best
        new = BestValidation(self._step, loss, progress.validated_on, progress.recent)
        comparable = known is not None and known.validation_set == new.validation_set
        again = known is not None and (known.loss, known.step) == (loss, self._step)
        if not comparable or loss < known.loss or again:
            try:
                if self._distribution.is_chief:
                    yield events.Saving(self._run.best.prefix(self._step))
                    self._best.save(new, self._trainer, known)
            except UserError as error:
                yield events.Warned(
                    f"{error} Training continues; the best checkpoint so far is kept."
                )
                return
            self._known_best = new
        progress.set_best(self._step, loss)
        self._overfitting = False

    def _count_miss(self, loss: float) -> Iterator[events.Warned]:
        """Count a validation without a new best; report overfitting once per best step."""
        progress = self._progress
        progress.misses += 1
        if progress.overfits(loss) and not self._overfitting:
            self._overfitting = True
            yield events.Warned(
                f"Overfitting: validation loss was lowest at step {progress.best_step} "
                f"({progress.best_loss:.2f}); training loss is still falling. Best checkpoint: "
                f"{self._run.best.path}"
            )

    # --- samples ---

    def _sample_is_due(self) -> bool:
        return self._step > 0 and self._step % self._settings.sample_every == 0

    @property
    def _sample_path(self) -> Path:
        return self._samples / f"samples-{self._step}"

    def _sample(self) -> Iterator[events.Event]:
        """Generate samples from a token of the dataset, and write them to a file."""
        if not self._distribution.is_chief:
            return
        yield events.Generating()
        count, prompt = self._settings.sample_num, [self._sampler.token(self._step)]
        first = self._step * count
        texts: dict[int, str] = {}
        for completion in generate_completions(
            self._engine,
            self._trainer.hparams,
            self._tokenizer,
            ((first + sample, prompt) for sample in range(count)),
            self._generation_settings,
            self._settings.batch_size,
        ):
            if self._stop():
                return
            if completion.finish_reason:
                tokens = [*prompt, *completion.tokens]
                texts[completion.number - first] = self._tokenizer.decode(tokens)
        path = self._sample_path
        text = "\n".join(
            f"======== SAMPLE {sample} ========\n{texts[index]}\n"
            for sample, index in enumerate(sorted(texts), start=1)
        )
        yield events.Sampled(text, path)
        try:
            files.make_folder(self._samples)
            with files.atomic_write(path, "w", encoding=self._encoding, errors="replace") as file:
                file.write(text)
        except UserError as error:
            yield events.Warned(f"{error} Training continues.")
        yield from self._log(lambda logger: logger.log_samples(self._step, text))


def batch_from(sampler: StreamSampler | DocumentSampler, first: int, size: int) -> Batch:
    """Return the `size` rows from number `first` on.

    They are the batches of this size, unless `first` lies inside one.
    """
    if first % size == 0:
        return sampler.batch(first // size, size)
    return Batch.joined([sampler.batch(number, 1) for number in range(first, first + size)])


def places_from(sampler: StreamSampler | DocumentSampler, first: int, size: int) -> list[str]:
    """Return where each example of `batch_from` is from, in words."""
    if first % size == 0:
        return sampler.describe(first // size, size)
    rows = range(first, first + size)
    return [place for row in rows for place in sampler.describe(row, 1)]


def find_bad_example(
    loss: Callable[[Batch], float],
    sampler: StreamSampler | DocumentSampler,
    firsts: Iterable[int],
    size: int,
    tokenizer: Tokenizer,
) -> str:
    """Return the batch, place and first words of the example whose loss is not finite.

    If each example by itself has a finite loss, the first one is returned.

    Args:
        loss: returns the loss of a batch with the weights before the step.
        firsts: the first example of each batch of the step.
        size: examples in a batch.
    """
    examples = [
        (first, example, place)
        for first in firsts
        for example, place in zip(
            batch_from(sampler, first, size).examples(),
            places_from(sampler, first, size),
            strict=True,
        )
    ]
    bad = (found for found in examples if not math.isfinite(loss(found[1])))
    first, example, place = next(bad, examples[0])
    tokens = [int(token) for token in example.inputs[0, :QUOTED_TOKENS] if token >= 0]
    return f"batch {first // size}, {place}, text {tokenizer.decode(tokens)!r}..."
