"""Fetches the files of a released model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import requests

from gpt2 import files
from gpt2.errors import UserError
from gpt2.workspace import RENAMED

BASE_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"
# What each size is called on the server, by every name it has gone by.
RELEASES = RENAMED | {present: present for present in RENAMED.values()}
FILES = (
    "checkpoint",
    "encoder.json",
    "hparams.json",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.index",
    "model.ckpt.meta",
    "vocab.bpe",
)
CHUNK = 1 << 20  # bytes taken from the network at a time
TIMEOUT = (20, 60)  # seconds to connect, and between two pieces of an answer


def fetch(url: str, path: Path, progress: Callable[[int, int], object]) -> None:
    """Fetch a file; it appears under its name only when it is whole.

    Args:
        progress: called with the bytes of each piece and the size of the file, 0 if not told.

    Raises:
        UserError: the server cannot be reached, has no such file, or breaks off.
    """
    size = received = 0
    # The file is opened first, since what goes wrong with the network is an OSError too and would
    # be taken for one of writing.
    with files.written(path) as file:
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT) as answer:
                if answer.status_code != requests.codes.ok:
                    raise UserError(
                        f"{url} was answered with status {answer.status_code} ({answer.reason}); "
                        "nothing was saved, try again later or check the address."
                    )
                if "Content-Encoding" not in answer.headers:
                    size = int(answer.headers.get("Content-Length", 0))
                for piece in answer.iter_content(CHUNK):
                    file.write(piece)
                    received += len(piece)
                    progress(len(piece), size)
        except (requests.RequestException, ValueError) as error:
            if received:
                raise _broke_off(url, received, size) from error
            raise UserError(
                f"{url} could not be fetched ({error}); check the connection and try again."
            ) from error
        if size and received != size:
            raise _broke_off(url, received, size)


def _broke_off(url: str, received: int, size: int) -> UserError:
    of_size = f" of {size:,}" if size else ""
    return UserError(
        f"{url} broke off after {received:,}{of_size} bytes; run the same command again."
    )
