"""`evaluate bigram`: a model compared with bigram models of its training set."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from gpt2 import randomness
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.evaluate.shared import (
    OutputOptions,
    check_output,
    open_scorer,
    reader_options,
    write_output,
)
from gpt2.commands.flags import Command, Values, build, options_of
from gpt2.commands.terminal import byte_bar, token_bar
from gpt2.data import tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.evaluation.bigram import AddK, BigramModel, Counts, Interpolated
from gpt2.evaluation.perplexity import bits_per_byte
from gpt2.evaluation.texts import ScoredText, TextEncoder
from gpt2.generation.completions import GenerationSettings


@dataclasses.dataclass(frozen=True)
class BigramOptions:
    """What bigram takes besides the model and the reader's settings."""

    dataset: str = setting(
        help="training set of the bigram models: file, folder, or glob pattern; text or .npz",
        metavar="PATH",
    )
    held_out: str = setting(
        help="held-out text: file, folder, or glob pattern; text or .npz", metavar="PATH"
    )
    length: int = setting(60, "tokens of the sample of each model; 0 for no samples", low=0)


def run(values: Values) -> None:
    """Measure bits per byte, sample from each model, print both and write them to --json."""
    check_output(values)
    seed = randomness.check_seed(values.seed)
    reading = build(ReaderSettings, values)
    model = inputs.open_model(values)
    files = tokenization.find_files(values.dataset)  # before a long held-out text is read
    encoder = TextEncoder(model.tokenizer(), model.hparams)
    held_out = encoder.read(values.held_out, reading)
    counts = _count(values.dataset, files, model, reading)
    add_k = AddK(counts)
    bigrams = {"bigram, interpolated": Interpolated(counts), "bigram, add-k": add_k}
    nats = {name: each.negative_log_likelihood(held_out.tokens) for name, each in bigrams.items()}
    nats[values.model_name] = _score(model, held_out)
    bits = {name: bits_per_byte(value, held_out.size) for name, value in nats.items()}
    _print_bits(values.held_out, held_out, bits, add_k.k)
    samples = _sample(values, bigrams, model, seed) if values.length else {}
    for name, sample in samples.items():
        print(f"\n======== a sample of {name} ========\n{sample}")
    models = [
        {
            "model": name,
            "nll": nats[name],
            "bits_per_byte": bits[name],
            "sample": samples.get(name),
        }
        for name in nats
    ]
    described = {"dataset": values.dataset, "held_out": values.held_out, "bytes": held_out.size}
    described |= {"tokens": held_out.predicted, "k": add_k.k, "seed": seed}
    write_output(values, described | {"models": models})


def _count(dataset: str, files: list[Path], model: ModelFolder, reading: ReaderSettings) -> Counts:
    """Return the bigram counts of the training set, read with a progress bar."""
    tokenizer, n_vocab = model.tokenizer(), model.hparams.n_vocab
    with byte_bar(files) as progress:
        chunks = tokenization.read_chunks(
            files, tokenizer, n_vocab, reading=reading, progress=progress
        )
        chunks = tokenization.not_empty(chunks, f"{dataset} contains no text.")
        # Every document follows <|endoftext|>, the first one too.
        start = [] if tokenizer.endoftext is None else [np.array([tokenizer.endoftext])]
        return Counts((chunk for part in (start, chunks) for chunk in part), n_vocab)


def _score(model: ModelFolder, text: ScoredText) -> float:
    """Return the negative log-likelihood of a text under the model, in nats."""
    scorer = open_scorer(model)
    with token_bar(text.predicted) as progress:
        [scores] = scorer.score([text.tokens], progress=progress)
    return float(scores.nats.sum(dtype="float64"))


def _print_bits(name: str, text: ScoredText, bits: dict[str, float], k: float) -> None:
    print(f"{name}: {text.size:,} bytes, {text.predicted:,} tokens")
    for model, value in bits.items():
        note = f" (k = {k:.1e})" if model == "bigram, add-k" else ""
        print(f"{value:.3f} bits per byte  {model}{note}")


def _sample(
    values: Values, bigrams: dict[str, BigramModel], model: ModelFolder, seed: int
) -> dict[str, str]:
    """Return the text of one sample of each model, by the model's name."""
    from gpt2.generation.language_model import LanguageModel
    from gpt2.generation.tensorflow_engine import TensorFlowEngine

    hparams, tokenizer = model.hparams, model.tokenizer()
    language_model = LanguageModel(TensorFlowEngine(model.weights(), hparams), hparams, tokenizer)
    start, end = language_model.start_token, tokenizer.endoftext
    samples = {}
    for name, bigram in bigrams.items():
        random = np.random.default_rng(seed)
        samples[name] = tokenizer.decode(bigram.sample(start, values.length, random, end=end))
    [completion] = language_model.generate(length=values.length, seed=seed)
    return samples | {values.model_name: completion.text}


COMMAND = Command(
    summary="Compare a model with bigram models of its training set, in bits per byte.",
    details="It also prints a sample of each model, drawn at temperature 1.",
    groups={
        "model and dataset": [
            *options_of(BigramOptions, "dataset", "held_out"),
            *inputs.model_options(),
        ],
        "samples and output": [
            *options_of(BigramOptions, "length"),
            *options_of(GenerationSettings, "seed", seed=None),
            *options_of(OutputOptions),
        ],
        "how the files are read": reader_options(),
    },
    run=run,
    first="dataset",
)
