"""`demo`: train a small model on generated stories, and see how well it writes them.

It calls the other commands as a user would, in this process, since importing TensorFlow for each of
them would take longer than what they do. Their output goes to a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

import gpt2
from gpt2 import files, locks
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import setting
from gpt2.commands import new_model, train
from gpt2.commands.chart import draw_curve
from gpt2.commands.evaluate.shared import open_scorer
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import duration, for_terminal, shown
from gpt2.commands.training_screen import Screen
from gpt2.errors import UserError
from gpt2.evaluation.bigram import BigramModel, Counts, Interpolated
from gpt2.evaluation.texts import TextEncoder
from gpt2.stories.grammar import CODES, parse_story, write_stories
from gpt2.tokenizer import ENDOFTEXT
from gpt2.training import events
from gpt2.workspace import Workspace, command_line

if TYPE_CHECKING:
    from gpt2.generation.language_model import LanguageModel

START, RUN = "demo-start", "demo"  # the model before training, and the run
MARKER = "demo.txt"  # in each folder that the demo wrote and may replace
SEED = 1  # the same stories and weights each time
HELD_OUT = 200  # stories that are not trained on
MODEL = "--n_vocab 1024 --n_ctx 256 --n_embd 128 --n_head 4 --n_layer 2"
TRAINING = (
    "--lines --control_code_from filename --batch_size 4 --optimizer adamw --learning_rate 0.003"
    " --lr_schedule cosine --clip_norm 1"
)
LENGTH = 150  # tokens; the longest story has fewer
SAMPLING: dict[str, Any] = {"temperature": 0.7, "top_p": 0.95}
SAMPLING_FLAGS = " ".join(f"--{name} {value}" for name, value in SAMPLING.items())
BATCH = 64  # samples that are generated at once
BIGRAM_SAMPLES = 200
# Double quotes are understood by the shells of Linux, macOS and Windows.
NEXT = (
    (
        "Write a fable, or type the first words of one after the code",
        "conditional",
        f'--model_name {RUN} --prompt "<|fable|> Mila was" {SAMPLING_FLAGS}',
    ),
    (
        "Stories of any kind",
        "unconditional",
        f"--model_name {RUN} --nsamples 3 {SAMPLING_FLAGS}",
    ),
    ("The tokens of a text", "tokenize", f'"<|fable|> Mila was a proud fox" --model_name {RUN}'),
    ("A model for your own text", "new-model", "mine --dataset YOUR_TEXT.txt"),
)


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """What demo takes; the defaults are for about a minute of training on two CPU cores."""

    stories: int = setting(20_000, "number of stories to train on", low=100)
    steps: int = setting(1000, "number of training steps", low=1)
    samples: int = setting(200, "number of samples to check", low=len(CODES))


class Paths(NamedTuple):
    """Where the demo writes."""

    data: Path
    start: Path
    run: Path

    @property
    def texts(self) -> Path:
        """The folder of the training set."""
        return self.data / "stories"

    @property
    def log(self) -> Path:
        """The file with the output of the commands."""
        return self.data / "log.txt"


class DemoScreen(Screen):
    """Writes the lines of 2019 to standard output, and one line a second to the terminal."""

    def __init__(self, terminal: Any, *arguments: Any):
        """Start.

        Args:
            terminal: the stream for what the user sees.
            arguments: see `Screen`.
        """
        super().__init__(*arguments)
        self.losses: list[float] = []
        self.seconds = 0.0  # of the training so far
        self.interrupted = False
        self._terminal = terminal
        self._shown = 0.0  # seconds when a line was last shown

    def show(self, event: events.Event) -> None:
        """Show an event."""
        super().show(event)
        if isinstance(event, events.Interrupted):
            self.interrupted = True
        if not isinstance(event, events.StepFinished):
            return
        self.losses.append(event.loss)
        self.seconds = event.seconds
        if event.seconds - self._shown >= 1 or event.step == self._last_step:
            self._shown = event.seconds
            print(
                f"step {event.step:4} of {self._last_step}  {event.seconds:3.0f} s  "
                f"loss {event.loss:.2f}  {event.tokens_per_second:,.0f} tokens/s",
                file=self._terminal,
                flush=True,
            )


def run(values: Values) -> None:
    """Write stories, learn a vocabulary, train, sample, and compare with a bigram model."""
    workspace = Workspace.find()
    paths = Paths(
        workspace.root / "demo",
        workspace.new_model_folder(START),
        workspace.run_folder(RUN),
    )
    _check_replaceable(paths)
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
    with locks.run_lock(paths.data):
        _run(values, paths)


def _run(values: Values, paths: Paths) -> None:
    stories = list(write_stories(values.stories + HELD_OUT, SEED))
    held_out, training = stories[:HELD_OUT], stories[HELD_OUT:]
    _write_texts(paths, training)
    print(f"Wrote {len(training):,} short stories to {shown(paths.texts)}. The first one:\n")
    _print_story(training[0])
    with open(paths.log, "w", encoding="utf-8", buffering=1) as log:
        _make_model(paths, log)
        screen = _train(paths, values.steps, log)
    if screen.interrupted:
        raise KeyboardInterrupt(f"Stopped. What was trained is in {shown(paths.run)}.")
    _print_curve(screen)
    samples = _sample(gpt2.load(paths.run), values.samples)
    print("\nThe first sample of each kind:")
    for sample in samples[: len(CODES)]:
        print()
        _print_story(sample)
    _print_verdict(paths, samples, training, held_out)
    _print_next(paths)


def _check_replaceable(paths: Paths) -> None:
    """Check that whatever the demo replaces was written by it, and is not in use.

    Raises:
        UserError: it was not, or another demo or a training is at work there.
    """
    for path in paths:
        if path.exists() and not (path / MARKER).is_file():
            raise UserError(f"{shown(path)}: not written by the demo. Rename it and try again.")
    for path in (paths.data, paths.run):
        with locks.run_lock(path):
            pass


def _mark(folder: Path) -> None:
    files.make_folder(folder)
    files.write_text(
        folder / MARKER, "Written by the demo, which replaces it when it runs again.\n"
    )


def _write_texts(paths: Paths, stories: Sequence[str]) -> None:
    """Write a file of stories for each kind, one story per line.

    The name of the file is the control code of its stories, so they have none of their own. A
    quarter of the stories follows `<|endoftext|>` instead, which stands for an empty prompt, and
    they keep their codes.
    """
    _mark(paths.data)
    files.make_folder(paths.texts)
    without_prompt = len(stories) // 4
    texts = {"endoftext": list(stories[:without_prompt])}
    for kind, code in CODES.items():
        found = (story for story in stories[without_prompt:] if story.startswith(code))
        texts[kind] = [story.removeprefix(code) for story in found]
    for name, lines in texts.items():
        files.write_text(paths.texts / f"{name}.txt", "".join(f"{line}\n" for line in lines))


def _make_model(paths: Paths, log: IO[str]) -> None:
    """Run `new-model`."""
    codes = " ".join(f'"{code}"' for code in CODES.values())
    line = (
        f"{START} --dataset {_quoted(paths.texts)} --special_tokens {codes} {MODEL} --seed {SEED}"
    )
    print(f"\n$ {command_line('new-model')} {line}", flush=True)
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        new_model.run(new_model.COMMAND.parse(shlex.split(line), "new-model"))
    _mark(paths.start)


def _train(paths: Paths, steps: int, log: IO[str]) -> DemoScreen:
    """Run `train`; its output goes to the log, and one line a second to the terminal."""
    line = (
        f"--dataset {_quoted(paths.texts)} --model_name {START} --run_name {RUN} {TRAINING}"
        f" --warmup_steps {steps // 20} --max_steps {steps} --sample_every {steps + 1}"
        f" --seed {SEED}"
    )
    print(f"\n$ {command_line('train')} {line}", flush=True)
    _mark(paths.run)
    terminal, screens = sys.stdout, []
    with contextlib.redirect_stdout(log), contextlib.ExitStack() as reading:
        reading.enter_context(contextlib.redirect_stderr(log))

        def open_screen(*arguments: Any) -> DemoScreen:
            screens.append(DemoScreen(terminal, *arguments))
            reading.close()  # from here on, Ctrl+C is answered on standard error
            return screens[0]

        train.train(train.COMMAND.parse(shlex.split(line), "train"), open_screen)
    return screens[0]


def _sample(model: LanguageModel, count: int) -> list[str]:
    """Return samples of all kinds in turn, with their control codes."""
    codes = list(itertools.islice(itertools.cycle(CODES.values()), count))
    completions = model.generate(codes, length=LENGTH, seed=SEED, batch_size=BATCH, **SAMPLING)
    return [code + completion.text for code, completion in zip(codes, completions, strict=True)]


def _print_verdict(
    paths: Paths, samples: Sequence[str], training: Sequence[str], held_out: Sequence[str]
) -> None:
    """Print how good the samples are, and how much better than those of a bigram model."""
    known = set(training)
    new = sum(sample.strip() not in known for sample in samples)
    model = ModelFolder(paths.run)
    encoder = TextEncoder(model.tokenizer(), model.hparams)
    bigram = Interpolated(
        Counts((encoder.begun(encoder.encode(story)) for story in training), model.hparams.n_vocab)
    )
    texts = [encoder.text([story], "The story") for story in held_out]
    tokens = sum(text.predicted for text in texts)
    nats = sum(scores.nats.sum() for scores in open_scorer(model).score(t.tokens for t in texts))
    bigram_nats = sum(bigram.negative_log_likelihood(text.tokens) for text in texts)
    print(
        f"\nWell-formed (the grammar accepts every word): {_share(samples)}"
        f"\nNot in the training text: {new} of {len(samples)} ({new / len(samples):.0%})"
        f"\n\nA bigram model of the same text writes {_share(_bigram_samples(bigram, model))}"
        f" well-formed stories, and hesitates between {math.exp(bigram_nats / tokens):.1f} tokens "
        "at each step in new stories (perplexity), the model trained here between "
        f"{math.exp(nats / tokens):.2f}."
    )


def _share(samples: Sequence[str]) -> str:
    """Return how many samples are well-formed, in words."""
    good = sum(parse_story(sample) is not None for sample in samples)
    return f"{good} of {len(samples)} ({good / len(samples):.0%})"


def _bigram_samples(bigram: BigramModel, model: ModelFolder) -> list[str]:
    """Return samples of a bigram model that begin after `<|endoftext|>`."""
    tokenizer, random = model.tokenizer(), np.random.default_rng(SEED)
    endoftext = tokenizer.vocabulary[ENDOFTEXT]
    return [
        tokenizer.decode(bigram.sample(endoftext, LENGTH, random, end=endoftext))
        for _ in range(BIGRAM_SAMPLES)
    ]


def _print_curve(screen: DemoScreen) -> None:
    """Print the loss of the training as a curve."""
    print(f"\nTrained in {duration(screen.seconds)}. Loss by step:\n")
    print(*draw_curve(screen.losses), sep="\n")


def _print_story(story: str) -> None:
    """Print a story, its control code on a line of its own."""
    code, mark, text = for_terminal(story).partition("|>")
    lines = (code + mark, *textwrap.wrap(text.strip(), 76))
    print(textwrap.indent("\n".join(lines), "  "))


def _print_next(paths: Paths) -> None:
    """Print what to type next."""
    print("\nNext:\n")
    for text, verb, line in NEXT:
        print(f"{text}:\n  {command_line(verb)} {line}")
    print(f"\nThe output of the commands is in {shown(paths.log)}.")


def _quoted(path: Path) -> str:
    """Return a path for a command line, from the current folder if that is shorter."""
    return f'"{shown(path)}"' if " " in shown(path) else shown(path)


COMMAND = Command(
    summary="Train a small model on generated stories, in two minutes and without a download.",
    details=f"""\
It writes the folder demo/ (stories, output of the commands), the model {START}, and the run {RUN},
which the other commands can use afterwards: --model_name {RUN}. A second demo replaces them.""",
    groups={"demo": options_of(DemoOptions)},
    run=run,
)
