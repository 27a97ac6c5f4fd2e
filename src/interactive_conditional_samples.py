#!/usr/bin/env python3
"""Type the beginning of a text and let a model go on.

python src/interactive_conditional_samples.py --model_name 117M --top_k 40
"""

import sys
from collections.abc import Iterator

from fire.decorators import SetParseFns

from command_line import load_tensorflow, run_fire
from gpt2 import randomness
from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.generation.generate import check_length
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.sampling import SamplingSettings, check_count
from gpt2.workspace import Workspace


@SetParseFns(model_name=str, models_dir=str)
def interact_model(
    model_name="124M",
    seed=None,
    nsamples=1,
    batch_size=1,
    length=None,
    temperature=1,
    top_k=0,
    top_p=1,
    models_dir="models",
):
    """Interactively run the model.

    Args:
        model_name: a model under models/, a run under checkpoint/, or the path of a folder
        seed: a whole number; the same one gives the same samples (default: random)
        nsamples: samples for each prompt
        batch_size: samples generated at once; changes speed and memory, not the texts
        length: tokens in each sample (default: half of the window)
        temperature: below 1 keeps closer to likely words, above 1 strays further; 0 always takes
            the likeliest
        top_k: draw each token among the k likeliest; 0 for all
        top_p: draw each token among the likeliest that together reach this probability; 0 and 1
            for all
        models_dir: the folder that holds the models
    """
    check_count("nsamples", nsamples, least=1)
    check_count("batch_size", batch_size, least=1)
    sampling = SamplingSettings(temperature, top_k, top_p)
    seed = randomness.check_seed(seed)
    folder = ModelFolder(Workspace.find(models_dir, model_name).model_folder(model_name))
    length = folder.hparams.n_ctx // 2 if length is None else length
    check_length(length, 1, folder.hparams.n_ctx)
    sampling.check_vocabulary(folder.hparams.n_vocab)
    load_tensorflow()
    model = LanguageModel.load(folder)

    generated = 0
    for prompt in prompts():
        try:
            tokens = model.tokenizer.encode(prompt)
            samples = model.samples(tokens, nsamples, length, sampling, seed, generated, batch_size)
            for number, text in enumerate(samples, start=1):
                print("=" * 40, "SAMPLE", number, "=" * 40)
                print(text, flush=True)
            print("=" * 80)
        except UserError as error:  # this prompt does not work; the next one may
            print(error, file=sys.stderr)
        generated += nsamples


def prompts() -> Iterator[str]:
    """What is typed, until the end of the input."""
    while True:
        try:
            prompt = input("Model prompt >>> ")
        except EOFError:
            print()
            return
        if prompt:
            yield prompt
        else:
            print("Prompt should not be empty!")


if __name__ == "__main__":
    run_fire(interact_model)
