"""Chooses and opens the engine for a model."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import HPARAMS_FILE, ModelFolder
from gpt2.errors import UserError
from gpt2.generation.language_model import LanguageModel

if TYPE_CHECKING:
    from gpt2.generation.engine import Engine

ENGINES = ("auto", "tensorflow", "litert")
QUANTIZE = ("none", "int8")
# Parameters below which a model is fast anyway, and a conversion not worth a beginner's wait.
SMALL = 20_000_000


@dataclasses.dataclass(frozen=True)
class Converting:
    """A model is being converted for LiteRT, once for each checkpoint."""

    folder: Path  # where the result will be kept
    done: int  # programs
    of: int


def check_engine(engine: str, quantize: str) -> None:
    """Hold the two options against what there is.

    Raises:
        UserError: there is no such engine, or it has no such weights.
    """
    if engine not in ENGINES:
        raise UserError(f"There is no engine {engine!r}; there are {', '.join(ENGINES)}.")
    if quantize not in QUANTIZE:
        raise UserError(f"quantize should be one of {', '.join(QUANTIZE)}, not {quantize!r}.")
    if engine == "tensorflow" and quantize != "none":
        raise UserError(f"The engine tensorflow has no {quantize} weights; litert has.")


def open_model(
    folder: Path,
    engine: str = "auto",
    quantize: str = "none",
    progress: Callable[[Converting], object] = lambda event: None,
) -> LanguageModel:
    """Read a model's folder into an engine.

    Args:
        engine: "tensorflow" for any device; "litert" for processors, faster, after a conversion
            that is kept beside the checkpoint; "auto" takes LiteRT where there is no GPU, if the
            model is not small or int8 is asked for.
        quantize: "none" for float32 weights, "int8" for a quarter of them (LiteRT only).
        progress: called while a model is converted.

    Raises:
        UserError: an option makes no sense, or a file is missing or broken.
    """
    check_engine(engine, quantize)
    model = ModelFolder(folder)
    hparams, tokenizer = model.hparams, model.tokenizer()
    if engine == "auto":
        engine = _engine_for(model, quantize)
    if engine == "litert":
        return LanguageModel(_litert(model, quantize, progress), hparams, tokenizer)
    from gpt2.generation.tensorflow_engine import TensorFlowEngine

    return LanguageModel(TensorFlowEngine(model.weights(), hparams), hparams, tokenizer)


def _engine_for(model: ModelFolder, quantize: str) -> str:
    import tensorflow as tf

    if quantize != "none":
        return "litert"
    if tf.config.list_physical_devices("GPU") or not hasattr(tf.lite, "Interpreter"):
        return "tensorflow"
    return "litert" if model.hparams.parameters >= SMALL else "tensorflow"


def _litert(model: ModelFolder, quantize: str, progress: Callable[[Converting], object]) -> Engine:
    from gpt2.generation import litert_conversion
    from gpt2.generation.litert_engine import LiteRTEngine

    checkpoint = model.checkpoint
    folder = model.path / litert_conversion.folder_name(checkpoint, quantize)
    if not litert_conversion.is_whole(folder):
        bundle.check_against(checkpoint, model.hparams, model.path / HPARAMS_FILE)
        if not os.access(model.path, os.W_OK):
            folder = Path(_temporary_folder(), folder.name)

        def tell(done: int, of: int) -> None:
            progress(Converting(folder, done, of))

        try:
            litert_conversion.convert(model.weights(), model.hparams, folder, quantize, tell)
        except UserError:
            # No room beside the model, or another process was faster.
            if not litert_conversion.is_whole(folder):
                folder = Path(_temporary_folder(), folder.name)
                litert_conversion.convert(model.weights(), model.hparams, folder, quantize, tell)
        if folder.parent == model.path:  # in the temporary one, others belong to other models
            litert_conversion.remove_outdated(folder)
    return LiteRTEngine(folder, model.hparams)


@functools.cache
def _temporary_folder() -> str:
    """A folder for this process only, deleted when it ends."""
    folder = tempfile.mkdtemp(prefix="retrain-gpt2-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
