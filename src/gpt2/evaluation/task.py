"""The evaluation of a model on a held-out text or a test set of the GPT-2 paper."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import check_fields, setting
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.evaluation import cloze, lambada, perplexity
from gpt2.evaluation.detokenizers import detokenizer as find_detokenizer
from gpt2.evaluation.recipes import PAPER, RECIPES, Recipe
from gpt2.evaluation.texts import TextEncoder
from gpt2.evaluation.windows import WindowSettings
from gpt2.hparams import RELEASED

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer

OpenScorer = Callable[..., "Scorer"]
Bar = Callable[[int, str], contextlib.AbstractContextManager[Callable[[int], object]]]


@dataclasses.dataclass(frozen=True)
class PerplexitySettings:
    """What is measured, and how the text is prepared."""

    recipe: str | None = setting(
        None,
        "evaluate as in the GPT-2 paper; the dataset is then the file of that test set",
        choices=tuple(RECIPES),
    )
    unit: str | None = setting(
        None,
        "unit of the perplexity (default: token)",
        choices=perplexity.UNITS,
        flag="normalize",
    )
    detokenizer: str | None = setting(
        None,
        "undo the tokenization of old test sets: none, wikitext, ptb or lambada (default: none)",
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: a value is invalid, or a recipe is given with what it decides itself.
        """
        check_fields(self)
        if self.recipe and (self.unit or self.detokenizer):
            raise UserError(
                f"recipe {self.recipe} has its own unit and detokenizer. Omit normalize and "
                "detokenizer."
            )
        find_detokenizer(self.detokenizer or "none")  # raises if there is no such detokenizer

    @property
    def chosen(self) -> Recipe:
        """The named recipe, or one made of the other settings."""
        if self.recipe:
            return RECIPES[self.recipe]
        detokenizer = self.detokenizer or "none"
        return Recipe("none", "the given flags", self.unit or "token", detokenizer=detokenizer)


@dataclasses.dataclass(frozen=True)
class Task:
    """The dataset, the recipe, and the model that is evaluated."""

    dataset: str
    recipe: Recipe
    model: ModelFolder
    window: WindowSettings
    reading: ReaderSettings

    @property
    def encoder(self) -> TextEncoder:
        """The encoder of the model."""
        return TextEncoder(self.model.tokenizer(), self.model.hparams)

    def facts(self) -> dict[str, Any]:
        """Return what is measured on what, by the names of the results."""
        return {
            "dataset": self.dataset,
            "recipe": self.recipe.name,
            "source": self.recipe.source,
            "detokenizer": self.recipe.detokenizer,
            "window": self.window.window,
            "stride": self.window.stride,
        }

    def measure(self, open_scorer: OpenScorer, bar: Bar) -> dict[str, Any]:
        """Return the metrics of the recipe by name.

        Args:
            open_scorer: loads a model into a scorer; called once everything else is checked.
            bar: shows progress; takes the number of items and their unit.

        Raises:
            UserError: the dataset cannot be read as the recipe reads it, or the model not be
                loaded.
        """
        measures = {"lambada": self._measure_lambada, "cloze": self._measure_cloze}
        return measures.get(self.recipe.measure, self._measure_text)(open_scorer, bar)

    def _measure_text(self, open_scorer: OpenScorer, bar: Bar) -> dict[str, Any]:
        """Return the perplexity and bits per byte of running text."""
        recipe, encoder = self.recipe, self.encoder
        detokenize = find_detokenizer(recipe.detokenizer)
        if recipe.read is None:
            change = recipe.change or (None if recipe.detokenizer == "none" else detokenize)
            texts = [encoder.read(self.dataset, self.reading, change, recipe.line_ends)]
        else:
            texts = [
                encoder.text([document], self.dataset, detokenize, recipe.line_ends)
                for document in recipe.read(self.dataset, self.reading)
            ]
        if not texts:
            raise UserError(f"{self.dataset} contains no text.")
        scorer = open_scorer(self.model)
        with bar(sum(text.predicted for text in texts), "token") as progress:
            found = perplexity.measure(scorer, texts, self.window, progress)
        result = {"normalize": recipe.measure} | found.numbers()
        if recipe.measure == "bits":
            return result
        return result | {"perplexity": found.per(recipe.measure)}

    def _measure_lambada(self, open_scorer: OpenScorer, bar: Bar) -> dict[str, Any]:
        """Return the accuracy and perplexity of the last words of LAMBADA's passages."""
        recipe = self.recipe
        assert recipe.read is not None
        detokenize = find_detokenizer(recipe.detokenizer)
        texts = map(detokenize, recipe.read(self.dataset, self.reading))
        passages = lambada.read_passages(texts, self.encoder, self.window.window, self.dataset)
        stop_tokens = lambada.stop_tokens(self.model.tokenizer())
        scorer = open_scorer(self.model, stop_tokens=stop_tokens)
        with bar(len(passages), "passage") as progress:
            found = lambada.measure(scorer, passages, progress)
        return dataclasses.asdict(found)

    def _measure_cloze(self, open_scorer: OpenScorer, bar: Bar) -> dict[str, Any]:
        """Return the accuracy of the answers to the Children's Book Test."""
        encoder, length = self.encoder, self.window.window
        detokenize = find_detokenizer(self.recipe.detokenizer)
        questions = list(cloze.read_questions(self.dataset, self.reading))
        scorer = open_scorer(self.model)
        with bar(len(questions), "question") as progress:
            found = cloze.measure(scorer, questions, encoder, length, detokenize, progress)
        return dataclasses.asdict(found) | {"accuracy": found.accuracy}

    def published(self) -> dict[str, Any]:
        """Return the paper's results for a model of this size, and results of others."""
        recipe, model = self.recipe, self.model
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
