"""Choose and load the engine for a model."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import HPARAMS_FILE, ModelFolder
from gpt2.data import datasets
from gpt2.errors import UserError
from gpt2.generation.engine_settings import EngineSettings
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.speculation import Passages, Speculation
from gpt2.quiet import import_tensorflow

if TYPE_CHECKING:
    from gpt2.generation.engine import Engine
    from gpt2.hparams import HParams
    from gpt2.tokenizer import Tokenizer

# Number of parameters below which NumPy is fast enough, and starts in no time.
SMALL = 20_000_000


@dataclasses.dataclass(frozen=True)
class Converting:
    """Progress of the conversion for LiteRT, which is done once for each checkpoint."""

    folder: Path  # where the programs will be
    done: int  # programs that are finished
    of: int  # programs in total


Progress = Callable[[Converting], object]


def open_model(
    model: ModelFolder,
    engine: str = "auto",
    quantize: str = "none",
    progress: Progress = lambda event: None,
    speculate: bool = False,
    draft_text: str | os.PathLike[str] = "",
    kv_cache: str = "float32",
) -> LanguageModel:
    """Load a model into an engine.

    TensorFlow is imported only by the engine of that name and by a conversion.

    Args:
        engine: "litert" for CPUs, after a conversion that is done once; "tensorflow" for any
            device; "numpy" for small models; "auto" for TensorFlow on a GPU, NumPy for a small
            model, and LiteRT otherwise.
        quantize: "none" for float32 weights; "int8" for a quarter of the memory, "int4" for
            about a sixth (litert only).
        progress: called during a conversion.
        speculate: guess tokens from repetitions in the text and verify them together, which does
            not change the text (litert only).
        draft_text: path of a text or dataset (see `gpt2.data.datasets.read`) to guess from, too.
        kv_cache: "float32", or "int8" for keys and values in 8 bits (litert only, needs Numba).

    Raises:
        UserError: an option is invalid, a file is missing or corrupted, or LiteRT or Numba is
            needed and not installed.
    """
    text = str(draft_text) if isinstance(draft_text, os.PathLike) else draft_text
    settings = EngineSettings(engine, quantize, kv_cache, speculate, text)
    hparams, tokenizer = model.hparams, model.tokenizer()
    if engine == "auto":
        litert = quantize != "none" or kv_cache != "float32" or speculate
        engine = "litert" if litert else _engine_for(model)
    loaders = {"tensorflow": _tensorflow, "numpy": _numpy, "litert": _litert}
    speculation = _speculation(text, hparams, tokenizer) if speculate else None
    loaded = loaders[engine](model, settings, progress)
    precision = "float32" if quantize == "none" else quantize
    name, engine_name = model.path.name, f"{engine} {precision}"
    return LanguageModel(loaded, hparams, tokenizer, name, engine_name, speculation)


def _speculation(draft_text: str, hparams: HParams, tokenizer: Tokenizer) -> Speculation:
    if not draft_text:
        return Speculation()
    found = datasets.read(draft_text, datasets.DatasetSettings(), tokenizer, hparams.n_vocab)
    return Speculation(Passages(np.concatenate([np.zeros(0, np.int32), *found.chunks])))


def _engine_for(model: ModelFolder) -> str:
    if _may_have_gpu():
        import_tensorflow()
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            return "tensorflow"
    if model.hparams.parameters < SMALL:
        return "numpy"
    return "litert" if _has_litert() else "tensorflow"


def _may_have_gpu() -> bool:
    """Return whether TensorFlow, whose import takes seconds, might find a GPU."""
    if sys.platform.startswith("linux"):
        return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
    try:
        importlib.metadata.version("tensorflow-metal")
    except importlib.metadata.PackageNotFoundError:
        return False  # on Windows, TensorFlow has had no GPU since 2.11
    return True


def _has_litert() -> bool:
    """Return whether LiteRT is installed, as a package of its own or inside TensorFlow."""
    if importlib.util.find_spec("ai_edge_litert") is not None:
        return True
    import_tensorflow()
    import tensorflow as tf

    return hasattr(tf.lite, "Interpreter")


def _tensorflow(model: ModelFolder, settings: EngineSettings, progress: Progress) -> Engine:
    import_tensorflow()
    from gpt2.generation.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(model.weights(), model.hparams)


def _numpy(model: ModelFolder, settings: EngineSettings, progress: Progress) -> Engine:
    from gpt2.generation.numpy_engine import NumPyEngine

    return NumPyEngine(model.weights(), model.hparams)


def _litert(model: ModelFolder, settings: EngineSettings, progress: Progress) -> Engine:
    if not _has_litert():
        raise UserError(
            "LiteRT is not installed, which engine litert, quantize, kv_cache and speculate need. "
            "Install it with: pip install ai-edge-litert"
        )
    from gpt2.generation import conversion_cache, int4, int8_cache, litert_conversion
    from gpt2.generation.litert_engine import LiteRTEngine

    checkpoint, hparams, quantize = model.checkpoint, model.hparams, settings.quantize
    in_int8 = settings.kv_cache == "int8"
    if in_int8:
        int8_cache.check_numba()
    bundle.check_against(checkpoint, hparams, model.path / HPARAMS_FILE)
    if quantize == "int4":
        int4.check(hparams)
    key = litert_conversion.cache_key(checkpoint, quantize)

    def convert(entry: Path, folder: Path) -> None:
        def report(done: int, of: int) -> None:
            progress(Converting(entry, done, of))

        import_tensorflow()
        try:
            litert_conversion.convert(model.tensors(), hparams, folder, quantize, report)
        finally:  # also if its tensors no longer fit their checksums
            if litert_conversion.cache_key(checkpoint, quantize) != key:
                raise UserError(
                    f"{checkpoint} was replaced while it was being converted. Run the command "
                    "again."
                )

    names = litert_conversion.program_files(hparams)
    folder = conversion_cache.find_or_convert(key, names, convert)
    return LiteRTEngine(folder, hparams, int8_cache=in_int8)
