"""evaluate.py bigram: a model beside bigram models of the same tokens."""

from __future__ import annotations

import numpy as np

from command_line import byte_bar, model_folder, not_empty
from evaluate_commands.shared import (
    check_json,
    open_scorer,
    token_bar,
    with_reading_flags,
    write_json,
)
from gpt2 import randomness
from gpt2.checks import check_count
from gpt2.data import tokenization
from gpt2.evaluation.bigram import AddK, Counts, Interpolated
from gpt2.evaluation.perplexity import bits_per_byte
from gpt2.evaluation.texts import TextEncoder


@with_reading_flags
def bigram(
    dataset,
    held_out,
    model_name="124M",
    length=60,
    seed=None,
    json="",
    models_dir="models",
    *,
    reading,
):
    """Compare a model with bigram models of the same tokens, in bits per byte of a held-out text.

    A sample of each is shown, drawn as the probabilities are.

    Args:
        dataset: what the bigram models count their pairs in: file, folder or pattern, text or .npz
        held_out: text that none has seen: file, folder or pattern
        model_name: a model under models/, a run under checkpoint/, or the path of a folder
        length: tokens in each sample; 0 for none
        seed: a whole number; the same one gives the same samples (default: random)
        json: a file for the result
        models_dir: the folder that holds the models
    """
    check_count("length", length, least=0)
    seed = randomness.check_seed(seed)
    check_json(json)
    model = model_folder(model_name, models_dir)
    hparams, tokenizer = model.hparams, model.tokenizer()
    files = tokenization.find_files(dataset)  # before a long text is read
    text = TextEncoder(tokenizer, hparams).read(held_out, reading)
    with byte_bar(files) as progress:
        chunks = tokenization.read_chunks(
            files, tokenizer, hparams.n_vocab, reading=reading, progress=progress
        )
        chunks = not_empty(chunks, f"{dataset} holds no text.")
        # A document begins after the mark, the first one too.
        mark = tokenizer.endoftext
        start = [] if mark is None else [np.array([mark])]
        counts = Counts((chunk for part in (start, chunks) for chunk in part), hparams.n_vocab)
    pairs = {"bigram, interpolated": Interpolated(counts), "bigram, add-k": AddK(counts)}
    nats = {name: each.negative_log_likelihood(text.tokens) for name, each in pairs.items()}
    scorer = open_scorer(model)
    with token_bar(text.predicted) as progress:
        [scores] = scorer.score([text.tokens], progress=progress)
    nats[model_name] = float(scores.nats.sum(dtype="float64"))
    k = pairs["bigram, add-k"].k
    print(f"{held_out}: {text.size:,} bytes, {text.predicted:,} tokens")
    for name, value in nats.items():
        note = f" (k = {k:.1e})" if name.endswith("add-k") else ""
        print(f"{bits_per_byte(value, text.size):.3f} bits per byte  {name}{note}")
    samples: dict[str, str] = {}
    if length:
        from gpt2.generation.language_model import LanguageModel
        from gpt2.generation.tensorflow_engine import TensorFlowEngine

        writer = LanguageModel(TensorFlowEngine(model.weights(), hparams), hparams, tokenizer)
        for name, each in pairs.items():
            random = np.random.default_rng(seed)
            tokens = each.sample(writer.start_token, length, random, end=tokenizer.endoftext)
            samples[name] = tokenizer.decode(tokens)
        [sample] = writer.generate(length=length, seed=seed)
        samples[model_name] = sample.text
        for name, sample in samples.items():
            print(f"\n======== a sample of {name} ========\n{sample}")
    result = {
        "dataset": dataset,
        "held_out": held_out,
        "bytes": text.size,
        "tokens": text.predicted,
        "k": k,
        "seed": seed,
        "models": [
            {
                "model": name,
                "nll": value,
                "bits_per_byte": bits_per_byte(value, text.size),
                "sample": samples.get(name),
            }
            for name, value in nats.items()
        ],
    }
    write_json(json, result)
