"""plot.py surprise: a text coloured by how little the model expected each token."""

from command_line import load_tensorflow, model_folder
from plot_commands.shared import check_picture, read_tokens, save


def surprise(
    text="",
    *,
    file="",
    model_name="124M",
    out="surprise.png",
    theme="light",
    models_dir="models",
):
    """Draw a text, each token on a ground the stronger the less the model expected it.

    Args:
        text: the text
        file: a file that holds it, instead
        model_name: a model under models/, a run under checkpoint/, or the path of a folder; RUN/model-200 for a certain checkpoint
        out: the picture, .png or .svg
        theme: light or dark
        models_dir: the folder that holds the models
    """
    path, colors = check_picture(out, theme)
    model = model_folder(model_name, models_dir)
    tokens = read_tokens(text, file, model)
    from gpt2.pictures.surprisal import MOST, surprisal_picture

    shown = tokens[:MOST]
    if len(shown) < len(tokens):
        print(f"The text has {len(tokens):,} tokens: the first {MOST:,} are shown.")
    load_tensorflow()
    from gpt2.evaluation.surprisal import surprisal

    tokenizer = model.tokenizer()
    nats = surprisal(model.weights(), model.hparams, shown, tokenizer.endoftext)
    texts = [tokenizer.decode_bytes([token]) for token in shown]
    save(surprisal_picture(texts, nats, len(tokens), colors), path, colors)
