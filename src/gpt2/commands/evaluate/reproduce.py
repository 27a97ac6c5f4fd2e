"""`evaluate reproduce`: the published results of a released model beside those measured here."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import setting
from gpt2.commands import exits, inputs
from gpt2.commands.evaluate import perplexity
from gpt2.commands.evaluate.shared import OutputOptions, check_output, write_output
from gpt2.commands.flags import Command, Values, options_of
from gpt2.commands.terminal import notice, print_table, shown
from gpt2.data.readers import UTF_8
from gpt2.download import releases
from gpt2.errors import UserError, escaped
from gpt2.evaluation.recipes import PAPER, RECIPES, Recipe, Target, recipe_named
from gpt2.evaluation.task import Task
from gpt2.evaluation.windows import WindowSettings
from gpt2.hparams import RELEASED
from gpt2.workspace import command_line


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """What reproduce takes besides the model."""

    data: str = setting("data", "folder of the test sets", metavar="FOLDER")
    recipes: tuple[str, ...] = setting(
        tuple(RECIPES), "recipes to run", metavar="RECIPE", many=True
    )


def run(values: Values) -> None:
    """Run each recipe whose test set is there; print measured beside published values."""
    recipes = [recipe_named(name) for name in dict.fromkeys(values.recipes)]
    check_output(values)
    model = inputs.open_model(values)
    size = RELEASED.get((model.hparams.n_layer, model.hparams.n_embd))
    if size is None:
        raise UserError(
            f"{model.path}: a model of {model.hparams.n_layer} layers and hidden size "
            f"{model.hparams.n_embd} has no published results. Give a released model: "
            f"{', '.join(RELEASED.values())}."
        )
    found = {recipe.name: _test_set(recipe, values.data) for recipe in recipes}
    if not any(found.values()):
        raise UserError(
            f"{values.data}: no test set of {', '.join(found)}. {_missing(recipes[0])}; other "
            f"files: docs/evaluation.md."
        )
    weights = _weights(model, size)
    print(f"{shown(model.path)}: {weights}")
    results, failed = [], False
    for recipe in recipes:
        path = found[recipe.name]
        if path is None:
            notice(f"{recipe.name}: skipped. {_missing(recipe)}.")
            continue
        print(f"{recipe.name}: {shown(path)}", flush=True)
        try:
            results += _run_recipe(recipe, path, model, size)
        except UserError as error:
            notice(f"{recipe.name}: {error}")
            failed = True
    if results:
        heads = ["recipe", "metric", "measured", "others", "paper", "difference"]
        print_table(heads, [*map(_row, results)])
        print(
            f"others: measured by others with the same steps; paper: {PAPER}; difference: of the "
            "measured value from others, else from the paper."
        )
    write_output(values, {"model": values.model_name, "weights": weights, "results": results})
    if failed:
        sys.exit(exits.FAILED)


def _test_set(recipe: Recipe, folder: str) -> Path | None:
    """Return the file of a recipe's test set in the folder or below it, None if it is missing."""
    for name in recipe.files:
        for path in (Path(folder) / name, *sorted(Path(folder).glob(f"*/{name}"))):
            if path.is_file():
                return path
    return None


def _missing(recipe: Recipe) -> str:
    return f"Put {recipe.files[0]} into the folder of --data; it comes from {recipe.obtained}"


def _weights(model: ModelFolder, size: str) -> str:
    """Return whether the checkpoint is the released one, as far as its hash is known."""
    accepted = releases.RELEASES[size].sha256.get(releases.INDEX_FILE)
    if accepted is None:
        return f"shape of {size}; the released checkpoint has no published hash"
    if bundle.fingerprint(model.checkpoint) in accepted:
        return f"OpenAI's {size}, verified by the hash of its index"
    return (
        f"shape of {size}, but not OpenAI's weights. Download them with: "
        f"{command_line('download')} {size}"
    )


def _run_recipe(recipe: Recipe, path: Path, model: ModelFolder, size: str) -> list[dict[str, Any]]:
    """Return one result for each metric with a published value."""
    window = WindowSettings.of(model.hparams.n_ctx, None, None)
    measured = perplexity.measure(Task(str(path), recipe, model, window, UTF_8))
    return [_result(recipe, target, measured) for target in recipe.targets(size)]


def _result(recipe: Recipe, target: Target, measured: dict[str, Any]) -> dict[str, Any]:
    value = measured[target.metric] * (100 if target.is_percent else 1)
    return {
        "recipe": recipe.name,
        "metric": target.metric,
        "measured": value,
        "others": target.others,
        "paper": target.paper,
        "difference": value - target.expected,
        "percent": target.is_percent,
    }


def _row(result: dict[str, Any]) -> list[str]:
    unit = "%" if result["percent"] else ""
    values = (result[name] for name in ("measured", "others", "paper"))
    return [
        result["recipe"],
        escaped(result["metric"].replace("_", " ")),
        *("-" if value is None else f"{value:,.2f}{unit}" for value in values),
        f"{result['difference']:+,.2f}",
    ]


COMMAND = Command(
    summary="Compare a released model with its published results.",
    details="""\
evaluate reproduce 124M --data data

Runs every recipe of `evaluate perplexity --recipe` whose test set is in the folder.""",
    groups={
        "model and test sets": [
            *inputs.model_options(),
            *options_of(ReproduceOptions),
        ],
        "output": options_of(OutputOptions),
    },
    run=run,
    first="model_name",
)
