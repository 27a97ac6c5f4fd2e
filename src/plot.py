#!/usr/bin/env python3
"""Draw how a run went and what a model does with a text.

python src/plot.py training --run run1
"""

from pathlib import Path
from typing import TYPE_CHECKING

from fire.decorators import SetParseFns

from command_line import load_tensorflow, run_fire, shown
from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.generation.sampling import SamplingSettings, check_count
from gpt2.hparams import HParams
from gpt2.pictures import style
from gpt2.pictures.style import Theme
from gpt2.tokenizer import Tokenizer
from gpt2.training.history import HISTORY, read_curves
from gpt2.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_STEPS = 60  # panels of next-token probabilities in one picture


@SetParseFns(run=str, out=str, theme=str, models_dir=str)
def training(run="run1", out="training.png", theme="light", models_dir="models"):
    """Draw loss, validation loss and perplexity over the steps of one run or several.

    Args:
        run: names of runs under checkpoint/, or paths of their folders, separated by commas
        out: the picture, .png or .svg
        theme: light or dark
        models_dir: the folder that holds the models
    """
    path, colors = check_picture(out, theme)
    workspace = Workspace.find(models_dir)
    runs = {name: read_curves(run_folder(workspace, name) / HISTORY) for name in names(run)}
    from gpt2.pictures.training import training_picture

    save(training_picture(runs, colors), path, colors)


@SetParseFns(model_name=str, text=str, file=str, out=str, theme=str, models_dir=str)
def attention(
    text="",
    file="",
    model_name="124M",
    layer=0,
    head=0,
    token=None,
    out="attention.png",
    theme="light",
    models_dir="models",
):
    """Draw what the heads look at: all of them small, one large, and one token's view.

    The weights themselves go into a file of the same name that ends in .npz: attention (layer,
    head, from, to), tokens (their ids) and labels (their texts).

    Args:
        text: the text that is looked at
        file: a file that holds it, instead
        model_name: a model under models/, a run under checkpoint/, or the path of a folder
        layer: of the head that is drawn large, from 0
        head: its number in the layer, from 0
        token: the one that is looked from, counted from 1 (default: the last)
        out: the picture, .png or .svg
        theme: light or dark
        models_dir: the folder that holds the models
    """
    path, colors = check_picture(out, theme)
    model = model_folder(models_dir, model_name)
    hparams, tokenizer = model.hparams, model.tokenizer()
    check_index("layer", layer, 0, hparams.n_layer - 1)
    check_index("head", head, 0, hparams.n_head - 1)
    tokens = read_tokens(text, file, tokenizer, hparams)
    token = len(tokens) if token is None else token
    check_index("token", token, 1, len(tokens))
    first = max(0, len(tokens) - hparams.n_ctx)
    if first:
        print(
            f"The text has {len(tokens):,} tokens and the model looks at {hparams.n_ctx:,}: "
            f"the last {hparams.n_ctx:,} are shown."
        )
        check_index("token", token, first + 1, len(tokens))
    load_tensorflow()
    import numpy as np

    from gpt2.evaluation.attention import attention as attention_of
    from gpt2.pictures.attention import attention_picture

    tokens = tokens[first:]
    weights = attention_of(model.weights(), hparams, tokens)
    texts = [tokenizer.decode_bytes([number]) for number in tokens]
    figure = attention_picture(weights, texts, layer, head, token - 1 - first, colors, first)
    values = path.with_suffix(".npz")
    with files.written(values) as npz:
        labels = [text.decode("utf-8", errors="backslashreplace") for text in texts]
        np.savez_compressed(npz, attention=weights, tokens=tokens, labels=labels)
    save(figure, path, colors)
    print("The values are in", shown(values))


@SetParseFns(model_name=str, text=str, file=str, out=str, theme=str, models_dir=str)
def probabilities(
    text="",
    file="",
    model_name="124M",
    temperature=1.0,
    top_k=0,
    top_p=0.0,
    steps=6,
    likeliest=10,
    out="probabilities.png",
    theme="light",
    models_dir="models",
):
    """Draw the likeliest next tokens at the last steps of a text, before and after sampling rules.

    Args:
        text: the text that is gone through
        file: a file that holds it, instead
        model_name: a model under models/, a run under checkpoint/, or the path of a folder
        temperature: below 1 keeps closer to likely words, above 1 strays; 0 takes the likeliest
        top_k: draw among the k likeliest; 0 for all
        top_p: draw among the likeliest that together reach this probability; 0 and 1 for all
        steps: how many to draw, the last one going on from the end of the text
        likeliest: tokens in each panel
        out: the picture, .png or .svg
        theme: light or dark
        models_dir: the folder that holds the models
    """
    path, colors = check_picture(out, theme)
    settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p)
    check_index("steps", steps, 1, MOST_STEPS)
    check_count("likeliest", likeliest, least=1)
    model = model_folder(models_dir, model_name)
    settings.check_vocabulary(model.hparams.n_vocab)
    tokens = read_tokens(text, file, model.tokenizer(), model.hparams)
    load_tensorflow()
    from gpt2.evaluation.next_tokens import next_tokens
    from gpt2.generation.engines import open_model
    from gpt2.pictures.probabilities import probabilities_picture

    language_model = open_model(model.path, "tensorflow")
    found = list(next_tokens(language_model, tokens, settings, steps))
    rules = f"temperature {temperature:g}, top_k {top_k}, top_p {top_p:g}"
    decode = language_model.tokenizer.decode_bytes
    figure = probabilities_picture(
        found, lambda number: decode([number]), rules, colors, min(likeliest, model.hparams.n_vocab)
    )
    save(figure, path, colors)
    if len(found) <= len(tokens):
        print(f"Of {len(tokens) + 1:,} steps the last {len(found)} are shown.")


def check_picture(out: str, theme: str) -> tuple[Path, Theme]:
    """The path and the colours of a picture, if it can be drawn."""
    path = style.check_ending(Path(out))
    colors = style.theme_named(theme)
    style.load_matplotlib()
    return path, colors


def check_index(name: str, value: object, least: int, most: int) -> None:
    """Hold a number of something against what there is.

    Raises:
        UserError: there is no such one.
    """
    if type(value) is not int or not least <= value <= most:
        raise UserError(f"{name} should be a whole number from {least} to {most}, not {value!r}.")


def save(figure: "Figure", path: Path, colors: Theme) -> None:
    """Write a picture and say where."""
    style.save(figure, path, colors)
    print("Wrote", shown(path))


def names(listed: str) -> list[str]:
    """The names in a list with commas, each once."""
    found = list(dict.fromkeys(filter(None, (name.strip() for name in listed.split(",")))))
    if not found:
        raise UserError("--run should name a run, or several: run1,run2")
    return found


def run_folder(workspace: Workspace, name: str) -> Path:
    """The folder of a run, by its name or its path."""
    for folder in (workspace.checkpoint / name, Path(name)):
        if folder.is_dir():
            return folder
    raise UserError(f"There is no run {name!r} in {workspace.checkpoint}; see what is there.")


def model_folder(models_dir: str, model_name: str) -> ModelFolder:
    """The folder of a model."""
    return ModelFolder(Workspace.find(models_dir, model_name).model_folder(model_name))


def read_tokens(text: str, file: str, tokenizer: Tokenizer, hparams: HParams) -> list[int]:
    """The tokens of a text on the command line or in a file."""
    if bool(text) == bool(file):
        raise UserError("Give a text with --text 'WORDS' or with --file FILE, one of the two.")
    tokens = tokenizer.encode(files.read_text(Path(file)) if file else text)
    if not tokens:
        raise UserError(f"{file} holds no text.")
    if max(tokens) >= hparams.n_vocab:
        raise UserError(
            f"The text has the token {max(tokens)}, but the model knows {hparams.n_vocab} tokens; "
            "vocabulary and weights are of two models."
        )
    return tokens


if __name__ == "__main__":
    run_fire({"training": training, "attention": attention, "probabilities": probabilities})
