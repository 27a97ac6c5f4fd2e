"""From files of text, or of tokens, to chunks of tokens."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gpt2.data import npz
from gpt2.errors import UserError
from gpt2.tokenizer import ENDOFTEXT, Tokenizer

BYTE_ORDER_MARK = "\ufeff"


def find_files(path: str) -> list[Path]:
    """The files that a dataset's name stands for: a file, all below a folder, or a glob's matches.

    They come in the order of their names, so that every system encodes the same dataset.

    Raises:
        UserError: there is none.
    """
    place = Path(path)
    if os.path.isfile(path):
        return [place]
    found = place.rglob("*") if os.path.isdir(path) else map(Path, glob.glob(path))
    files = sorted((file for file in found if file.is_file()), key=lambda file: file.parts)
    if not files:
        raise UserError(
            f"{path} is not a file, a folder with files or a pattern that matches some; "
            "check the dataset's path."
        )
    return files


def read_document(path: Path, encoding: str) -> str:
    """The text of one file, with every line end as a single newline.

    Raises:
        UserError: it cannot be read or is not in that encoding; names the first byte that is not.
    """
    try:
        text = path.read_bytes().decode(encoding)
    except LookupError as error:
        raise UserError(
            f"There is no text encoding {encoding!r}; the usual one is utf-8."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not {encoding} text: the byte at offset {error.start} cannot be decoded; "
            "give the file's --encoding (for example cp1252) or convert it to UTF-8."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_chunks(
    files: list[Path],
    tokenizer: Tokenizer,
    n_vocab: int,
    *,
    combine: int = 50000,
    encoding: str = "utf-8",
    legacy_endoftext: bool = False,
    progress: Callable[[int], object] = lambda size: None,
) -> Iterator[np.ndarray]:
    """The tokens of all files, in chunks.

    Texts are joined until a chunk has at least `combine` characters. Each is closed by one
    `<|endoftext|>` token, if the vocabulary has it. With `legacy_endoftext` the chunks are those
    of 2019: the marker is spelled out as ordinary text, and stands only between joined files and
    after the last ones.

    Args:
        n_vocab: tokens the model knows; a file of tokens may hold none beyond.
        progress: called with the size in bytes of each file that has been read.

    Yields:
        Token ids below `n_vocab`, each chunk an array of `npz.compact_type`, shape [tokens].

    Raises:
        UserError: a file cannot be read, decoded or spelled with this vocabulary.
    """
    separator = ENDOFTEXT if legacy_endoftext or tokenizer.endoftext is not None else ""

    def encode(text: str) -> np.ndarray:
        ids = tokenizer.encode(text, legacy_endoftext=legacy_endoftext)
        if max(ids) >= n_vocab:
            raise UserError(
                f"The text {tokenizer.decode([max(ids)])!r} is the token {max(ids)}, but the model's "
                f"vocabulary ends at {n_vocab - 1}: encoder.json and hparams.json do not belong "
                "together."
            )
        return np.array(ids, dtype=npz.compact_type(n_vocab))

    pending = ""
    for file in files:
        if file.suffix == ".npz":
            yield from npz.read(file, n_vocab)
        else:
            document = read_document(file, encoding)
            if legacy_endoftext:
                pending += document
                full = len(pending) >= combine
                pending += "" if full else separator
            else:
                document = document.removeprefix(BYTE_ORDER_MARK)
                pending += document + separator if document else ""
                full = len(pending) - len(separator) >= combine
            if full and pending:
                yield encode(pending)
                pending = ""
        progress(file.stat().st_size)
    if pending:
        yield encode(pending)
