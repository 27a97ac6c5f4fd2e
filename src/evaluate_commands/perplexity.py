"""evaluate.py perplexity: how well a model predicts a text, by a recipe that is always told."""

from __future__ import annotations

import dataclasses

from tqdm import tqdm

from command_line import model_folder
from evaluate_commands.shared import (
    check_json,
    open_scorer,
    show_values,
    token_bar,
    with_reading_flags,
    write_json,
)
from gpt2.checkpoint.folder import ModelFolder
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.evaluation import cloze, lambada
from gpt2.evaluation import perplexity as perplexities
from gpt2.evaluation.detokenizers import detokenizer as find_detokenizer
from gpt2.evaluation.recipes import PAPER, Recipe, recipe_named
from gpt2.evaluation.texts import TextEncoder
from gpt2.evaluation.windows import WindowSettings
from gpt2.hparams import RELEASED


@with_reading_flags
def perplexity(
    dataset,
    model_name="124M",
    recipe="",
    window=None,
    stride=None,
    normalize="",
    detokenizer="",
    json="",
    models_dir="models",
    *,
    reading,
):
    """Measure how well a model predicts a text: perplexity per token, word and byte, bits per byte.

    Args:
        dataset: file, folder or pattern, text or .npz
        model_name: a model under models/, a run under checkpoint/, or the path of a folder
        recipe: a way of the GPT-2 paper: wikitext2, wikitext103, ptb, lambada, enwik8, text8, 1bw, cbt-cn or cbt-ne; the dataset is then the file of that test set
        window: tokens that the model looks back at, at most (default: all that it can)
        stride: tokens from one window to the next; a shorter one gives better numbers and takes longer (default: the window)
        normalize: what the perplexity is of: token, word or byte (default: token)
        detokenizer: what is done to the text first: none, wikitext, ptb or lambada (default: none)
        json: a file for the result
        models_dir: the folder that holds the models
    """
    if recipe:
        if normalize or detokenizer:
            raise UserError(
                f"The recipe {recipe} has a normalizer and a detokenizer of its own; leave out "
                "--normalize and --detokenizer, or --recipe."
            )
        chosen = recipe_named(recipe)
    else:
        unit = perplexities.check_unit(normalize or "token")
        chosen = Recipe("none", "the flags given", unit, detokenizer=detokenizer or "none")
    find_detokenizer(chosen.detokenizer)
    check_json(json)
    model = model_folder(model_name, models_dir)
    cut = WindowSettings.of(model.hparams.n_ctx, window, stride)
    facts = {
        "model": model_name,
        "dataset": dataset,
        "recipe": chosen.name,
        "source": chosen.source,
        "detokenizer": chosen.detokenizer,
        "window": cut.window,
        "stride": cut.stride,
    }
    ways = {"lambada": last_words, "cloze": choices}
    found = ways.get(chosen.measure, whole_texts)(chosen, model, dataset, cut, reading)
    result = facts | found | beside(chosen, model)
    show_values(result)
    write_json(json, result)


def whole_texts(
    recipe: Recipe, model: ModelFolder, dataset: str, cut: WindowSettings, reading: ReaderSettings
) -> dict[str, object]:
    """The measures of running text."""
    vocabulary = TextEncoder(model.tokenizer(), model.hparams)
    detokenize = find_detokenizer(recipe.detokenizer)
    if recipe.read is None:
        changed = recipe.change or (None if recipe.detokenizer == "none" else detokenize)
        texts = [vocabulary.read(dataset, reading, changed, recipe.line_ends)]
    else:
        texts = [
            vocabulary.text([document], dataset, detokenize, recipe.line_ends)
            for document in recipe.read(dataset, reading)
        ]
    if not texts:
        raise UserError(f"{dataset} holds no text.")
    scorer = open_scorer(model)
    with token_bar(sum(text.predicted for text in texts)) as progress:
        found = perplexities.measure(scorer, texts, cut, progress)
    result = {"normalize": recipe.measure} | found.numbers()
    if recipe.measure == "bits":
        return result
    return result | {"perplexity": found.per(recipe.measure)}


def last_words(
    recipe: Recipe, model: ModelFolder, dataset: str, cut: WindowSettings, reading: ReaderSettings
) -> dict[str, object]:
    """The measures of LAMBADA."""
    tokenizer = model.tokenizer()
    vocabulary = TextEncoder(tokenizer, model.hparams)
    texts = map(find_detokenizer(recipe.detokenizer), recipe.read(dataset, reading))
    passages = lambada.read_passages(texts, vocabulary, cut.window, dataset)
    scorer = open_scorer(model, stop_tokens=lambada.stop_tokens(tokenizer))
    with tqdm(total=len(passages), unit="passage") as bar:
        found = lambada.measure(scorer, passages, bar.update)
    return dataclasses.asdict(found)


def choices(
    recipe: Recipe, model: ModelFolder, dataset: str, cut: WindowSettings, reading: ReaderSettings
) -> dict[str, object]:
    """The measures of the Children's Book Test."""
    vocabulary = TextEncoder(model.tokenizer(), model.hparams)
    detokenize = find_detokenizer(recipe.detokenizer)
    questions = list(cloze.read_questions(dataset, reading))
    scorer = open_scorer(model)
    with tqdm(total=len(questions), unit="question") as bar:
        found = cloze.measure(scorer, questions, vocabulary, cut.window, detokenize, bar.update)
    return dataclasses.asdict(found) | {"accuracy": found.accuracy}


def beside(recipe: Recipe, model: ModelFolder) -> dict[str, object]:
    """The paper's values for a model of this size, and what others have measured."""
    size = RELEASED.get((model.hparams.n_layer, model.hparams.n_embd))
    found: dict[str, object] = {}
    if size in recipe.published or size in recipe.accuracies:
        found["published_for"] = f"{size}, by {PAPER}"
    if size in recipe.published:
        found["published"] = recipe.published[size]
    if size in recipe.accuracies:
        found["published_accuracy"] = recipe.accuracies[size] / 100
    if recipe.others:
        found["measured_by_others"] = recipe.others
    return found
