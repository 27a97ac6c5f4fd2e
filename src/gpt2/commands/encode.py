"""`encode`: text files to a dataset of tokens."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2 import files, processes
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.resolve import find_folder
from gpt2.checks import is_count, setting
from gpt2.commands import inputs
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, build, options_of
from gpt2.commands.parts import PartOptions, check_parts, part_of, paths_of_parts, vocabulary_digest
from gpt2.commands.terminal import byte_bar, notice
from gpt2.data import npz, shards, tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.data.sources import is_among
from gpt2.data.tokenization import ChunkPart
from gpt2.errors import UserError, escaped
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
    out, in_folder = _output(values.out_npz)
    model = find_folder(values.model_name, values.models_dir, notice)
    tokenizer = model.tokenizer()
    n_vocab = model.n_vocab(tokenizer)
    if values.merge:
        merged = _merged(values, model, n_vocab, out)
        tokens = (
            shards.write_parts(out, merged, n_vocab) if in_folder else npz.write_parts(out, merged)
        )
        _print_result(out, tokens)
        return
    paths = tokenization.find_files(values.in_text)
    if is_among(out, paths):
        raise UserError(f"{out} is one of the input files and would be lost. Write elsewhere.")
    part = part_of(values)
    share = tokenization.ChunkShare(part) if part else None
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
            share=share,
            progress=progress,
            notice=notice,
        )
        if share:
            facts = {KEY: str(part)} | _settings(values, model)
            tokens = npz.write_parts(out, parts, lambda: _comment(facts, share))
            _print_result(out, tokens)
            return
        parts = _with_tokens(parts, values)
        if in_folder:
            tokens = shards.write_parts(out, parts, n_vocab)
        else:
            tokens = npz.write_parts(out, parts)
    _print_result(out, tokens)


def _print_result(out: Path, tokens: int) -> None:
    print("Writing", escaped(str(out)))
    print(f"{tokens:,} tokens")


def _with_tokens(parts: Iterable[ChunkPart], values: Values) -> Iterator[ChunkPart]:
    """Yield parts of chunks; raises `UserError` if none has a token."""
    return inputs.not_empty(
        parts,
        f"{values.in_text} contains no text to encode.",
        counts=lambda part: len(part.tokens) > 0,
    )


def _settings(values: Values, model: ModelFolder) -> dict[str, Any]:
    """Return everything besides the text that decides the tokens, by name."""
    options = [*inputs.reader_options(), *options_of(inputs.TokenizationOptions)]
    settings = {option.flag: getattr(values, option.name) for option in options}
    # As they are read back from the file of a part.
    return json.loads(json.dumps({"vocabulary": vocabulary_digest(model)} | settings))


def _comment(facts: Mapping[str, Any], share: tokenization.ChunkShare) -> bytes:
    """Return the facts of a part, as the comment of its file."""
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

    return _with_tokens(chunks(), values)


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(npz.read_comment(path))
    except ValueError as error:
        raise not_a_part(path) from error
    if not isinstance(facts, dict) or not is_count(facts.get("chunks")):
        raise not_a_part(path)
    return facts


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
        "several machines": options_of(PartOptions),
        "tokenization": [
            *inputs.model_options("117M"),
            *options_of(inputs.TokenizationOptions),
            *options_of(inputs.WorkerOptions),
        ],
        "how the files are read": inputs.reader_options(),
    },
    run=run,
    check=check,
)
