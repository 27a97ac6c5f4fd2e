"""What src/train.py shows: the lines of 2019, which people's scripts look for, and a bar."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable

from tqdm import tqdm

from command_line import Outlasting, show_notice, shown
from gpt2.data.samplers import DocumentSampler, StreamSampler
from gpt2.hparams import HParams
from gpt2.training import events
from gpt2.training.memory import REMEDIES, available, estimate, trained_parameters
from gpt2.training.settings import LoopSettings, TrainerSettings

LITTLE = 300_000  # tokens, about a megabyte of English: what a released model learns by heart soon


def say_what_is_ahead(
    training: StreamSampler | DocumentSampler,
    validation: DocumentSampler | None,
    hparams: HParams,
    trainer_settings: TrainerSettings,
    loop_settings: LoopSettings,
) -> None:
    """Print what will be trained, on what, and what it will need."""
    print("dataset has", training.total_size, "tokens")
    if isinstance(training, DocumentSampler):
        print(training.description)
    if loop_settings.held_out and validation is not None:
        print(f"{validation.total_size} more are held out to validate on")
    if training.window < hparams.n_ctx:
        print(
            f"It is shorter than the model's window; training on {training.window} tokens at a time"
        )
    batch = loop_settings.batch_size * loop_settings.accumulate_gradients
    print(
        f"An epoch is {training.steps_per_epoch(batch):,} steps of {batch} x {training.window} "
        "tokens"
    )
    memory = estimate(
        hparams,
        trainer_settings,
        loop_settings.batch_size,
        training.window,
        loop_settings.accumulate_gradients,
    )
    trained = trained_parameters(hparams, trainer_settings)
    share = "all" if trained == hparams.parameters else f"{trained:,} of the"
    print(
        f"Training {share} {hparams.parameters:,} parameters, with about {memory / 1e9:.1f} GB of "
        "memory"
    )
    there_is = available()
    if there_is is not None and memory > there_is:
        show_notice(
            f"There are only {there_is / 1e9:.1f} GB of memory free, so the system may end this "
            f"training; less is needed with {REMEDIES}."
        )
    if training.total_size < LITTLE and not loop_settings.held_out:
        print(
            "That is little text, which is soon learnt by heart: to stop in time, add --val_split "
            "0.1 --val_every 50 --patience 3"
        )


class Screen:
    """Shows the events of a training; on a terminal with a bar below them.

    A training is worth more than its screen: where nothing can be shown any more, it goes on.
    """

    def __init__(self, done: int, last_step: int | None, left: Callable[[], object]):
        """Begin, with a bar from `done` to `last_step`, or an endless one.

        Args:
            left: called when nobody looks any more; see `Outlasting`.
        """
        self._streams = contextlib.ExitStack()
        for turn, stream in (
            (contextlib.redirect_stdout, sys.stdout),
            (contextlib.redirect_stderr, sys.stderr),
        ):
            self._streams.enter_context(turn(Outlasting(stream, left)))
        # A bar is for people, and on standard error, so that the output stays as in 2019.
        self._bar = tqdm(
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
        """Show a bar over the batches of a validation; with the other bar only while it lasts."""
        return tqdm(batches, leave=self._bar.disable)

    def show(self, event: events.Event) -> None:
        """Print what happened."""
        match event:
            case events.StepFinished(step, seconds, loss, average, speed):
                self._print(f"[{step} | {seconds:2.2f}] loss={loss:2.2f} avg={average:2.2f}")
                self._bar.set_postfix_str(f"{speed:,.0f} tokens/s", refresh=False)
                self._bar.update(step - self._bar.n)
            case events.Saving(prefix):
                self._print(f"Saving {shown(prefix)}")
            case events.Generating():
                self._print("Generating samples...")
            case events.Sampled(text):
                self._print(text)
            case events.Validating():
                self._print("Calculating validation loss...")
            case events.Validated(step, seconds, loss):
                self._print(f"[{step} | {seconds:2.2f}] validation loss = {loss:2.2f}")
            case events.Warned(sentence):
                self.warn(sentence)
            case events.Interrupted():
                self._print("interrupted")
            case events.Finished(_, reason):
                self._print(reason)

    def warn(self, sentence: str) -> None:
        """Print a sentence on standard error."""
        with tqdm.external_write_mode(sys.stderr):
            print(sentence, file=sys.stderr, flush=True)

    def _print(self, line: str) -> None:
        with tqdm.external_write_mode(sys.stdout):
            print(line, flush=True)
