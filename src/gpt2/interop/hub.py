"""Models on the Hugging Face hub, through the package `huggingface_hub`."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from gpt2.errors import UserError, in_short

# The files of a model that a conversion needs, without the weights.
_SMALL = ("*.json", "merges.txt", "vocab.bpe", "*vocab.txt", "*.model")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a model on the hub: OWNER/NAME, or NAME."""
    return _NAME.fullmatch(text) is not None and not text.startswith((".", "/"))


def check_installed() -> ModuleType:
    """Return the package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            "The Hugging Face hub needs the package huggingface_hub. Install it with: "
            "pip install huggingface_hub"
        ) from error
    return huggingface_hub


def download(name: str) -> Path:
    """Return the folder of a model of the hub, downloaded into the cache of `huggingface_hub`.

    Safetensors are preferred to PyTorch's own files.

    Raises:
        UserError: the package is missing, or the hub refuses or cannot be reached.
    """
    try:
        hub = check_installed()
    except UserError as error:
        raise UserError(f"{name}: there is no such folder or file. {error}") from error
    try:
        names = hub.HfApi().list_repo_files(name)
        ending = "*.safetensors" if any(n.endswith(".safetensors") for n in names) else "*.bin"
        indexed = [n for n in names if n.endswith(ending[1:] + ".index.json")]
        other = [n for n in names if n.endswith(".index.json") and n not in indexed]
        patterns = [*_SMALL, ending]
        return Path(hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=other))
    except Exception as error:  # of half a dozen packages
        raise UserError(
            f"{name}: the hub gave no model of this name ({in_short(error)}). Check the name and "
            "the connection."
        ) from error


def push(folder: Path, name: str) -> str:
    """Upload a folder as a model of the hub, which is created if need be; return its address.

    Raises:
        UserError: the package is missing, or the hub refuses or cannot be reached.
    """
    hub = check_installed()
    try:
        api = hub.HfApi()
        address = api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload model")
        return str(address)
    except Exception as error:  # of half a dozen packages
        raise UserError(
            f"{name}: cannot be uploaded ({in_short(error)}). The folder {folder} is complete; log "
            "in with: hf auth login"
        ) from error
