"""evaluate.py perplexity: how well a model predicts a text."""

from fire.decorators import SetParseFns

from evaluate_commands.shared import (
    check_json,
    model_folder,
    open_scorer,
    show_table,
    token_bar,
    write_json,
)
from gpt2.data.documents import Reading
from gpt2.evaluation.windows import Cut


@SetParseFns(model_name=str, dataset=str, models_dir=str, encoding=str, json=str)
def perplexity(
    dataset,
    model_name="124M",
    window=None,
    stride=None,
    json="",
    models_dir="models",
    encoding="utf-8",
):
    """Measure the perplexity of a text, per token, word and byte.

    Args:
        dataset: file, folder or pattern, text or .npz
        model_name: a model under models/, a run under checkpoint/, or the path of a folder
        window: tokens that the model looks back at, at most (default: all that it can)
        stride: tokens from one window to the next; a shorter one gives better numbers and takes longer (default: the window)
        json: a file for the result
        models_dir: the folder that holds the models
        encoding: of text files
    """
    from gpt2.evaluation.perplexity import Perplexity
    from gpt2.evaluation.texts import read_text

    check_json(json)
    model = model_folder(model_name, models_dir)
    cut = Cut.of(model.hparams.n_ctx, window, stride)
    text = read_text(dataset, model.tokenizer(), model.hparams.n_vocab, Reading(encoding))
    scorer = open_scorer(model)
    with token_bar(text.predicted) as progress:
        [scores] = scorer.score([text.tokens], cut, progress)
    found = Perplexity.of(float(scores.nats.sum(dtype="float64")), text)
    result = {
        "model": model_name,
        "dataset": dataset,
        "window": cut.window,
        "stride": cut.stride,
        "tokens": found.tokens,
        "nll": found.nll,
        "perplexity_per_token": found.per_token,
        "perplexity_per_word": found.per_word,
        "bits_per_byte": found.bits_per_byte,
    }
    show_table(["measure", "value"], [[name, value] for name, value in result.items()])
    write_json(json, result)
