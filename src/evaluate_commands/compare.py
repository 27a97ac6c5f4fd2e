"""evaluate.py compare: several models, or checkpoints of a run, on one text."""

from __future__ import annotations

from command_line import model_folder
from evaluate_commands.shared import (
    check_json,
    open_scorer,
    show_table,
    shown_number,
    token_bar,
    with_reading_flags,
    write_json,
)
from gpt2.checkpoint.folder import checkpoint_names
from gpt2.errors import UserError
from gpt2.evaluation.perplexity import measure
from gpt2.evaluation.texts import TextEncoder
from gpt2.evaluation.windows import WindowSettings

COLUMNS = ("tokens", "perplexity_per_token", "perplexity_per_word", "bits_per_byte")


@with_reading_flags
def compare(
    models,
    dataset,
    window=None,
    stride=None,
    json="",
    models_dir="models",
    *,
    reading,
):
    """Measure several models, or checkpoints of one run, on one text.

    Args:
        models: names with commas between: models under models/, runs under checkpoint/, paths; RUN/model-200 is a certain checkpoint, RUN/* every one that the run keeps
        dataset: file, folder or pattern
        window: tokens that a model looks back at, at most (default: all that it can)
        stride: tokens from one window to the next (default: the window)
        json: a file for the results
        models_dir: the folder that holds the models
    """
    check_json(json)
    # All of them are looked at before the first one takes its time.
    folders = {name: model_folder(name, models_dir) for name in expanded(models, models_dir)}
    texts, cuts = {}, {}
    for name, model in folders.items():
        cuts[name] = WindowSettings.of(model.hparams.n_ctx, window, stride)
        vocabulary = TextEncoder(model.tokenizer(), model.hparams)
        texts[name] = vocabulary.read(dataset, reading)
        _ = model.checkpoint
    results = []
    for name, model in folders.items():
        scorer = open_scorer(model)
        with token_bar(texts[name].predicted, name) as progress:
            found = measure(scorer, [texts[name]], cuts[name], progress)
        results.append(
            {
                "model": name,
                "checkpoint": model.checkpoint.name,
                "window": cuts[name].window,
                "stride": cuts[name].stride,
                **found.numbers(),
            }
        )
    heads = ["model", "checkpoint", "window", "stride", *(c.replace("_", " ") for c in COLUMNS)]
    rows = [
        [
            *(result[key] for key in ("model", "checkpoint", "window", "stride")),
            *(shown_number(result[column]) for column in COLUMNS),
        ]
        for result in results
    ]
    show_table(heads, rows)
    if len({result["tokens"] for result in results}) > 1:
        print("The models have different vocabularies: compare bits per byte, not per token.")
    write_json(json, {"dataset": dataset, "models": results})


def expanded(models: str, models_dir: str) -> list[str]:
    """The names, RUN/* replaced by the checkpoints of the run.

    Raises:
        UserError: there is no name.
    """
    names = []
    for name in filter(None, map(str.strip, models.split(","))):
        if name.endswith("/*"):
            run = name.removesuffix("/*")
            names += [
                f"{run}/{each}" for each in checkpoint_names(model_folder(run, models_dir).path)
            ]
        else:
            names.append(name)
    if not names:
        raise UserError("Name the models with commas between: --models 124M,run1.")
    return list(dict.fromkeys(names))
