"""`gpt2.evaluate`: how well a model predicts a held-out text."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpt2.api.options import check_switch, optional_text_of, options_of, text_of, with_defaults
from gpt2.api.progress import Progress
from gpt2.api.results import Result
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.resolve import find_model
from gpt2.checks import settings_from
from gpt2.data.readers import ReaderSettings
from gpt2.errors import escaped
from gpt2.evaluation.task import PerplexitySettings, Task
from gpt2.evaluation.windows import WindowSettings
from gpt2.quiet import import_tensorflow

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scorer

OPTIONS = options_of(PerplexitySettings, ReaderSettings, without=("normalize",))


@dataclasses.dataclass(frozen=True, repr=False)
class EvaluationResult(Result):
    """The figures of an evaluation.

    Attributes:
        model: the model.
        dataset: the text.
        figures: metrics by name, such as `perplexity` and `bits_per_byte`; the names are those of
            `evaluate perplexity --json`.
    """

    title = "Evaluation"

    model: str
    dataset: str
    figures: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        """Return a figure by its name."""
        return self.figures[name]

    def _facts(self) -> dict[str, str]:
        named = {name.replace("_", " "): _in_short(value) for name, value in self.figures.items()}
        return {"model": escaped(self.model), "dataset": escaped(self.dataset), **named}


def evaluate(
    model_name: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    *,
    models_dir: str | os.PathLike[str] | None = None,
    window: int | None = None,
    stride: int | None = None,
    progress: bool = True,
    **options: Any,
) -> EvaluationResult:
    """Measure perplexity and bits per byte of a model on held-out text.

    Args:
        model_name: a model, a run or one of its checkpoints, as for `gpt2.load`.
        dataset: file, folder, or glob pattern; text or `.npz`.
        models_dir: folder of the models (default: `models`).
        window: context in tokens, 1 to n_ctx; None for n_ctx.
        stride: tokens from one window to the next, 1 to `window`; None for `window`.
        progress: whether to show a progress bar and notices.
        options: fields of `PerplexitySettings` (`unit`, `recipe`, `detokenizer`) and of
            `ReaderSettings`.

    Raises:
        UserError: an argument is wrong, or the model or the text cannot be read.

    Example:
        >>> gpt2.evaluate("run1/best", "held_out.txt")["perplexity"]
    """
    check_switch("progress", progress)
    values = with_defaults(options, OPTIONS)
    recipe = settings_from(PerplexitySettings, values).chosen
    reading = settings_from(ReaderSettings, values)
    name, text = text_of("model_name", model_name), text_of("dataset", dataset)
    shows = Progress(progress)
    model = find_model(name, optional_text_of("models_dir", models_dir), shows.notice)
    task = Task(
        text, recipe, model, WindowSettings.of(model.hparams.n_ctx, window, stride), reading
    )
    measured = task.measure(_open_scorer, shows.counter)
    return EvaluationResult(name, text, {**measured, **task.published()})


def _open_scorer(model: ModelFolder, **options: Any) -> Scorer:
    import_tensorflow()
    from gpt2.evaluation.scoring import Scorer

    return Scorer(model.weights(), model.hparams, **options)


def _in_short(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escaped(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
