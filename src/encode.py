#!/usr/bin/env python3
"""Encode text files into a file of tokens, to be trained on many times.

python src/encode.py shakespeare.txt shakespeare.npz
"""

from pathlib import Path

from tqdm import tqdm

from command_line import Parser, run
from gpt2.checkpoint.folder import ModelFolder
from gpt2.data import npz, text
from gpt2.errors import UserError
from gpt2.workspace import Workspace


def main() -> None:
    parser = Parser("Pre-encode text files into a tokenized training set.")
    add = parser.add_argument
    # fmt: off
    add("in_text", metavar="PATH", help="input file, folder, or glob pattern")
    add("out_npz", metavar="OUT.npz", type=Path, help="output file")
    add("--model_name", metavar="MODEL", default="117M", help="model whose vocabulary is used")
    add("--models_dir", metavar="PATH", default="models", help="folder that holds the models")
    add(
        "--combine",
        metavar="CHARS",
        type=int,
        default=50000,
        help="join files into chunks of this minimum size",
    )
    add("--encoding", metavar="NAME", default="utf-8", help="text encoding of the input files")
    add(
        "--legacy_endoftext",
        action="store_true",
        help="spell <|endoftext|> out as the encoder of 2019 did, not as one token",
    )
    # fmt: on
    args = parser.parse_args()

    workspace = Workspace.find(args.models_dir, args.model_name)
    tokenizer = ModelFolder(workspace.model_folder(args.model_name)).tokenizer()
    files = text.find_files(args.in_text)
    if any(args.out_npz.exists() and file.samefile(args.out_npz) for file in files):
        raise UserError(
            f"{args.out_npz} is among the files to encode and would be lost; write elsewhere."
        )
    size = sum(file.stat().st_size for file in files)
    if size == 0:
        raise UserError(f"{args.in_text} holds no text to encode.")
    print("Reading files")
    with tqdm(total=size, unit="B", unit_scale=True) as bar:
        chunks = text.read_chunks(
            files,
            tokenizer,
            max(tokenizer.vocabulary.values()) + 1,
            combine=args.combine,
            encoding=args.encoding,
            legacy_endoftext=args.legacy_endoftext,
            progress=bar.update,
        )
        tokens = npz.write(args.out_npz, chunks)
    print("Writing", args.out_npz)
    print(f"{tokens:,} tokens")


if __name__ == "__main__":
    run(main)
