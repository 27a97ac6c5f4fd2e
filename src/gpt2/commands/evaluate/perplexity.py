"""`evaluate perplexity`: how well a model predicts a held-out text."""

from __future__ import annotations

import dataclasses
from typing import Any

from tqdm import tqdm

from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import setting
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
from gpt2.commands.terminal import print_values, token_bar
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.evaluation import cloze, lambada
from gpt2.evaluation import perplexity as perplexities
from gpt2.evaluation.batch_parts import Batches, all_batches
from gpt2.evaluation.detokenizers import detokenizer as find_detokenizer
from gpt2.evaluation.recipes import PAPER, RECIPES, Recipe
from gpt2.evaluation.texts import TextEncoder
from gpt2.evaluation.windows import WindowSettings
from gpt2.hparams import RELEASED


@dataclasses.dataclass(frozen=True)
class PerplexityOptions:
    """What perplexity takes besides the model, the text, the window and the reader's settings."""

    recipe: str | None = setting(
        None,
        "evaluate as in the GPT-2 paper; the dataset is then the file of that test set",
        choices=tuple(RECIPES),
    )
    unit: str | None = setting(
        None,
        "unit of the perplexity (default: token)",
        choices=perplexities.UNITS,
        flag="normalize",
    )
    detokenizer: str | None = setting(
        None,
        "undo the tokenization of old test sets: none, wikitext, ptb or lambada (default: none)",
        metavar="NAME",
    )


@dataclasses.dataclass(frozen=True)
class Task:
    """The dataset, the recipe, and the model that is evaluated."""

    dataset: str
    recipe: Recipe
    model: ModelFolder
    window: WindowSettings
    reading: ReaderSettings
    batches: Batches = all_batches

    @property
    def encoder(self) -> TextEncoder:
        """The encoder of the model."""
        return TextEncoder(self.model.tokenizer(), self.model.hparams)


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
    recipe = _recipe(values)
    check_output(values)
    reading = build(ReaderSettings, values)
    model = inputs.open_model(values)
    window = window_of(values, model)
    text: dict[str, object] = {}
    if values.shard or values.merge:
        text = {"recipe": recipe.name, "detokenizer": recipe.detokenizer}
        text |= file_facts(values.dataset)
    with batches_of(values, model, window, text) as batches:
        measured = measure(Task(values.dataset, recipe, model, window, reading, batches))
    if values.shard:
        return
    result = {
        "model": values.model_name,
        "dataset": values.dataset,
        "recipe": recipe.name,
        "source": recipe.source,
        "detokenizer": recipe.detokenizer,
        "window": window.window,
        "stride": window.stride,
        **measured,
        **_published(recipe, model),
    }
    unit = f"perplexity_per_{recipe.measure}"  # on the screen, "perplexity" says the same
    print_values({name: value for name, value in result.items() if name != unit})
    write_output(values, result)


def measure(task: Task) -> dict[str, Any]:
    """Return the metrics of the task's recipe by name, showing a progress bar.

    Raises:
        UserError: the dataset cannot be read as the recipe reads it, or the model not be loaded.
    """
    measures = {"lambada": _measure_lambada, "cloze": _measure_cloze}
    return measures.get(task.recipe.measure, _measure_text)(task)


def _recipe(values: Values) -> Recipe:
    """Return the named recipe, or one made of the flags."""
    if values.recipe:
        return RECIPES[values.recipe]
    detokenizer = values.detokenizer or "none"
    find_detokenizer(detokenizer)  # raises if there is no such detokenizer
    return Recipe("none", "the given flags", values.unit or "token", detokenizer=detokenizer)


def _measure_text(task: Task) -> dict[str, Any]:
    """Return the perplexity and bits per byte of running text."""
    recipe, encoder = task.recipe, task.encoder
    detokenize = find_detokenizer(recipe.detokenizer)
    if recipe.read is None:
        change = recipe.change or (None if recipe.detokenizer == "none" else detokenize)
        texts = [encoder.read(task.dataset, task.reading, change, recipe.line_ends)]
    else:
        texts = [
            encoder.text([document], task.dataset, detokenize, recipe.line_ends)
            for document in recipe.read(task.dataset, task.reading)
        ]
    if not texts:
        raise UserError(f"{task.dataset} contains no text.")
    scorer = open_scorer(task.model, task.batches)
    with token_bar(sum(text.predicted for text in texts)) as progress:
        found = perplexities.measure(scorer, texts, task.window, progress)
    result = {"normalize": recipe.measure} | found.numbers()
    if recipe.measure == "bits":
        return result
    return result | {"perplexity": found.per(recipe.measure)}


def _measure_lambada(task: Task) -> dict[str, Any]:
    """Return the accuracy and perplexity of the last words of LAMBADA's passages."""
    recipe = task.recipe
    assert recipe.read is not None
    detokenize = find_detokenizer(recipe.detokenizer)
    texts = map(detokenize, recipe.read(task.dataset, task.reading))
    passages = lambada.read_passages(texts, task.encoder, task.window.window, task.dataset)
    stop_tokens = lambada.stop_tokens(task.model.tokenizer())
    scorer = open_scorer(task.model, task.batches, stop_tokens=stop_tokens)
    with tqdm(total=len(passages), unit="passage") as bar:
        found = lambada.measure(scorer, passages, bar.update)
    return dataclasses.asdict(found)


def _measure_cloze(task: Task) -> dict[str, Any]:
    """Return the accuracy of the answers to the Children's Book Test."""
    encoder, length = task.encoder, task.window.window
    detokenize = find_detokenizer(task.recipe.detokenizer)
    questions = list(cloze.read_questions(task.dataset, task.reading))
    scorer = open_scorer(task.model, task.batches)
    with tqdm(total=len(questions), unit="question") as bar:
        found = cloze.measure(scorer, questions, encoder, length, detokenize, bar.update)
    return dataclasses.asdict(found) | {"accuracy": found.accuracy}


def _published(recipe: Recipe, model: ModelFolder) -> dict[str, Any]:
    """Return the paper's results for a model of this size, and results of others."""
    size = RELEASED.get((model.hparams.n_layer, model.hparams.n_embd))
    found: dict[str, Any] = {}
    if size in recipe.published or size in recipe.accuracies:
        found["published_for"] = f"{size}, by {PAPER}"
    if size in recipe.published:
        found["published"] = recipe.published[size]
    if size in recipe.accuracies:
        found["published_accuracy"] = recipe.accuracies[size] / 100
    if recipe.others:
        found["measured_by_others"] = recipe.others
    return found


COMMAND = Command(
    summary="Measure perplexity per token, word and byte, and bits per byte.",
    groups={
        "model and dataset": [
            *options_of(HeldOutOptions),
            *inputs.model_options(),
        ],
        "evaluation": [
            *options_of(PerplexityOptions),
            *evaluation_options(),
        ],
        "several machines": options_of(PartOptions),
        "how the files are read": reader_options(),
    },
    run=run,
    check=check,
    first="dataset",
)
