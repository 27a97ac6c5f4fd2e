"""The output of `train`: the lines of 2019, which people's scripts parse, and a status line."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

from gpt2.commands import streams
from gpt2.commands.terminal import notice, shown
from gpt2.data.samplers import DocumentSampler, StreamSampler
from gpt2.hparams import HParams
from gpt2.training import events
from gpt2.training.memory import REMEDIES, available, estimate, trained_parameters, used
from gpt2.training.settings import LoopSettings, TrainerSettings

SMALL_DATASET = 300_000  # tokens, about 1 MB of English; a released model soon overfits on less
SECONDS_PER_LINE = 1.0  # between printed losses on a terminal


def print_plan(
    training: StreamSampler | DocumentSampler,
    validation: DocumentSampler | None,
    hparams: HParams,
    trainer_settings: TrainerSettings,
    loop_settings: LoopSettings,
) -> None:
    """Print the sizes of the dataset, of an epoch and of the model, and the estimated memory."""
    print("dataset has", training.total_size, "tokens")
    if isinstance(training, DocumentSampler):
        print(training.description)
    if loop_settings.held_out and validation is not None:
        print("validation set has", validation.total_size, "tokens")
    if training.window < hparams.n_ctx:
        print(
            f"The dataset is shorter than the context window ({hparams.n_ctx} tokens); training "
            f"on sequences of {training.window} tokens"
        )
    batch = loop_settings.batch_size * loop_settings.accumulate_gradients
    print(
        f"One epoch: {training.steps_per_epoch(batch):,} steps of {batch} x {training.window} "
        "tokens"
    )
    memory = estimate(
        hparams,
        trainer_settings,
        loop_settings.batch_size,
        training.window,
        loop_settings.accumulate_gradients,
        training.reach,
    )
    trained = trained_parameters(hparams, trainer_settings)
    share = "all" if trained == hparams.parameters else f"{trained:,} of the"
    print(
        f"Training {share} {hparams.parameters:,} parameters; estimated memory: "
        f"{memory / 1e9:.1f} GB"
    )
    free = available()
    if free is not None and memory > free:
        notice(
            f"Only {free / 1e9:.1f} GB of memory are available: the system may kill this training. "
            f"Reduce memory with {REMEDIES}."
        )
    if training.total_size < SMALL_DATASET and not loop_settings.held_out:
        print(
            f"Small dataset ({training.total_size:,} tokens): expect overfitting after a few "
            "epochs; consider --val_split 0.1 --val_every 50 --patience 3"
        )


class StepBar(tqdm):
    """A bar whose time left is estimated without the first steps, which compile the model."""

    COMPILING = 2  # steps: those of the first batch and of its first repetition
    _finished = 0  # steps
    _rate = 0.0  # steps per second; 0 for unknown

    def step_finished(self, step: int, seconds: float) -> None:
        """Move to a step, finished that many seconds after the training began."""
        self._finished += 1
        if self._finished <= self.COMPILING:
            self._first = step, seconds
        elif seconds > self._first[1]:
            self._rate = (step - self._first[0]) / (seconds - self._first[1])
        self.update(step - self.n)

    @property
    def format_dict(self) -> dict[str, Any]:
        """The numbers that the bar shows."""
        return {**super().format_dict, "rate": self._rate}


class LossLines:
    """Decides which steps print their loss: every N-th, or on a terminal about one a second."""

    def __init__(self, every: int | None, on_terminal: bool):
        """Decide by the step, if `every` is given or the output is not a terminal."""
        self._every = every or (None if on_terminal else 1)
        self._printed = -math.inf  # seconds since training began

    def is_due(self, step: int, seconds: float, is_last: bool) -> bool:
        """Return whether to print the loss of a step, finished at that time."""
        if self._every is not None:
            return step % self._every == 0
        if seconds - self._printed < SECONDS_PER_LINE and not is_last:
            return False
        self._printed = seconds
        return True


class Screen:
    """Prints the events of a training, above a status line if standard error is a terminal.

    Training continues when nobody reads its output any more.
    """

    def __init__(
        self,
        done: int,
        last_step: int | None,
        on_close: Callable[[], object],
        print_every: int | None = None,
    ):
        """Start the status line.

        Args:
            done: steps of the run so far.
            last_step: where its bar ends; None for a bar without an end.
            on_close: called when the reader of the output is gone; see `streams`.
            print_every: steps from one printed loss to the next; see `LossLines`.
        """
        self._last_step = last_step
        self._loss_lines = LossLines(print_every, sys.stdout.isatty())
        self._streams = contextlib.ExitStack()
        self._streams.enter_context(streams.on_close(on_close))
        # On standard error and on terminals only, so that the output stays as in 2019.
        self._bar = StepBar(
            total=last_step,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._streams.close()

    def validation_bar(self, batches: Iterable) -> Iterable:
        """Show a bar over the batches of a validation; a terminal removes it at the end."""
        return tqdm(batches, leave=self._bar.disable)

    def show(self, event: events.Event) -> None:
        """Print an event, other than the last one: see `gpt2.commands.train`."""
        match event:
            case events.StepFinished(step, seconds, loss, average, speed):
                if self._loss_lines.is_due(step, seconds, step == self._last_step):
                    self.print(f"[{step} | {seconds:2.2f}] loss={loss:2.2f} avg={average:2.2f}")
                self._bar.set_postfix_str(_status(loss, average, speed), refresh=False)
                self._bar.step_finished(step, seconds)
            case events.Saving(prefix):
                self.print(f"Saving {shown(prefix)}")
            case events.Generating():
                self.print("Generating samples...")
            case events.Sampled(text):
                self.print(text)
            case events.Validating():
                self.print("Calculating validation loss...")
            case events.Validated(step, seconds, loss):
                self.print(f"[{step} | {seconds:2.2f}] validation loss = {loss:2.2f}")
            case events.Warned(sentence):
                notice(sentence)
            case events.Interrupted():
                self.print("interrupted")

    def print(self, line: str) -> None:
        """Print a line above the bars."""
        with tqdm.external_write_mode(sys.stdout):
            print(line, flush=True)


def _status(loss: float, average: float, tokens_per_second: float) -> str:
    """Return what the status line shows besides the steps and the time left."""
    parts = [f"loss={loss:.2f} avg={average:.2f}", f"{tokens_per_second:,.0f} tokens/s"]
    if (memory := used()) is not None:
        parts.append(f"{memory / 1e9:.1f} GB")
    return ", ".join(parts)
