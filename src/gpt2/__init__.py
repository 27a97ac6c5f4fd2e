"""The library behind the commands: it never prints, never exits, and knows no flags.

import gpt2

model = gpt2.load("117M")
print(model.generate("Once upon a time", length=100, top_k=40)[0].text)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# The heavy products are TensorFlow's. What is left for NumPy's are small ones, which threads of
# their own only slow down; this has to be said before NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "2.0.0"

if TYPE_CHECKING:
    from gpt2.generation.language_model import LanguageModel


def load(
    model_name: str, engine: str = "auto", quantize: str = "none", models_dir: str = "models"
) -> LanguageModel:
    """Open a model for writing.

    Args:
        model_name: a model under models/, a run under checkpoint/, or the path of a folder.
        engine, quantize: see `gpt2.generation.loading.open_model`.
        models_dir: the folder that holds the models.

    Raises:
        gpt2.errors.UserError: there is no such model, or a file of it is missing or broken.
    """
    from gpt2.generation.loading import open_model
    from gpt2.workspace import Workspace

    folder = Workspace.find(models_dir, model_name).model_folder(model_name)
    return open_model(folder, engine, quantize)
