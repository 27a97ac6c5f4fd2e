"""`plot attention`: the attention of all heads of a model for a text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.flags import Command, Values, exactly_one, options_of
from gpt2.commands.plot.shared import (
    TextOptions,
    check_index,
    check_picture,
    picture_options,
    read_tokens,
    save,
)
from gpt2.commands.signals import load_tensorflow
from gpt2.commands.terminal import shown
from gpt2.pictures import style

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class AttentionOptions:
    """Which head and which token are enlarged."""

    layer: int = setting(0, "layer of the enlarged head, from 0")
    head: int = setting(0, "enlarged head, from 0")
    token: int | None = setting(
        None, "token whose attention is shown as bars, from 1 (default: the last)"
    )


def run(values: Values) -> None:
    """Plot the attention of all heads, and write its values to a file beside the picture."""
    path, theme = check_picture(values)
    model = inputs.open_model(values)
    check_index("--layer", values.layer, 0, model.hparams.n_layer - 1)
    check_index("--head", values.head, 0, model.hparams.n_head - 1)
    tokens = read_tokens(values, model)
    first = max(0, len(tokens) - model.hparams.n_ctx)  # the text before it is left out
    token = len(tokens) if values.token is None else values.token
    check_index("--token", token, first + 1, len(tokens))
    if first:
        print(
            f"The text has {len(tokens):,} tokens, the context window {model.hparams.n_ctx:,}: "
            f"showing the last {model.hparams.n_ctx:,}."
        )
    style.load_matplotlib()
    load_tensorflow()
    from gpt2.evaluation.attention import attention
    from gpt2.pictures.attention import attention_picture

    tokens = tokens[first:]
    weights = attention(model.weights(), model.hparams, tokens)
    tokenizer = model.tokenizer()
    texts = [tokenizer.decode_bytes([token]) for token in tokens]
    figure = attention_picture(
        weights, texts, values.layer, values.head, token - 1 - first, theme, first
    )
    # NAME.npz without the picture's ending could be a dataset.
    values_path = path.with_name(f"{path.name}.npz")
    _write_values(values_path, weights, tokens, texts)
    save(figure, path, theme)
    print("Values are in", shown(values_path))


def _write_values(path: Path, weights: np.ndarray, tokens: list[int], texts: list[bytes]) -> None:
    """Write the attention weights, the token ids and the token texts as .npz."""
    import numpy as np

    labels = [text.decode("utf-8", errors="backslashreplace") for text in texts]
    with files.atomic_write(path) as file:
        np.savez_compressed(file, attention=weights, tokens=tokens, labels=labels)


COMMAND = Command(
    summary="Plot attention: all heads, one head enlarged, and the attention of one token.",
    details=(
        "The values are written to a file beside the picture, such as attention.png.npz, with the\n"
        "arrays attention (layer, head, query token, key token), tokens (ids) and labels (texts)."
    ),
    groups={
        "text and model": [*options_of(TextOptions), *inputs.model_options()],
        "picture": [*options_of(AttentionOptions), *picture_options("attention.png")],
    },
    run=run,
    check=exactly_one("text", "file"),
    first="text",
)
