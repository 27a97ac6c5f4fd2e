#!/usr/bin/env python3
"""Make a fresh model with a vocabulary learnt from text: the way without a download.

python src/new_model.py small --dataset shakespeare.txt
"""

import dataclasses

from command_line import (
    Parser,
    add_reading_flags,
    load_tensorflow,
    reading_of,
    run,
    show_notice,
    shown,
)
from gpt2 import randomness
from gpt2.checkpoint.new import write_model_folder
from gpt2.data import text
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import train_vocabulary
from gpt2.workspace import Workspace


def main() -> None:
    parser = Parser("Train a vocabulary on text and write a fresh model folder under models/.")
    add = parser.add_argument
    # fmt: off
    add("name", metavar="NAME", help="name of the new model")
    add("--dataset", metavar="PATH", required=True, help="text file, folder, or glob pattern")
    add("--models_dir", metavar="PATH", default="models", help="folder that holds the models")
    add("--n_vocab", metavar="N", type=int, default=1024, help="tokens in the vocabulary")
    add("--n_ctx", metavar="N", type=int, default=128, help="window, in tokens")
    add("--n_embd", metavar="N", type=int, default=128, help="width")
    add("--n_head", metavar="N", type=int, default=4, help="attention heads; divides the width")
    add("--n_layer", metavar="N", type=int, default=4, help="layers")
    add(
        "--seed",
        metavar="N",
        type=int,
        help="for the same fresh weights each time (default: random)",
    )
    # fmt: on
    add_reading_flags(parser)
    args = parser.parse_args()

    workspace = Workspace.find(args.models_dir)
    folder = workspace.new_model_folder(args.name)
    if folder.exists():
        raise UserError(f"{shown(folder)} is there already; choose another name or delete it.")
    hparams = HParams(args.n_vocab, args.n_ctx, args.n_embd, args.n_head, args.n_layer)
    hparams.check()
    seed = randomness.check_seed(args.seed)
    files = text.find_files(args.dataset)
    if not any(file.stat().st_size for file in files):
        raise UserError(f"{args.dataset} holds no text to learn a vocabulary from.")

    print("Learning a vocabulary of", args.n_vocab, "tokens", flush=True)
    texts = text.read_texts(files, reading=reading_of(args), notice=show_notice)
    vocabulary, merges = train_vocabulary(texts, args.n_vocab)
    if len(vocabulary) < args.n_vocab:
        print("The text has no more to merge: the vocabulary has", len(vocabulary), "tokens")
        hparams = dataclasses.replace(hparams, n_vocab=len(vocabulary))

    load_tensorflow()
    from gpt2.model import fresh_weights

    write_model_folder(folder, hparams, vocabulary, merges, fresh_weights(hparams, seed))
    print(f"Wrote {shown(folder)}, a model of {hparams.parameters:,} parameters")


if __name__ == "__main__":
    run(main)
