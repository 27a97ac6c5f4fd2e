"""plot.py probabilities: what a model expects at each step through a text."""

from command_line import load_tensorflow, model_folder
from gpt2.checks import check_count
from gpt2.generation.sampling import SamplingSettings
from plot_commands.shared import check_index, check_picture, read_tokens, save

MOST_STEPS = 60  # panels in one picture


def probabilities(
    text="",
    *,
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
        model_name: a model under models/, a run under checkpoint/, or the path of a folder; RUN/model-200 for a certain checkpoint
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
    model = model_folder(model_name, models_dir)
    settings.check_vocabulary(model.hparams.n_vocab)
    tokens = read_tokens(text, file, model)
    load_tensorflow()
    from gpt2.evaluation.next_tokens import next_tokens
    from gpt2.generation.language_model import LanguageModel
    from gpt2.generation.tensorflow_engine import TensorFlowEngine
    from gpt2.pictures.probabilities import probabilities_picture

    hparams, tokenizer = model.hparams, model.tokenizer()
    language_model = LanguageModel(TensorFlowEngine(model.weights(), hparams), hparams, tokenizer)
    found = list(next_tokens(language_model, tokens, settings, steps))
    figure = probabilities_picture(
        found,
        lambda number: tokenizer.decode_bytes([number]),
        settings,
        colors,
        min(likeliest, hparams.n_vocab),
    )
    save(figure, path, colors)
    if len(found) <= len(tokens):
        print(f"Of {len(tokens) + 1:,} steps the last {len(found)} are shown.")
