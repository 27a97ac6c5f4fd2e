"""`encode`: text files to a dataset of tokens."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2 import processes
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.resolve import find_folder
from gpt2.checks import is_count, setting
from gpt2.commands import inputs
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, build, options_of
from gpt2.commands.parts import PartOptions, check_parts, part_of, paths_of_parts, vocabulary_digest
from gpt2.commands.terminal import byte_bar, notice
from gpt2.data import npz, tokenization
from gpt2.data.encoding import Output, encode_files, with_tokens
from gpt2.data.readers import ReaderSettings
from gpt2.data.tokenization import ChunkPart, ChunkShare, TokenizationSettings
from gpt2.errors import escaped
from gpt2.parts import KEY, in_order, not_a_part


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


def check(values: Values) -> None:
    """Check the flags that depend on each other."""
    check_parts(values)
    if values.shard and values.out_npz.endswith(("/", os.sep)):
        raise UsageError("--shard writes a .npz file; --merge can write a folder of shards")


def run(values: Values) -> None:
    """Tokenize the files, or merge the parts that several machines have tokenized."""
    reading = build(ReaderSettings, values)
    workers = processes.check_count(values.workers)
    output = Output.of(values.out_npz)
    model = find_folder(values.model_name, values.models_dir, notice)
    tokenizer = model.tokenizer()
    n_vocab = model.n_vocab(tokenizer)
    if values.merge:
        merged = _merged(values, model, n_vocab, output.path)
        _print_result(output, output.write(merged, n_vocab))
        return
    paths = tokenization.find_files(values.in_text)
    output.check_inputs(paths)
    part = part_of(values)
    share = ChunkShare(part) if part else None
    print("Reading files", flush=True)
    with byte_bar(paths) as progress:
        tokens = encode_files(
            values.in_text,
            paths,
            output,
            tokenizer,
            n_vocab,
            reading,
            build(TokenizationSettings, values),
            workers=workers,
            share=share,
            comment=lambda: _comment(values, model, share) if share else b"",
            progress=progress,
            notice=notice,
        )
    _print_result(output, tokens)


def _print_result(output: Output, tokens: int) -> None:
    print("Writing", escaped(str(output.path)))
    print(f"{tokens:,} tokens")


def _settings(values: Values, model: ModelFolder) -> dict[str, Any]:
    """Return everything besides the text that decides the tokens, by name."""
    options = [*inputs.reader_options(), *options_of(TokenizationSettings)]
    settings = {option.flag: getattr(values, option.name) for option in options}
    # As they are read back from the file of a part.
    return json.loads(json.dumps({"vocabulary": vocabulary_digest(model)} | settings))


def _comment(values: Values, model: ModelFolder, share: ChunkShare) -> bytes:
    """Return what a part was made from, as the comment of its file."""
    facts = {KEY: str(part_of(values)), **_settings(values, model)}
    return json.dumps({**facts, "text": share.digest, "chunks": share.chunks}).encode()


def _merged(values: Values, model: ModelFolder, n_vocab: int, out: Path) -> Iterator[ChunkPart]:
    """Yield the chunks of all parts in the order of the text, one at a time in memory.

    Raises:
        UserError: they are not all parts of one dataset, made with the settings of the flags.
    """
    facts = {path: _read_facts(path) for path in paths_of_parts(values, out)}
    paths = in_order(facts, _settings(values, model))
    readers = [npz.read(path, n_vocab) for path in paths]

    def chunks() -> Iterator[ChunkPart]:
        for number in range(facts[paths[0]]["chunks"]):
            tokens = next(readers[number % len(readers)], None)
            if tokens is None:
                raise not_a_part(paths[number % len(readers)])
            yield ChunkPart(tokens, True)

    return with_tokens(chunks(), values.in_text)


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(npz.read_comment(path))
    except ValueError as error:
        raise not_a_part(path) from error
    if not isinstance(facts, dict) or not is_count(facts.get("chunks")):
        raise not_a_part(path)
    return facts


COMMAND = Command(
    summary="Tokenize text files into a dataset.",
    groups={
        "input and output": options_of(EncodeOptions),
        "several machines": options_of(PartOptions),
        "tokenization": [
            *inputs.model_options("117M"),
            *options_of(TokenizationSettings),
            *options_of(inputs.WorkerOptions),
        ],
        "how the files are read": inputs.reader_options(),
    },
    run=run,
    check=check,
)
