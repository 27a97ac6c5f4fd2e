"""evaluate.py bigram: a model beside a bigram model of the same tokens."""

from fire.decorators import SetParseFns

from evaluate_commands.shared import model_folder, open_scorer, token_bar
from gpt2.data.documents import Reading


@SetParseFns(model_name=str, dataset=str, held_out=str, models_dir=str, encoding=str)
def bigram(dataset, held_out, model_name="124M", models_dir="models", encoding="utf-8"):
    """Compare a model with a bigram model of the same tokens, in bits per byte of a held-out text.

    Args:
        dataset: what the bigram model counts its pairs in: file, folder or pattern, text or .npz
        held_out: text that neither has seen: file, folder or pattern
        model_name: a model under models/, a run under checkpoint/, or the path of a folder
        models_dir: the folder that holds the models
        encoding: of text files
    """
    from gpt2.evaluation.bigram import BigramModel
    from gpt2.evaluation.perplexity import bits_per_byte
    from gpt2.evaluation.texts import Vocabulary

    model = model_folder(model_name, models_dir)
    hparams, tokenizer = model.hparams, model.tokenizer()
    reading = Reading(encoding)
    vocabulary = Vocabulary(tokenizer, hparams)
    training, text = vocabulary.read(dataset, reading), vocabulary.read(held_out, reading)
    pairs = BigramModel(training.tokens, hparams.n_vocab)
    nats = {"bigram": pairs.negative_log_likelihood(text.tokens)}
    scorer = open_scorer(model)
    with token_bar(text.predicted) as progress:
        [scores] = scorer.score([text.tokens], progress=progress)
    nats[model_name] = float(scores.nats.sum(dtype="float64"))
    print(f"{held_out}: {text.size:,} bytes, {text.predicted:,} tokens")
    for name, value in nats.items():
        print(f"{bits_per_byte(value, text.size):.3f} bits per byte  {name}")
