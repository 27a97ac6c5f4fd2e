"""`evaluate diversity`: how varied samples are, and how much of them is copied."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.evaluate.shared import (
    OutputOptions,
    TrainingTextOptions,
    check_output,
    diversity_row,
    measure_diversity,
    open_scorer,
    print_diversity,
    reader_options,
    write_output,
)
from gpt2.commands.flags import Command, Values, build, exactly_one, options_of
from gpt2.commands.terminal import shown, token_bar
from gpt2.data import tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.evaluation.perplexity import exponential
from gpt2.evaluation.samples import read_samples, run_samples
from gpt2.evaluation.texts import TextEncoder
from gpt2.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class DiversityOptions:
    """What diversity takes besides the training set and the reader's settings."""

    samples: str = setting(
        "",
        "samples of train or of a sampler, or any text: file, folder, or glob pattern; - for "
        "standard input",
        metavar="PATH",
    )
    run: str = setting(
        "", "measure the samples of this run instead, under samples/RUN", metavar="RUN"
    )
    model_name: str = setting(
        "",
        "also measure the perplexity of the samples under this model (default: none)",
        metavar="MODEL",
    )


def run(values: Values) -> None:
    """Measure each file of samples, print a table and write it to --json."""
    check_output(values)
    reading = build(ReaderSettings, values)
    paths = _find(values)
    groups = {shown(path): read_samples(path, reading) for path in paths}
    if len(groups) > 1:
        groups["all of them"] = [sample for group in groups.values() for sample in group]
    samples = list(groups.values())
    model = inputs.open_model(values) if values.model_name else None
    metrics = measure_diversity(samples, values.dataset, model, reading)
    perplexities = _perplexities(samples, model) if model else [None] * len(samples)
    rows = [
        diversity_row({"samples": name}, found, perplexity)
        for name, found, perplexity in zip(groups, metrics, perplexities, strict=True)
    ]
    heads = {"samples": "samples of"}
    print_diversity(heads, rows, copied=bool(values.dataset), perplexity=bool(model))
    described = {"model": values.model_name or None, "dataset": values.dataset or None}
    write_output(values, described | {"rows": rows})


def _find(values: Values) -> list[Path]:
    """Return the files of samples."""
    if values.run:
        workspace = Workspace.find(values.models_dir, values.run)
        return run_samples(workspace.samples_folder(values.run))
    return tokenization.find_files(values.samples)


def _perplexities(groups: Sequence[Sequence[str]], model: ModelFolder) -> list[float | None]:
    """Return the perplexity per token of each group, each sample on its own, with a bar.

    Samples that several groups share are scored once.
    """
    encoder = TextEncoder(model.tokenizer(), model.hparams)
    texts = list(dict.fromkeys(sample for group in groups for sample in group))
    tokens = [encoder.begun(encoder.encode(text)) for text in texts]
    scorer = open_scorer(model)
    with token_bar(sum(max(len(ids) - 1, 0) for ids in tokens)) as progress:
        scores = dict(zip(texts, scorer.score(tokens, progress=progress), strict=True))
    found: list[float | None] = []
    for group in groups:
        nats = np.concatenate([scores[text].nats for text in group])
        total = float(nats.sum(dtype="float64"))
        found.append(exponential(total, len(nats)) if len(nats) else None)
    return found


COMMAND = Command(
    summary="Measure how varied samples are, how repetitive, and how much of them is copied.",
    groups={
        "samples": options_of(DiversityOptions, "samples", "run"),
        "metrics": [
            *options_of(TrainingTextOptions),
            *options_of(DiversityOptions, "model_name"),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(OutputOptions),
        ],
        "how the files are read": reader_options(),
    },
    run=run,
    check=exactly_one("samples", "run"),
    first="samples",
)
