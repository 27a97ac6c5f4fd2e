"""`plot probabilities`: the most probable next tokens at the last steps of a text."""

from __future__ import annotations

import dataclasses

from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.flags import Command, Values, build, exactly_one, options_of
from gpt2.commands.plot.shared import (
    TextOptions,
    check_picture,
    picture_options,
    read_tokens,
    save,
)
from gpt2.commands.signals import load_tensorflow
from gpt2.generation.sampling import SamplingSettings
from gpt2.pictures import style


@dataclasses.dataclass(frozen=True)
class ProbabilitiesOptions:
    """How much is plotted."""

    steps: int = setting(
        6, "number of panels; the last one is the token after the end of the text", low=1, high=60
    )
    likeliest: int = setting(10, "number of most probable tokens per panel", low=1)


def run(values: Values) -> None:
    """Plot the distributions of the next token at the last steps of the text."""
    path, theme = check_picture(values)
    settings = build(SamplingSettings, values)
    model = inputs.open_model(values)
    settings.check_vocabulary(model.hparams.n_vocab)
    tokens = read_tokens(values, model)
    style.load_matplotlib()
    load_tensorflow()
    from gpt2.evaluation.next_tokens import next_tokens
    from gpt2.generation.language_model import LanguageModel
    from gpt2.generation.tensorflow_engine import TensorFlowEngine
    from gpt2.pictures.probabilities import probabilities_picture

    hparams, tokenizer = model.hparams, model.tokenizer()
    language_model = LanguageModel(TensorFlowEngine(model.weights(), hparams), hparams, tokenizer)
    steps = list(next_tokens(language_model, tokens, settings, values.steps))
    rows = min(values.likeliest, hparams.n_vocab)
    figure = probabilities_picture(
        steps, lambda token: tokenizer.decode_bytes([token]), settings, theme, rows
    )
    save(figure, path, theme)
    if len(steps) <= len(tokens):
        print(f"Showing the last {len(steps)} of {len(tokens) + 1:,} steps (see --steps).")


COMMAND = Command(
    summary="Plot the most probable next tokens at the last steps of a text.",
    details="Two bars per token: its probability, and that after temperature, top_k and top_p.",
    groups={
        "text and model": [*options_of(TextOptions), *inputs.model_options()],
        "sampling": options_of(SamplingSettings, "temperature", "top_k", "top_p"),
        "picture": [*options_of(ProbabilitiesOptions), *picture_options("probabilities.png")],
    },
    run=run,
    check=exactly_one("text", "file"),
    first="text",
)
