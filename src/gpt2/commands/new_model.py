"""`new-model`: a model with a new vocabulary, or another model with more tokens."""

from __future__ import annotations

import dataclasses
import math

from gpt2 import files, processes, randomness
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import with_vocabulary, write_model_folder
from gpt2.checkpoint.resolve import find_model, released_model
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, build, options_of
from gpt2.commands.signals import load_tensorflow
from gpt2.commands.terminal import byte_bar, notice, shown
from gpt2.data import templates, tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError, escaped
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer, train_vocabulary, with_tokens
from gpt2.tokenizer.compression import bytes_per_token, hold_out
from gpt2.tokenizer.vocabulary import spelled
from gpt2.workspace import Workspace, command_line

# The default sizes with random initialization: a model that a laptop trains in minutes.
SMALL = HParams(n_vocab=1024, n_ctx=128, n_embd=128, n_head=4, n_layer=4)
SIZES = ("n_ctx", "n_embd", "n_head", "n_layer")


@dataclasses.dataclass(frozen=True)
class NewModelOptions:
    """What new-model takes besides the sizes of the model."""

    name: str = setting(help="name of the new model", metavar="NAME", positional=True)
    dataset: str | None = setting(
        None,
        "text to learn the vocabulary from: file, folder, or glob pattern; - for standard input",
        metavar="PATH",
    )
    source: str | None = setting(
        None,
        "model to take the weights from (default: random initialization)",
        metavar="MODEL",
        flag="from",
    )
    add_tokens: tuple[str, ...] = setting(
        (),
        "keep the vocabulary of that model and add these special tokens, such as '<|poem|>'",
        metavar="TOKEN",
        many=True,
    )
    seed: int | None = setting(
        None, "random seed of the weights (default: a random one)", low=0, high=math.inf
    )
    special_tokens: tuple[str, ...] = setting(
        (),
        "special tokens besides <|endoftext|>, such as '<|poem|>'",
        metavar="TOKEN",
        many=True,
    )
    min_frequency: int = setting(
        2, "merge pairs of tokens that occur at least N times in the text", low=1
    )


def check(values: Values) -> None:
    """Check that the flags are for one of the two ways to a vocabulary."""
    if bool(values.dataset) == bool(values.add_tokens):
        raise UsageError("give --dataset TEXT to learn a vocabulary, or --from MODEL --add_tokens")
    if values.add_tokens and not values.source:
        raise UsageError("--add_tokens needs --from MODEL, the model to add the tokens to")
    if values.add_tokens and (values.n_vocab or values.special_tokens):
        raise UsageError("--add_tokens keeps the vocabulary; omit --n_vocab and --special_tokens")
    if values.source and any(getattr(values, name) for name in SIZES):
        raise UsageError(
            f"--from takes the sizes of that model; omit {', '.join(f'--{n}' for n in SIZES)}"
        )


def run(values: Values) -> None:
    """Make the vocabulary and the weights, and write the model folder."""
    workspace = Workspace.find(values.models_dir, values.source)
    folder = workspace.new_model_folder(values.name)
    if folder.exists():
        raise UserError(f"{shown(folder)} already exists. Choose another name, or delete it.")
    files.check_folder_writable(folder)
    seed = randomness.check_seed(values.seed)
    source = find_model(values.source, values.models_dir, notice) if values.source else None
    given = {
        name: getattr(values, name)
        for name in ("n_vocab", *SIZES)
        if getattr(values, name) is not None
    }
    hparams = dataclasses.replace(source.hparams if source else SMALL, **given)
    hparams.check()

    old = source.tokenizer() if source else None
    if old and values.add_tokens:  # which come with a source
        vocabulary, merges = with_tokens(old.vocabulary, values.add_tokens), old.merges
        n_vocab = max(hparams.n_vocab, max(vocabulary.values()) + 1)
    else:
        vocabulary, merges = _learn_vocabulary(values, hparams.n_vocab, workspace, source)
        n_vocab = len(vocabulary)
    hparams = dataclasses.replace(hparams, n_vocab=n_vocab)

    load_tensorflow()
    from gpt2.model import initial_weights

    if source and old:
        weights = with_vocabulary(source.weights(), old, vocabulary, n_vocab)
    else:
        weights = initial_weights(hparams, seed)
    template = templates.load(source.path) if source else None
    write_model_folder(folder, hparams, vocabulary, merges, weights, template)
    print(f"Wrote {shown(folder)}, a model of {hparams.parameters:,} parameters")
    print(
        f"Encode text for it with: {command_line('encode')} TEXT OUT.npz --model_name {values.name}"
    )
    for token in values.add_tokens:
        print(f"{escaped(token)} is token {vocabulary[spelled(token)]}")


def _learn_vocabulary(
    values: Values, n_vocab: int, workspace: Workspace, source: ModelFolder | None
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary and merges of the text; print how well they compress held-out text."""
    reading = build(ReaderSettings, values)
    paths = tokenization.find_files(values.dataset)
    workers = processes.check_count(values.workers)
    print("Learning a vocabulary of", n_vocab, "tokens", flush=True)
    held_out: list[str] = []
    with byte_bar(paths) as progress:
        texts = tokenization.read_texts(paths, reading=reading, progress=progress, notice=notice)
        texts = tokenization.not_empty(
            texts, f"{values.dataset} contains no text to learn a vocabulary from."
        )
        vocabulary, merges = train_vocabulary(
            hold_out(texts, held_out),
            n_vocab,
            min_frequency=values.min_frequency,
            special_tokens=values.special_tokens,
            workers=workers,
        )
    if len(vocabulary) < n_vocab:
        print(f"No more pairs to merge: the vocabulary has {len(vocabulary)} tokens")
    if held_out:
        size = sum(len(part.encode()) for part in held_out)
        print(f"Held-out text ({size:,} bytes), bytes per token (higher is better):")
        print(f"  {bytes_per_token(Tokenizer(vocabulary, merges), held_out):.2f} new vocabulary")
        if other := source or released_model(workspace):
            print(f"  {bytes_per_token(other.tokenizer(), held_out):.2f} {shown(other.path)}")
    return vocabulary, merges


COMMAND = Command(
    summary="Create a model with a vocabulary learned from text, or with more special tokens.",
    details="""\
new-model small --dataset shakespeare.txt                    random initialization
new-model german --from 117M --dataset de.txt                keep the weights, new vocabulary
new-model poems --from 117M --add_tokens '<|poem|>'          keep weights and vocabulary

Embeddings of new tokens start as the mean of the old tokens that spell them. The default sizes
with random initialization are """
    + ", ".join(f"{name} {size:,}" for name, size in dataclasses.asdict(SMALL).items())
    + ".",
    groups={
        "model": [
            *options_of(NewModelOptions, "name", "dataset", "source", "add_tokens"),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(NewModelOptions, "seed"),
        ],
        "vocabulary": [
            *options_of(HParams, "n_vocab", n_vocab=None),
            *options_of(NewModelOptions, "special_tokens", "min_frequency"),
            *options_of(inputs.WorkerOptions),
        ],
        "sizes, with random initialization": options_of(HParams, *SIZES, **dict.fromkeys(SIZES)),
        "how the files are read": inputs.reader_options(),
    },
    run=run,
    check=check,
)
