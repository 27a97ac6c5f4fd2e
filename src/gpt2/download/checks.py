"""Verification of the files of a model, also against error pages saved in their place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from gpt2.checkpoint import bundle, folder, index
from gpt2.download.releases import INDEX_FILE
from gpt2.errors import UserError, cannot_read
from gpt2.hparams import HParams
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE, read_encoder, read_merges

_PIECE = 1 << 20  # bytes
_PAGE = re.compile(rb"\s*<(\?xml|!doctype|html|error)\b", re.IGNORECASE)


def check_file(path: Path, name: str, index_path: Path | None = None) -> None:
    """Check that a file of a model is complete, by parsing it as its readers do.

    Args:
        path: current path of the file.
        name: its name in a model folder.
        index_path: the index of a data file; by default the one beside it.

    Raises:
        UserError: the content does not match the name.
    """
    try:
        with open(path, "rb") as file:
            beginning = file.read(512)
    except OSError as error:
        raise cannot_read(path, error) from error
    if _PAGE.match(beginning):
        raise UserError(f"{path}: a web page (HTML or XML), not the file {name}.")
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
    ENCODER_FILE: read_encoder,
    MERGES_FILE: read_merges,
    folder.STATE_FILE: folder.read_state,
}


def _check_data(path: Path, name: str, index_path: Path) -> None:
    found = index.read(index_path)
    shard = int(name.partition(".data-")[2].partition("-of-")[0])
    entries = {key: entry for key, entry in found.entries.items() if entry.shard == shard}
    end = data_size(found, shard)
    size = path.stat().st_size
    if size < end:  # so that no memory is allocated for a made-up size
        raise UserError(f"{path} is cut off after {size:,} of {end:,} bytes.")
    for key, entry in entries.items():
        bundle.tensor_bytes(path, key, entry)


def data_size(found: index.Index, shard: int = 0) -> int:
    """Return the size that a data file must have (bytes)."""
    ends = (e.offset + e.size for e in found.entries.values() if e.shard == shard)
    return max(ends, default=0)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise cannot_read(path, error) from error
    return digest.hexdigest()
