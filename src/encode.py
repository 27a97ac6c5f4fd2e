#!/usr/bin/env python3
"""Encode text files into a file of tokens, to be trained on many times.

    python src/encode.py shakespeare.txt shakespeare.npz

A name that ends in a slash makes a folder that training reads where it lies, for texts that are too
large for memory.
"""

import os
from pathlib import Path

from command_line import (
    Parser,
    add_reading_flags,
    byte_bar,
    named_model,
    not_empty,
    reading_of,
    run,
    show_notice,
)
from gpt2 import processes
from gpt2.data import npz, shards, text
from gpt2.data.sources import is_among
from gpt2.errors import UserError
from gpt2.workspace import Workspace


def main() -> None:
    parser = Parser("Pre-encode text files into a tokenized training set.")
    add = parser.add_argument
    add("in_text", metavar="PATH", help="input file, folder, or glob pattern; - for standard input")
    add("out_npz", metavar="OUT.npz|OUT/", help="output file or, with a slash at the end, folder")
    add("--model_name", metavar="MODEL", default="117M", help="model whose vocabulary is used")
    add("--models_dir", metavar="PATH", default="models", help="folder that holds the models")
    add(
        "--combine",
        metavar="CHARS",
        type=int,
        default=50000,
        help="join documents into chunks of this minimum size",
    )
    add(
        "--legacy_endoftext",
        action="store_true",
        help="spell <|endoftext|> out as the encoder of 2019 did, not as one token",
    )
    add(
        "--workers",
        metavar="N",
        type=int,
        help=f"processes that share in the work (default: as many as there are processors, up to {processes.MOST_BY_DEFAULT})",
    )
    add_reading_flags(parser)
    args = parser.parse_args()

    reading = reading_of(args)
    workers = processes.check_count(args.workers)
    workspace = Workspace.find(args.models_dir, args.model_name)
    tokenizer = named_model(args.model_name, workspace).tokenizer()
    files = text.find_files(args.in_text)
    out = Path(args.out_npz)
    in_folder = args.out_npz.endswith(("/", os.sep))
    if not (in_folder or out.suffix == ".npz" or out.is_dir()):
        out = out.with_name(f"{out.name}.npz")  # as numpy.savez does, which wrote it in 2019
    if is_among(out, files):
        raise UserError(f"{out} is among the files to encode and would be lost; write elsewhere.")
    n_vocab = max(tokenizer.vocabulary.values()) + 1
    print("Reading files", flush=True)
    with byte_bar(files) as progress:
        parts = text.read_parts(
            files,
            tokenizer,
            n_vocab,
            combine=args.combine,
            reading=reading,
            legacy_endoftext=args.legacy_endoftext,
            workers=workers,
            progress=progress,
            notice=show_notice,
        )
        parts = not_empty(parts, f"{args.in_text} holds no text to encode.")
        if in_folder:
            tokens = shards.write_parts(out, parts, n_vocab)
        else:
            tokens = npz.write_parts(out, parts)
    print("Writing", out)
    print(f"{tokens:,} tokens")


if __name__ == "__main__":
    run(main)
