"""plot.py attention: what the heads of a model look at in a text."""

from command_line import load_tensorflow, model_folder, shown
from gpt2 import files
from plot_commands.shared import check_index, check_picture, read_tokens, save


def attention(
    text="",
    *,
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

    The weights themselves go into a file beside it, attention.png.npz: attention (layer, head,
    from, to), tokens (their ids) and labels (their texts).

    Args:
        text: the text that is looked at
        file: a file that holds it, instead
        model_name: a model under models/, a run under checkpoint/, or the path of a folder; RUN/model-200 for a certain checkpoint
        layer: of the head that is drawn large, from 0
        head: its number in the layer, from 0
        token: the one that is looked from, counted from 1 (default: the last)
        out: the picture, .png or .svg
        theme: light or dark
        models_dir: the folder that holds the models
    """
    path, colors = check_picture(out, theme)
    model = model_folder(model_name, models_dir)
    hparams, tokenizer = model.hparams, model.tokenizer()
    check_index("layer", layer, 0, hparams.n_layer - 1)
    check_index("head", head, 0, hparams.n_head - 1)
    tokens = read_tokens(text, file, model)
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
    values = path.with_name(f"{path.name}.npz")  # NAME.npz may be somebody's dataset
    with files.atomic_write(values) as npz:
        labels = [text.decode("utf-8", errors="backslashreplace") for text in texts]
        np.savez_compressed(npz, attention=weights, tokens=tokens, labels=labels)
    save(figure, path, colors)
    print("The values are in", shown(values))
