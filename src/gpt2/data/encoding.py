"""Encode text files into a file or folder of tokens."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2 import files
from gpt2.data import npz, shards, tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.data.sources import is_among
from gpt2.data.tokenization import ChunkPart, ChunkShare, TokenizationSettings
from gpt2.errors import UserError
from gpt2.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Output:
    """Where tokens are written: a file or, if `in_folder`, a folder of shards."""

    path: Path
    in_folder: bool

    @classmethod
    def of(cls, name: str) -> Output:
        """Return the output of this name; a slash at its end makes it a folder.

        Raises:
            UserError: it cannot be written.
        """
        if name.endswith(("/", os.sep)):
            return cls(files.check_folder_writable(name), True)
        out = Path(name)
        # As numpy.savez does, which wrote it in 2019. Devices and folders are refused by name.
        # `os.path`, as `Path` raises an error for a name that is too long.
        if (
            name not in ("", "-")
            and out.suffix != ".npz"
            and (os.path.isfile(out) or not os.path.exists(out))
        ):
            out = out.with_name(f"{out.name}.npz")
            name = str(out)
        return cls(files.check_writable(name), False)

    def check_inputs(self, paths: list[Path]) -> None:
        """Check that the output is not one of the inputs; raises `UserError`."""
        if is_among(self.path, paths):
            raise UserError(
                f"{self.path} is one of the input files and would be lost. Write elsewhere."
            )

    def write(self, parts: Iterator[ChunkPart], n_vocab: int) -> int:
        """Write parts of chunks and return the number of tokens; raises `UserError`."""
        if self.in_folder:
            return shards.write_parts(self.path, parts, n_vocab)
        return npz.write_parts(self.path, parts)


def encode_files(
    dataset: str,
    paths: list[Path],
    output: Output,
    tokenizer: Tokenizer,
    n_vocab: int,
    reading: ReaderSettings,
    settings: TokenizationSettings,
    *,
    workers: int,
    share: ChunkShare | None = None,
    comment: Callable[[], bytes] = bytes,
    progress: Callable[[int], object] = lambda size: None,
    notice: Callable[[str], object] = lambda sentence: None,
) -> int:
    """Write the tokens of text files and return their number.

    Args:
        dataset: how the user calls the files.
        paths: the files; see `tokenization.find_files`.
        n_vocab: size of the vocabulary that the ids are checked against.
        workers: number of processes.
        share: write only its chunks, also if it has none.
        comment: returns the comment of a file with a share; called at the end.
        progress: called with the number of newly read bytes.
        notice: called with sentences for the user.

    Raises:
        UserError: a file cannot be read, or the files contain no text; no output is written.
    """
    parts = tokenization.read_parts(
        paths,
        tokenizer,
        n_vocab,
        combine=settings.combine,
        reading=reading,
        legacy_endoftext=settings.legacy_endoftext,
        workers=workers,
        share=share,
        progress=progress,
        notice=notice,
    )
    if share:
        return npz.write_parts(output.path, parts, comment)
    return output.write(with_tokens(parts, dataset), n_vocab)


def with_tokens(parts: Iterator[ChunkPart], dataset: str) -> Iterator[ChunkPart]:
    """Yield parts of chunks.

    Raises:
        UserError: no part has a token.
    """
    return tokenization.not_empty(
        parts, f"{dataset} contains no text to encode.", counts=lambda part: len(part.tokens) > 0
    )
