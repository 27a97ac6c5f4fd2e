"""`evaluate compare`: several models, or checkpoints of a run, on one held-out text."""

from __future__ import annotations

import dataclasses
from typing import Any

from gpt2.checkpoint.folder import ModelFolder, checkpoint_names
from gpt2.checkpoint.resolve import find_model
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.evaluate.shared import (
    HeldOutOptions,
    check_output,
    evaluation_options,
    open_scorer,
    reader_options,
    window_of,
    write_output,
)
from gpt2.commands.flags import Command, Values, build, options_of
from gpt2.commands.terminal import formatted, notice, print_table, token_bar
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.evaluation.perplexity import measure
from gpt2.evaluation.texts import ScoredText, TextEncoder
from gpt2.evaluation.windows import WindowSettings

COLUMNS = ("tokens", "perplexity_per_token", "perplexity_per_word", "bits_per_byte")


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """The models that compare takes."""

    models: str = setting(
        help="models, runs or paths, separated by commas; RUN/model-200 for one checkpoint, RUN/* "
        "for all checkpoints of a run",
        metavar="MODEL,...",
    )


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model, and the held-out text in its tokens."""

    name: str
    model: ModelFolder
    text: ScoredText
    window: WindowSettings


def run(values: Values) -> None:
    """Evaluate each model, print a table of the results and write them to --json."""
    check_output(values)
    # All models are checked before the first one is evaluated, which takes long.
    candidates = _candidates(values)
    results = [_measure(candidate) for candidate in candidates]
    _print(results)
    write_output(values, {"dataset": values.dataset, "models": results})


def _candidates(values: Values) -> list[Candidate]:
    """Return the models, each with the dataset in its own tokens."""
    reading = build(ReaderSettings, values)
    found = []
    for name in expand(values.models, values.models_dir):
        model = find_model(name, values.models_dir, notice)
        window = window_of(values, model)
        text = TextEncoder(model.tokenizer(), model.hparams).read(values.dataset, reading)
        found.append(Candidate(name, model, text, window))
    return found


def expand(models: str, models_dir: str | None) -> list[str]:
    """Return the names in a list with commas, RUN/* replaced by the checkpoints of the run.

    Raises:
        UserError: the list is empty.
    """
    names: list[str] = []
    for name in filter(None, map(str.strip, models.split(","))):
        if name.endswith("/*"):
            run = name.removesuffix("/*")
            folder = find_model(run, models_dir, notice).path
            names += [f"{run}/{checkpoint}" for checkpoint in checkpoint_names(folder)]
        else:
            names.append(name)
    if not names:
        raise UserError("--models: no name given. Separate names with commas: --models 124M,run1")
    return list(dict.fromkeys(names))


def _measure(candidate: Candidate) -> dict[str, Any]:
    """Return the results of one model."""
    scorer = open_scorer(candidate.model)
    with token_bar(candidate.text.predicted, candidate.name) as progress:
        found = measure(scorer, [candidate.text], candidate.window, progress)
    return {
        "model": candidate.name,
        "checkpoint": candidate.model.checkpoint.name,
        **dataclasses.asdict(candidate.window),
        **found.numbers(),
    }


def _print(results: list[dict[str, Any]]) -> None:
    settings = ["model", "checkpoint", "window", "stride"]
    heads = [*settings, *(column.replace("_", " ") for column in COLUMNS)]
    rows = [
        [*(result[name] for name in settings), *(formatted(result[name]) for name in COLUMNS)]
        for result in results
    ]
    print_table(heads, rows)
    if len({result["tokens"] for result in results}) > 1:
        print("The models have different vocabularies: compare bits per byte, not perplexity.")


COMMAND = Command(
    summary="Compare models, or checkpoints of a run, on one held-out text.",
    groups={
        "models and dataset": [
            *options_of(CompareOptions),
            *options_of(HeldOutOptions),
            *options_of(inputs.ModelOptions, "models_dir"),
        ],
        "evaluation": evaluation_options(),
        "how the files are read": reader_options(),
    },
    run=run,
    first="models",
)
