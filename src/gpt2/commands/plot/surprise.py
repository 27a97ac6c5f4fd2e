"""`plot surprise`: a text whose tokens are shaded by surprisal."""

from __future__ import annotations

from gpt2.commands import inputs
from gpt2.commands.flags import Command, Values, exactly_one, options_of
from gpt2.commands.plot.shared import (
    TextOptions,
    check_picture,
    picture_options,
    read_tokens,
    save,
)
from gpt2.commands.signals import load_tensorflow
from gpt2.pictures import style


def run(values: Values) -> None:
    """Plot the surprisal of the first tokens of the text."""
    path, theme = check_picture(values)
    model = inputs.open_model(values)
    tokens = read_tokens(values, model)
    style.load_matplotlib()
    from gpt2.pictures.surprisal import MOST, surprisal_picture

    first = tokens[:MOST]
    if len(first) < len(tokens):
        print(f"Showing the first {MOST:,} of {len(tokens):,} tokens.")
    load_tensorflow()
    from gpt2.evaluation.surprisal import surprisal

    tokenizer = model.tokenizer()
    nats = surprisal(model.weights(), model.hparams, first, tokenizer.endoftext)
    texts = [tokenizer.decode_bytes([token]) for token in first]
    save(surprisal_picture(texts, nats, len(tokens), theme), path, theme)


COMMAND = Command(
    summary="Plot a text with tokens shaded by surprisal (negative log-probability).",
    groups={
        "text and model": [*options_of(TextOptions), *inputs.model_options()],
        "picture": picture_options("surprise.png"),
    },
    run=run,
    check=exactly_one("text", "file"),
    first="text",
)
