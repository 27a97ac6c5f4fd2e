"""`encode`: text files to a dataset of tokens."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from gpt2 import files, processes
from gpt2.checkpoint.resolve import find_folder
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.flags import Command, Values, build, options_of
from gpt2.commands.terminal import byte_bar, notice
from gpt2.data import npz, shards, tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.data.sources import is_among
from gpt2.errors import UserError, escaped


@dataclasses.dataclass(frozen=True)
class EncodeOptions:
    """What encode takes besides the settings of the reader."""

    in_text: str = setting(
        help="input file, folder, or glob pattern; - for standard input",
        metavar="PATH",
        positional=True,
    )
    out_npz: str = setting(
        help="output file or, with a slash at the end, folder of shards",
        metavar="OUT.npz|OUT/",
        positional=True,
    )


def run(values: Values) -> None:
    """Tokenize the files and write the dataset."""
    reading = build(ReaderSettings, values)
    workers = processes.check_count(values.workers)
    out, in_folder = _output(values.out_npz)
    model = find_folder(values.model_name, values.models_dir, notice)
    tokenizer = model.tokenizer()
    n_vocab = model.n_vocab(tokenizer)
    paths = tokenization.find_files(values.in_text)
    if is_among(out, paths):
        raise UserError(f"{out} is one of the input files and would be lost. Write elsewhere.")
    print("Reading files", flush=True)
    with byte_bar(paths) as progress:
        parts = tokenization.read_parts(
            paths,
            tokenizer,
            n_vocab,
            combine=values.combine,
            reading=reading,
            legacy_endoftext=values.legacy_endoftext,
            workers=workers,
            progress=progress,
            notice=notice,
        )
        parts = inputs.not_empty(
            parts,
            f"{values.in_text} contains no text to encode.",
            counts=lambda part: len(part.tokens) > 0,
        )
        if in_folder:
            tokens = shards.write_parts(out, parts, n_vocab)
        else:
            tokens = npz.write_parts(out, parts)
    print("Writing", escaped(str(out)))
    print(f"{tokens:,} tokens")


def _output(name: str) -> tuple[Path, bool]:
    """Return the path of the output after checking it, and whether it is a folder of shards."""
    if name.endswith(("/", os.sep)):
        return files.check_folder_writable(name), True
    out = Path(name)
    # As numpy.savez does, which wrote it in 2019. Devices and folders are refused by their names.
    if name not in ("", "-") and out.suffix != ".npz" and (out.is_file() or not out.exists()):
        out = out.with_name(f"{out.name}.npz")
        name = str(out)
    return files.check_writable(name), False


COMMAND = Command(
    summary="Tokenize text files into a dataset.",
    groups={
        "input and output": options_of(EncodeOptions),
        "tokenization": [
            *inputs.model_options("117M"),
            *options_of(inputs.TokenizationOptions),
            *options_of(inputs.WorkerOptions),
        ],
        "how the files are read": inputs.reader_options(),
    },
    run=run,
)
