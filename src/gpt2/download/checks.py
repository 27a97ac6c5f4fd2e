"""Tells a whole file of a model from a broken one, or from an error page saved in its place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from gpt2.checkpoint import bundle, folder, index
from gpt2.download.releases import INDEX_FILE
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import read_encoder, read_merges

_PIECE = 1 << 20  # bytes
_PAGE = re.compile(rb"\s*<(\?xml|!doctype|html|error)\b", re.IGNORECASE)


def check_file(path: Path, name: str, index_path: Path | None = None) -> None:
    """Read a file of a model as its readers will, so that it is known to be whole.

    Args:
        path: where it is now.
        name: what it is called in a model's folder.
        index_path: the index that belongs to a data file; the one beside it if not given.

    Raises:
        UserError: it is not what its name says.
    """
    try:
        with open(path, "rb") as file:
            beginning = file.read(512)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if _PAGE.match(beginning):
        raise UserError(f"{path} is a page of a web server, not the file {name}.")
    if ".data-" in name:
        _check_data(path, name, index_path or path.with_name(INDEX_FILE))
    elif name.endswith(bundle.INDEX):
        index.read(path)
    elif name in _READERS:
        _READERS[name](path)
    elif not beginning:
        raise UserError(f"{path} is empty.")


_READERS: dict[str, Callable[[Path], object]] = {
    folder.HPARAMS_FILE: HParams.load,
    folder.ENCODER_FILE: read_encoder,
    folder.MERGES_FILE: read_merges,
    folder.STATE_FILE: folder.read_state,
}


def _check_data(path: Path, name: str, index_path: Path) -> None:
    found = index.read(index_path)
    shard = int(re.search(r"\.data-(\d{5})-of-", name)[1])
    entries = {key: entry for key, entry in found.entries.items() if entry.shard == shard}
    end = data_size(found, shard)
    size = path.stat().st_size
    if size < end:  # so that a made-up size is never asked memory for
        raise UserError(f"{path} is cut off after {size:,} of {end:,} bytes.")
    for key, entry in entries.items():
        bundle.tensor_bytes(path, key, entry)


def data_size(found: index.Index, shard: int = 0) -> int:
    """How long a data file has to be, in bytes."""
    ends = (e.offset + e.size for e in found.entries.values() if e.shard == shard)
    return max(ends, default=0)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()
