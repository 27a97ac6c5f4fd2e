"""Flags and steps that the subcommands of `evaluate` share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Option, Values, options_of
from gpt2.commands.parts import check_parts, part_of, paths_of_parts, vocabulary_digest
from gpt2.commands.signals import load_tensorflow
from gpt2.commands.terminal import byte_bar, notice, print_table
from gpt2.data import tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError, escaped
from gpt2.evaluation.batch_parts import Batches, MergedBatches, PartBatches, all_batches
from gpt2.evaluation.diversity import Diversity, measure
from gpt2.evaluation.windows import WindowSettings
from gpt2.training.run_log import data_in_short
from gpt2.version import __version__

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer

# Columns of the table of `print_diversity`: the metric, its head, and the number of decimals.
COLUMNS = {
    "samples": ("samples", 0),
    "empty": ("empty", 0),
    "length": ("words", 1),
    "distinct_1": ("distinct-1", 3),
    "distinct_2": ("distinct-2", 3),
    "distinct_3": ("distinct-3", 3),
    "self_bleu": ("self-BLEU", 3),
    "repetition_4": ("rep-4", 3),
    "longest_repeated_span": ("longest span", 1),
    "copied_8": ("copied-8", 3),
    "perplexity": ("perplexity", 2),
}


@dataclasses.dataclass(frozen=True)
class OutputOptions:
    """Where the results go besides the screen."""

    json: str = setting("", "also write the results to this JSON file", metavar="FILE")


@dataclasses.dataclass(frozen=True)
class WindowOptions:
    """The sliding window over a text that is longer than the context window."""

    window: int | None = setting(
        None, "context in tokens (default: the context window of the model)", low=1
    )
    stride: int | None = setting(
        None,
        "tokens from one window to the next (default: the window); a shorter stride gives each "
        "token more context and takes longer",
        low=1,
    )


@dataclasses.dataclass(frozen=True)
class HeldOutOptions:
    """The text that models are evaluated on."""

    dataset: str = setting(
        help="held-out text: file, folder, or glob pattern; text or .npz", metavar="PATH"
    )


@dataclasses.dataclass(frozen=True)
class TrainingTextOptions:
    """The text that samples are compared with."""

    dataset: str = setting(
        "",
        "training set, to measure how much of it the samples copy: file, folder, or glob pattern; "
        "text or .npz",
        metavar="PATH",
    )


def reader_options(*names: str) -> list[Option]:
    """Return the flags that say how text is read.

    Args:
        names: flags besides those of all subcommands.
    """
    return inputs.reader_options("encoding", "errors", "format", "column", "field", *names)


def evaluation_options() -> list[Option]:
    """Return the flags `--window`, `--stride` and `--json`."""
    return [*options_of(WindowOptions), *options_of(OutputOptions)]


def window_of(values: Values, model: ModelFolder) -> WindowSettings:
    """Return the window that `--window` and `--stride` stand for; see `WindowSettings.of`."""
    return WindowSettings.of(model.hparams.n_ctx, values.window, values.stride)


def check_output(values: Values) -> None:
    """Check, before the work starts, that the file of `--json` can be written."""
    if values.json:
        files.check_writable(values.json)


def write_output(values: Values, result: Mapping[str, object]) -> None:
    """Write the results to the file of `--json`, if it is given."""
    if values.json:
        files.write_json(Path(values.json), result)


def check_parts_and_output(values: Values) -> None:
    """Check `--shard` and `--merge`, and that a part has a file."""
    check_parts(values)
    if values.shard and not values.json:
        raise UsageError("--shard needs --json FILE, to which the part is written")


@contextlib.contextmanager
def batches_of(
    values: Values, model: ModelFolder, window: WindowSettings, text: Mapping[str, object]
) -> Iterator[Batches]:
    """Yield which batches are computed here: all, those of `--shard`, or none with `--merge`.

    Args:
        text: what decides the texts besides the model's vocabulary, by name.

    Raises:
        UserError: a part is of another evaluation, missing or given twice.
    """
    if not (values.shard or values.merge):
        yield all_batches
        return
    facts = {
        "version": __version__,
        "model": bundle.fingerprint(model.checkpoint),
        "vocabulary": vocabulary_digest(model),
        **dataclasses.asdict(window),
        **text,
        **{
            option.flag.removeprefix("--"): getattr(values, option.name, None)
            for option in reader_options("lines")
        },
    }
    if values.merge:
        output = Path(values.json) if values.json else None
        yield MergedBatches(paths_of_parts(values, output), facts)
        return
    part = part_of(values)
    assert part is not None
    with PartBatches(Path(values.json), part, facts) as batches:
        yield batches
    print(
        f"part {part}: {batches.existing + batches.computed:,} batches in "
        f"{escaped(values.json)} ({batches.existing:,} existed already)"
    )


def file_facts(path: str) -> dict[str, object]:
    """Return number, size and sha256 of the files of a dataset.

    Raises:
        UserError: one cannot be read, or it is standard input, which only one machine has.
    """
    if path == "-":
        raise UserError("standard input cannot be divided into parts. Name a file.")
    facts = data_in_short(tokenization.find_files(path))
    return {name: facts[name] for name in ("files", "bytes", "sha256")}


def open_scorer(model: ModelFolder, batches: Batches = all_batches, **options: Any) -> Scorer:
    """Import TensorFlow and load a model into a scorer; see `Scorer` for the options.

    The weights are not read if all batches have been computed already.

    Raises:
        UserError: the checkpoint is corrupted or does not match `hparams.json`.
    """
    load_tensorflow()
    from gpt2.evaluation.scoring import Scorer

    weights = {} if isinstance(batches, MergedBatches) else model.weights()
    return Scorer(weights, model.hparams, batches=batches, **options)


def measure_diversity(
    groups: Sequence[Sequence[str]],
    dataset: str,
    model: ModelFolder | None,
    reading: ReaderSettings,
) -> list[Diversity]:
    """Return all diversity metrics of each group of samples.

    Args:
        dataset: path of the training set, which is read with a progress bar; empty for none.
        model: decodes a dataset of tokens.
    """
    if not dataset:
        return measure(groups)
    paths = tokenization.find_files(dataset)
    if model is None and any(path.suffix == ".npz" for path in paths):
        raise UserError(
            f"{dataset} holds tokens. Give the model that decodes them with --model_name, or the "
            "original text."
        )
    with byte_bar(paths) as progress:
        training = tokenization.read_texts(
            paths,
            tokenizer=model.tokenizer() if model else None,
            n_vocab=model.hparams.n_vocab if model else 0,
            reading=reading,
            progress=progress,
        )
        training = tokenization.not_empty(
            training, f"{dataset} contains no text to compare the samples with.", counts=str.strip
        )
        return measure(groups, training)


def diversity_row(
    settings: Mapping[str, object], metrics: Diversity, perplexity: float | None
) -> dict[str, Any]:
    """Return one row of the results: settings, and metrics by name."""
    return {
        "settings": dict(settings),
        "metrics": dataclasses.asdict(metrics) | {"perplexity": perplexity},
    }


def print_diversity(
    settings: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    *,
    copied: bool,
    perplexity: bool,
) -> None:
    """Print a table of settings and metrics.

    Args:
        settings: the settings to show, and the heads of their columns.
        rows: see `diversity_row`.
        copied, perplexity: whether to show the columns of these metrics.
    """
    metrics = [row["metrics"] for row in rows]
    shown = {
        "copied_8": copied,
        "perplexity": perplexity,
        "empty": any(each["empty"] for each in metrics),
    }
    columns = {name: column for name, column in COLUMNS.items() if shown.get(name, True)}
    cells = [
        [
            *(row["settings"][name] for name in settings),
            *(_decimal(row["metrics"][name], decimals) for name, (_, decimals) in columns.items()),
        ]
        for row in rows
    ]
    print_table([*settings.values(), *(head for head, _ in columns.values())], cells)
    if any(each["self_bleu"] is None for each in metrics):
        notice("Self-BLEU needs at least two non-empty samples.")


def _decimal(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"
