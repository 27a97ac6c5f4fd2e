"""Choose and load the engine for a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import HPARAMS_FILE, ModelFolder
from gpt2.checks import check_choice
from gpt2.errors import UserError
from gpt2.generation.language_model import LanguageModel
from gpt2.quiet import import_tensorflow

if TYPE_CHECKING:
    from gpt2.generation.engine import Engine

ENGINES = ("auto", "tensorflow", "litert")
QUANTIZE = ("none", "int8")
# Number of parameters below which a model is fast without a conversion.
SMALL = 20_000_000


@dataclasses.dataclass(frozen=True)
class Converting:
    """Progress of the conversion for LiteRT, which is done once for each checkpoint."""

    folder: Path  # where the programs will be
    done: int  # programs that are finished
    of: int  # programs in total


def check_engine(engine: str, quantize: str) -> None:
    """Check the two options.

    Raises:
        UserError: one is not among the allowed values, or the engine lacks this quantization.
    """
    check_choice("engine", engine, ENGINES)
    check_choice("quantize", quantize, QUANTIZE)
    if engine == "tensorflow" and quantize != "none":
        raise UserError(
            f"engine tensorflow does not support quantize {quantize}. Use engine litert or auto."
        )


def open_model(
    model: ModelFolder,
    engine: str = "auto",
    quantize: str = "none",
    progress: Callable[[Converting], object] = lambda event: None,
) -> LanguageModel:
    """Load a model into an engine.

    Args:
        engine: "tensorflow" for any device; "litert" for CPUs, faster, after a conversion that is
            done once; "auto" for litert where there is no GPU, unless the model is small.
        quantize: "none" for float32 weights; "int8" for a quarter of the memory (litert only).
        progress: called during a conversion.

    Raises:
        UserError: an option is not valid, or a file is missing or corrupted.
    """
    check_engine(engine, quantize)
    hparams, tokenizer = model.hparams, model.tokenizer()
    import_tensorflow()
    if engine == "auto":
        engine = _engine_for(model, quantize)
    loaded = _litert(model, quantize, progress) if engine == "litert" else _tensorflow(model)
    precision = "float32" if quantize == "none" else quantize
    return LanguageModel(loaded, hparams, tokenizer, model.path.name, f"{engine} {precision}")


def _engine_for(model: ModelFolder, quantize: str) -> str:
    import tensorflow as tf

    if quantize != "none":
        return "litert"
    if tf.config.list_physical_devices("GPU") or not hasattr(tf.lite, "Interpreter"):
        return "tensorflow"
    return "litert" if model.hparams.parameters >= SMALL else "tensorflow"


def _tensorflow(model: ModelFolder) -> Engine:
    from gpt2.generation.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(model.weights(), model.hparams)


def _litert(model: ModelFolder, quantize: str, progress: Callable[[Converting], object]) -> Engine:
    from gpt2.generation import conversion_cache, litert_conversion
    from gpt2.generation.litert_engine import LiteRTEngine

    checkpoint, hparams = model.checkpoint, model.hparams
    bundle.check_against(checkpoint, hparams, model.path / HPARAMS_FILE)
    key = litert_conversion.cache_key(checkpoint, quantize)

    def convert(entry: Path, folder: Path) -> None:
        def report(done: int, of: int) -> None:
            progress(Converting(entry, done, of))

        litert_conversion.convert(model.weights(), hparams, folder, quantize, report)

    names = litert_conversion.program_files(hparams)
    return LiteRTEngine(conversion_cache.find_or_convert(key, names, convert), hparams)
