"""The models that OpenAI released: files, URLs, sizes and checksums."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gpt2.hparams import RELEASED, HParams
from gpt2.workspace import RENAMED

# OpenAI's server, then the mirror of the book "Build a Large Language Model".
ADDRESSES = (
    "https://openaipublic.blob.core.windows.net/gpt-2/models",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2",
)

INDEX_FILE = "model.ckpt.index"
DATA_FILE = "model.ckpt.data-00000-of-00001"
# In download order: the index is needed to verify the data.
FILES = (
    "hparams.json",
    "encoder.json",
    "vocab.bpe",
    "checkpoint",
    INDEX_FILE,
    "model.ckpt.meta",
    DATA_FILE,
)

_EVERY_SIZE = {"encoder.json": 1_042_301, "vocab.bpe": 456_318, "checkpoint": 77}
_SIZES = {
    "124M": {INDEX_FILE: 5_215, "model.ckpt.meta": 471_155},
    "355M": {INDEX_FILE: 10_399, "model.ckpt.meta": 926_519},
}
_EVERY_SHA256 = {
    "encoder.json": {"196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"},
    "vocab.bpe": {"1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"},
    "checkpoint": {"dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb"},
}
# Hashes of 774M and 1558M were never published; their tensors are verified by crc32c.
_SHA256 = {
    "124M": {
        "hparams.json": {
            "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318",
            # as first released in February 2019, without the newline at the end
            "097db6ed93a3d9b8a32532fca9e564c703bed00c73908ecc49d1b05db2199606",
        },
        INDEX_FILE: {"71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687"},
        "model.ckpt.meta": {"4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b"},
        DATA_FILE: {"2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118"},
    },
    "355M": {
        "hparams.json": {"310dfdb1f0c786b79d93459eaa470f3978d873bdc3e1f9fed1cad24d9dd0b1f6"},
        INDEX_FILE: {"4490e7b1f5ec0abfc1e111fcd27cdda7cb280c597ba0a885c364134e62ce43aa"},
        "model.ckpt.meta": {"06e1a92057d2a4fbdc483bd1f61a26cc274f1c999b84c6d9e9c50aa8d5ead44a"},
        DATA_FILE: {"22b4212602a087d1cdeec3509648f4d7b1f181eaa33ce0f3c688fbfb732d622f"},
    },
}


@dataclasses.dataclass(frozen=True)
class Release:
    """One size of GPT-2, with known file sizes and checksums."""

    name: str  # present name, as on the servers
    sizes: Mapping[str, int]  # bytes
    sha256: Mapping[str, set[str]]  # accepted digests by file


def _release(layers: int, width: int, name: str) -> Release:
    parameters = HParams(n_layer=layers, n_embd=width, n_head=1).parameters
    return Release(
        name,
        _EVERY_SIZE | _SIZES.get(name, {}) | {DATA_FILE: 4 * parameters},
        _EVERY_SHA256 | _SHA256.get(name, {}),
    )


_PRESENT = {name: _release(*size, name) for size, name in RELEASED.items()}
# By the present and the first name of each size.
RELEASES = {early: _PRESENT[name] for early, name in RENAMED.items()} | _PRESENT
