"""GPT-2 as a library: it never prints, never exits, and knows no flags.

import gpt2

model = gpt2.load("117M")
print(model.generate("Once upon a time", length=100, top_k=40)[0].text)

`encode`, `train` and `evaluate` do what the commands do, and return results that a notebook shows.
Of the library, only these three show progress bars.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gpt2.errors import UserError
from gpt2.version import __version__

# TensorFlow computes the large matrix products; threads only slow down NumPy's small ones. OpenBLAS
# reads this when NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["UserError", "__version__", "encode", "evaluate", "load", "train"]

if TYPE_CHECKING:
    from gpt2.api import encode, evaluate, train
    from gpt2.generation.language_model import LanguageModel


def __getattr__(name: str) -> Any:
    """Import the functions of `gpt2.api` when they are first used, as most programs use none."""
    if name in ("encode", "evaluate", "train"):
        from gpt2 import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    model_name: str | os.PathLike[str],
    engine: str = "auto",
    quantize: str = "none",
    models_dir: str | os.PathLike[str] | None = None,
    speculate: bool = False,
    draft_text: str | os.PathLike[str] = "",
    kv_cache: str = "float32",
) -> LanguageModel:
    """Return a model that is loaded for generation.

    Args:
        model_name: a model under models/, a run under checkpoint/, one of their checkpoints
            (`run1/best`, `run1/model-200`), or a path; see `gpt2.checkpoint.resolve.find_model`.
        engine, quantize, speculate, draft_text, kv_cache: see `gpt2.generation.loading.open_model`.
        models_dir: folder of the models, relative to the current folder (default: `models`).

    Raises:
        gpt2.errors.UserError: no model has this name, or a file is missing or corrupted.
    """
    from gpt2.checkpoint.resolve import find_model
    from gpt2.generation.loading import open_model

    folder = find_model(model_name, models_dir)
    return open_model(
        folder, engine, quantize, speculate=speculate, draft_text=draft_text, kv_cache=kv_cache
    )
