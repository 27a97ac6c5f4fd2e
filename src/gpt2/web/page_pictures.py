"""The pictures of the page: the attention of a text, and the curves of a run."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable
from typing import TYPE_CHECKING

from gpt2.checkpoint.resolve import find_model, find_run
from gpt2.errors import UserError
from gpt2.pictures.style import THEMES, Theme, drawn, load_matplotlib
from gpt2.quiet import import_tensorflow
from gpt2.training.run_log import HISTORY, read_curves
from gpt2.workspace import Workspace, is_plain_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TOKENS = 48  # of a text whose attention is shown
# Gradio puts the class "dark" on the page.
STYLE = """
.picture img { width: 100%; max-width: 1300px }
.picture .for-dark, .dark .picture .for-light { display: none }
.dark .picture .for-dark { display: inline }
"""


def attention_html(name: str, models_dir: str | None, text: str, layer: int, head: int) -> str:
    """Return the attention of a text in a model, as HTML with a picture.

    Args:
        name: a model that is known to be on this machine.
        layer, head: the enlarged head, from 0.

    Raises:
        UserError: the text is empty or too long, or the model lacks the layer or the head.
    """
    load_matplotlib()
    folder = find_model(name, models_dir)
    tokenizer, hparams = folder.tokenizer(), folder.hparams
    tokens = tokenizer.encode(text)
    most = min(MOST_TOKENS, hparams.n_ctx)
    if not 0 < len(tokens) <= most:
        raise UserError(f"The text has {len(tokens):,} tokens. Use 1 to {most}.")
    for label, index, count in (("Layer", layer, hparams.n_layer), ("Head", head, hparams.n_head)):
        if not 0 <= index < count:
            raise UserError(f"{label} must be 0 to {count - 1} for {name}.")
    import_tensorflow()
    from gpt2.evaluation.attention import attention
    from gpt2.pictures.attention import attention_picture

    weights = attention(folder.weights(), hparams, tokens)
    texts = [tokenizer.decode_bytes([token]) for token in tokens]
    return _picture_html(
        lambda theme: attention_picture(weights, texts, layer, head, len(tokens) - 1, theme),
        f"Attention of all heads of {name}, with head {head} of layer {layer} enlarged",
    )


def runs_with_curves(models_dir: str | None) -> list[str]:
    """Return the names of the runs that have been trained with this toolkit."""
    histories = Workspace.find(models_dir).checkpoint.glob(f"*/{HISTORY}")
    names = {history.parent.name for history in histories}
    return sorted(filter(is_plain_name, names))


def history_stamp(runs: list[str], models_dir: str | None) -> list[tuple[str, int]]:
    """Return the sizes of the histories of runs, which change when training writes a line.

    Raises:
        UserError: there is no such run.
    """
    known = runs_with_curves(models_dir)
    for name in runs:
        if name not in known:
            raise UserError(f"There is no run {name!r} with a {HISTORY}.")
    return [(name, (find_run(name, models_dir) / HISTORY).stat().st_size) for name in runs]


def curves_html(runs: list[str], models_dir: str | None) -> str:
    """Return the curves of runs, as HTML with a picture.

    Raises:
        UserError: a run has no losses yet.
    """
    load_matplotlib()
    from gpt2.pictures.training import training_picture

    curves = {name: read_curves(find_run(name, models_dir) / HISTORY) for name in runs}
    return _picture_html(
        lambda theme: training_picture(curves, theme), f"Loss and perplexity of {', '.join(runs)}"
    )


def _picture_html(draw: Callable[[Theme], Figure], description: str) -> str:
    """Return a picture in both themes; the style sheet shows one of them."""
    images = []
    for name, theme in THEMES.items():
        content = base64.b64encode(drawn(draw(theme), "png", theme)).decode()
        images.append(
            f'<img class="for-{name}" alt="{html.escape(description)}" '
            f'src="data:image/png;base64,{content}">'
        )
    return f'<div class="picture">{"".join(images)}</div>'
