"""`evaluate perplexity`: how well a model predicts a held-out text."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from gpt2.commands import inputs
from gpt2.commands.evaluate.shared import (
    HeldOutOptions,
    batches_of,
    check_output,
    check_parts_and_output,
    evaluation_options,
    file_facts,
    open_scorer,
    reader_options,
    window_of,
    write_output,
)
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, build, options_of
from gpt2.commands.parts import PartOptions
from gpt2.commands.terminal import print_values
from gpt2.data.readers import ReaderSettings
from gpt2.evaluation.batch_parts import Batches, all_batches
from gpt2.evaluation.task import PerplexitySettings, Task


def check(values: Values) -> None:
    """Check that a recipe is given without the flags that it decides itself, and the parts."""
    check_parts_and_output(values)
    if values.recipe and (values.unit or values.detokenizer):
        raise UsageError(
            f"--recipe {values.recipe} has its own unit and detokenizer; omit --normalize and "
            "--detokenizer"
        )


def run(values: Values) -> None:
    """Evaluate the model, print the results and write them to --json."""
    recipe = build(PerplexitySettings, values).chosen
    check_output(values)
    reading = build(ReaderSettings, values)
    model = inputs.open_model(values)
    window = window_of(values, model)
    text: dict[str, object] = {}
    if values.shard or values.merge:
        text = {"recipe": recipe.name, "detokenizer": recipe.detokenizer}
        text |= file_facts(values.dataset)
    task = Task(values.dataset, recipe, model, window, reading)
    with batches_of(values, model, window, text) as batches:
        measured = measure(task, batches)
    if values.shard:
        return
    result = {"model": values.model_name, **task.facts(), **measured, **task.published()}
    unit = f"perplexity_per_{recipe.measure}"  # on the screen, "perplexity" says the same
    print_values({name: value for name, value in result.items() if name != unit})
    write_output(values, result)


def measure(task: Task, batches: Batches = all_batches) -> dict[str, Any]:
    """Return the metrics of the task's recipe by name, showing a progress bar.

    Raises:
        UserError: the dataset cannot be read as the recipe reads it, or the model not be loaded.
    """
    return task.measure(functools.partial(open_scorer, batches=batches), _bar)


@contextlib.contextmanager
def _bar(total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar over tokens or examples; yields its update function."""
    with tqdm(total=total, unit=unit, unit_scale=unit == "token") as bar:
        yield bar.update


COMMAND = Command(
    summary="Measure perplexity per token, word and byte, and bits per byte.",
    groups={
        "model and dataset": [
            *options_of(HeldOutOptions),
            *inputs.model_options(),
        ],
        "evaluation": [
            *options_of(PerplexitySettings),
            *evaluation_options(),
        ],
        "several machines": options_of(PartOptions),
        "how the files are read": reader_options(),
    },
    run=run,
    check=check,
    first="dataset",
)
