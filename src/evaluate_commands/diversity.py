"""evaluate.py diversity: how varied samples are, and how much of them is copied."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from command_line import byte_bar, model_folder, shown
from evaluate_commands.shared import (
    check_json,
    open_scorer,
    show_table,
    token_bar,
    with_reading_flags,
    write_json,
)
from gpt2.checkpoint.folder import ModelFolder
from gpt2.data import tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.evaluation.diversity import Diversity, measure
from gpt2.evaluation.perplexity import exponential
from gpt2.evaluation.samples import read_samples, run_samples
from gpt2.evaluation.texts import TextEncoder
from gpt2.workspace import Workspace

# The columns of the table: what is in them of the metrics, their heads, and decimals.
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


@with_reading_flags
def diversity(
    samples="", run="", dataset="", model_name="", json="", models_dir="models", *, reading
):
    """Measure how varied samples are, how much they repeat, and how much of them is copied.

    Args:
        samples: file, folder or pattern: what train.py or a sampler wrote, or any text; - for standard input
        run: instead of that, a run whose samples lie under samples/
        dataset: the text that was trained on, to find what is copied from it: file, folder or pattern; .npz needs the model
        model_name: the model under which to take the samples' perplexity (default: none)
        json: a file for the result
        models_dir: the folder that holds the models
    """
    check_json(json)
    files = find_samples(samples, run, models_dir)
    groups = {shown(file): read_samples(file, reading) for file in files}
    if len(groups) > 1:
        groups["all of them"] = [sample for group in groups.values() for sample in group]
    model = model_folder(model_name, models_dir) if model_name else None
    found = measured(list(groups.values()), dataset, model, reading)
    perplexities = measured_perplexity(list(groups.values()), model)
    rows = [
        {"settings": {"samples": name}, "metrics": asdict(metrics) | {"perplexity": perplexity}}
        for name, metrics, perplexity in zip(groups, found, perplexities, strict=True)
    ]
    show_rows({"samples": "samples of"}, rows, bool(dataset), bool(model))
    write_json(json, {"model": model_name or None, "dataset": dataset or None, "rows": rows})


def find_samples(samples: str, run: str, models_dir: str) -> list[Path]:
    """The files of samples that are asked for."""
    if bool(samples) == bool(run):
        raise UserError("Give --samples FILE or --run RUN: the samples of one or of the other.")
    if run:
        return run_samples(Workspace.find(models_dir, run).samples_folder(run))
    return tokenization.find_files(samples)


def measured(
    groups: Sequence[Sequence[str]],
    dataset: str,
    model: ModelFolder | None,
    reading: ReaderSettings,
) -> list[Diversity]:
    """Every measure of each group, with a bar while the training text is read."""
    if not dataset:
        return measure(groups)
    files = tokenization.find_files(dataset)
    if model is None and any(file.suffix == ".npz" for file in files):
        raise UserError(
            f"{dataset} holds tokens: name with --model_name the model that spells them, or give the "
            "text."
        )
    tokenizer = model.tokenizer() if model else None
    n_vocab = model.hparams.n_vocab if model else 0
    with byte_bar(files) as progress:
        return measure(
            groups,
            tokenization.read_texts(
                files, tokenizer=tokenizer, n_vocab=n_vocab, reading=reading, progress=progress
            ),
        )


def measured_perplexity(
    groups: Sequence[Sequence[str]], model: ModelFolder | None
) -> list[float | None]:
    """Of each group under a model, every sample by itself; with a bar."""
    if model is None:
        return [None] * len(groups)
    vocabulary = TextEncoder(model.tokenizer(), model.hparams)
    texts = list(dict.fromkeys(sample for group in groups for sample in group))
    tokens = [vocabulary.begun(vocabulary.encode(text)) for text in texts]
    scorer = open_scorer(model)
    with token_bar(sum(max(len(ids) - 1, 0) for ids in tokens)) as progress:
        scores = dict(zip(texts, scorer.score(tokens, progress=progress), strict=True))
    found = []
    for group in groups:
        nats = np.concatenate([scores[text].nats for text in group])
        total = float(nats.sum(dtype="float64"))
        found.append(exponential(total, len(nats)) if len(nats) else None)
    return found


def show_rows(
    settings: Mapping[str, str], rows: Sequence[dict[str, Any]], copied: bool, perplexity: bool
) -> None:
    """Print a table of settings and metrics, without the columns that were not asked for.

    Args:
        settings: those that are shown, with the heads of their columns.
    """
    metrics = [row["metrics"] for row in rows]
    asked = {
        "copied_8": copied,
        "perplexity": perplexity,
        "empty": any(m["empty"] for m in metrics),
    }
    columns = {name: column for name, column in COLUMNS.items() if asked.get(name, True)}
    cells = [
        [
            *(row["settings"][name] for name in settings),
            *(_number(row["metrics"][name], decimals) for name, (_, decimals) in columns.items()),
        ]
        for row in rows
    ]
    show_table([*settings.values(), *(head for head, _ in columns.values())], cells)
    if any(m["self_bleu"] is None for m in metrics):
        print(
            "Self-BLEU compares samples with one another: there is none of fewer than two that "
            "have words.",
            file=sys.stderr,
        )


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"
