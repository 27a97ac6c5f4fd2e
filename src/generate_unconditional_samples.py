#!/usr/bin/env python3
"""Let a model write from nothing.

python src/generate_unconditional_samples.py --model_name 117M --nsamples 3
"""

from fire.decorators import SetParseFns

from command_line import load_tensorflow, run_fire
from gpt2 import randomness
from gpt2.checkpoint.folder import ModelFolder
from gpt2.generation.generate import check_length
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.sampling import SamplingSettings, check_count
from gpt2.workspace import Workspace


@SetParseFns(model_name=str, models_dir=str)
def sample_model(
    model_name="124M",
    seed=None,
    nsamples=0,
    batch_size=1,
    length=None,
    temperature=1,
    top_k=0,
    top_p=1,
    models_dir="models",
):
    """Generate samples without a prompt.

    Args:
        model_name: a model under models/, a run under checkpoint/, or the path of a folder
        seed: a whole number; the same one gives the same samples (default: random)
        nsamples: samples to generate; 0 goes on until Ctrl+C
        batch_size: samples generated at once; changes speed and memory, not the texts
        length: tokens in each sample (default: the window)
        temperature: below 1 keeps closer to likely words, above 1 strays further; 0 always takes
            the likeliest
        top_k: draw each token among the k likeliest; 0 for all
        top_p: draw each token among the likeliest that together reach this probability; 0 and 1
            for all
        models_dir: the folder that holds the models
    """
    check_count("nsamples", nsamples, least=0)
    check_count("batch_size", batch_size, least=1)
    sampling = SamplingSettings(temperature, top_k, top_p)
    seed = randomness.check_seed(seed)
    folder = ModelFolder(Workspace.find(models_dir, model_name).model_folder(model_name))
    length = folder.hparams.n_ctx if length is None else length
    check_length(length, 1, folder.hparams.n_ctx)
    sampling.check_vocabulary(folder.hparams.n_vocab)
    load_tensorflow()
    model = LanguageModel.load(folder)

    samples = model.samples(
        [model.start], nsamples or None, length, sampling, seed, batch_size=batch_size
    )
    for number, text in enumerate(samples, start=1):
        print("=" * 40, "SAMPLE", number, "=" * 40)
        print(text, flush=True)


if __name__ == "__main__":
    run_fire(sample_model)
