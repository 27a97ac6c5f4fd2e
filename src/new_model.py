#!/usr/bin/env python3
"""Make a new model: with a vocabulary learnt from text, or with more tokens than another model has.

    python src/new_model.py small --dataset shakespeare.txt
    python src/new_model.py german --from 117M --dataset de.txt
    python src/new_model.py poems --from 117M --add_tokens '<|poem|>' '<|prose|>'

The first begins with random weights and needs no download. The second keeps all that the English
model has learnt but for its embeddings, which begin anew from those of the old tokens that spell
the new ones. The third keeps everything.
"""

import argparse
import dataclasses

from command_line import (
    Parser,
    add_reading_flags,
    byte_bar,
    load_tensorflow,
    named_model,
    not_empty,
    reading_of,
    run,
    show_notice,
    shown,
)
from gpt2 import processes, randomness
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import with_vocabulary, write_model_folder
from gpt2.data import tokenization
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import ENCODER_FILE, Tokenizer, train_vocabulary, with_tokens
from gpt2.tokenizer.compression import bytes_per_token, hold_out
from gpt2.tokenizer.vocabulary import spelled
from gpt2.workspace import ALIASES, Workspace

# Of a model with random weights, one that a laptop trains in minutes.
SMALL = HParams(n_vocab=1024, n_ctx=128, n_embd=128, n_head=4, n_layer=4)


def parse_arguments() -> argparse.Namespace:
    parser = Parser("Make a new model folder under models/, with a vocabulary learnt from text.")
    add = parser.add_argument
    # fmt: off
    add("name", metavar="NAME", help="name of the new model")
    add("--dataset", metavar="PATH", help="text to learn the vocabulary from: file, folder, or glob pattern; - for standard input")
    add("--from", metavar="MODEL", dest="source", help="model to take the weights from (default: random weights)")
    add("--add_tokens", metavar="TOKEN", nargs="+", default=[], help="keep the vocabulary of that model and add these special tokens, such as '<|poem|>'")
    add("--models_dir", metavar="PATH", default="models", help="folder that holds the models")
    add("--seed", metavar="N", type=int, help="for the same random weights each time (default: a random one)")
    add = parser.add_argument_group("the vocabulary").add_argument
    add("--n_vocab", metavar="N", type=int, help=f"tokens in it (default: {SMALL.n_vocab}, or as many as the other model has)")
    add("--special_tokens", metavar="TOKEN", nargs="+", default=[], help="special tokens beside <|endoftext|>, such as '<|poem|>'")
    add("--min_frequency", metavar="N", type=int, default=2, help="how often two neighbours have to occur to be made a token")
    add("--workers", metavar="N", type=int, help=f"processes that share in counting words (default: as many as there are processors, up to {processes.MOST_BY_DEFAULT})")
    add = parser.add_argument_group("the sizes, with random weights").add_argument
    add("--n_ctx", metavar="N", type=int, help=f"window, in tokens (default: {SMALL.n_ctx})")
    add("--n_embd", metavar="N", type=int, help=f"width (default: {SMALL.n_embd})")
    add("--n_head", metavar="N", type=int, help=f"attention heads; divides the width (default: {SMALL.n_head})")
    add("--n_layer", metavar="N", type=int, help=f"layers (default: {SMALL.n_layer})")
    # fmt: on
    add_reading_flags(parser)
    args = parser.parse_args()
    if bool(args.dataset) == bool(args.add_tokens):
        parser.error("give --dataset TEXT to learn a vocabulary, or --from MODEL --add_tokens")
    if args.add_tokens and not args.source:
        parser.error("--add_tokens needs the model to add them to: --from MODEL")
    if args.add_tokens and (args.n_vocab or args.special_tokens):
        parser.error("--add_tokens keeps the vocabulary; leave out what is about a new one")
    if args.source and (args.n_ctx or args.n_embd or args.n_head or args.n_layer):
        parser.error(
            "the weights of --from have sizes of their own; leave out --n_ctx and the like"
        )
    return args


def main() -> None:
    args = parse_arguments()
    workspace = Workspace.find(args.models_dir, args.source)
    folder = workspace.new_model_folder(args.name)
    if folder.exists():
        raise UserError(f"{shown(folder)} is there already; choose another name or delete it.")
    seed = randomness.check_seed(args.seed)
    source = named_model(args.source, workspace) if args.source else None
    hparams = source.hparams if source else SMALL
    sizes = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
    given = {name: getattr(args, name) for name in sizes if getattr(args, name) is not None}
    hparams = dataclasses.replace(hparams, **given)
    hparams.check()

    old = source.tokenizer() if source and source.checkpoint else None
    if args.add_tokens:
        vocabulary, merges = with_tokens(old.vocabulary, args.add_tokens), old.merges
        n_vocab = max(hparams.n_vocab, max(vocabulary.values()) + 1)
    else:
        vocabulary, merges = learn(args, hparams.n_vocab, workspace)
        n_vocab = len(vocabulary)
    hparams = dataclasses.replace(hparams, n_vocab=n_vocab)

    load_tensorflow()
    from gpt2.model import initial_weights

    if source:
        weights = with_vocabulary(source.weights(), old, vocabulary, n_vocab)
    else:
        weights = initial_weights(hparams, seed)
    write_model_folder(folder, hparams, vocabulary, merges, weights)
    print(f"Wrote {shown(folder)}, a model of {hparams.parameters:,} parameters")
    for token in args.add_tokens:
        print(f"{token} is token {vocabulary[spelled(token)]}")


def learn(
    args: argparse.Namespace, n_vocab: int, workspace: Workspace
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn the vocabulary and show what it is worth on text that it was not learnt from."""
    files = tokenization.find_files(args.dataset)
    workers = processes.check_count(args.workers)
    print("Learning a vocabulary of", n_vocab, "tokens", flush=True)
    held_out: list[str] = []
    nothing = f"{args.dataset} holds no text to learn a vocabulary from."
    with byte_bar(files) as progress:
        reading = reading_of(args)
        texts = tokenization.read_texts(
            files, reading=reading, progress=progress, notice=show_notice
        )
        vocabulary, merges = train_vocabulary(
            hold_out(not_empty(texts, nothing), held_out),
            n_vocab,
            min_frequency=args.min_frequency,
            special_tokens=args.special_tokens,
            workers=workers,
        )
    if len(vocabulary) < n_vocab:
        print("The text has no more to merge: the vocabulary has", len(vocabulary), "tokens")
    if held_out:
        size = sum(len(part.encode()) for part in held_out)
        print(f"In {size:,} bytes of the text that were kept from it, bytes per token:")
        worth = bytes_per_token(Tokenizer(vocabulary, merges), held_out)
        print(f"  {worth:.2f} with this vocabulary")
        for name in [args.source] if args.source else ALIASES:
            folder = workspace.model_folder_or_none(name)
            if folder and (folder / ENCODER_FILE).is_file():
                worth = bytes_per_token(ModelFolder(folder).tokenizer(), held_out)
                print(f"  {worth:.2f} with that of {shown(folder)}")
                break
    return vocabulary, merges


if __name__ == "__main__":
    run(main)
