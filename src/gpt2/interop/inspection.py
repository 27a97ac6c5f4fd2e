"""What a checkpoint holds, and how two models differ."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.download.releases import INDEX_FILE, RELEASES
from gpt2.hparams import RELEASED
from gpt2.interop.weights import PortableModel
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE
from gpt2.tokenizer.vocabulary import special_tokens


def describe(
    model: ModelFolder, progress: Callable[[int], object] = lambda tensors: None
) -> dict[str, Any]:
    """Return sizes, step, vocabulary, and every tensor of a model's checkpoint.

    Tensors besides the weights, such as a step counter, are listed as well.

    Args:
        progress: called with the number of tensors read since the last call.

    Raises:
        UserError: a file is missing or damaged.
    """
    prefix, hparams = model.checkpoint, model.hparams
    bundle.check_against(prefix, hparams)
    entries, read = bundle.any_tensor_reader(prefix)
    tensors = []
    for name, entry in entries.items():
        digest = hashlib.sha256(read(name).tobytes()).hexdigest()
        shape = list(entry.shape)
        tensors.append({"name": name, "shape": shape, "dtype": entry.dtype, "sha256": digest})
        progress(1)
    step = re.fullmatch(r".*-(\d+)", prefix.name)
    size = RELEASED.get((hparams.n_layer, hparams.n_embd))
    fingerprint = bundle.fingerprint(prefix)
    known = size is not None and fingerprint in RELEASES[size].sha256.get(INDEX_FILE, ())
    return {
        "checkpoint": str(prefix),
        "fingerprint": fingerprint,
        "released": size if known else None,
        "step": int(step[1]) if step else None,
        "hparams": dataclasses.asdict(hparams),
        "parameters": hparams.parameters,
        "bytes": sum(entry.size for entry in entries.values()),
        "dtypes": sorted({entry.dtype for entry in entries.values()}),
        "others": sorted(set(entries) - set(hparams.tensor_shapes())),
        "vocabulary": _vocabulary(model),
        "tensors": tensors,
    }


def _vocabulary(model: ModelFolder) -> dict[str, Any]:
    tokenizer = model.tokenizer()
    accepted = RELEASES["124M"].sha256
    return {
        "tokens": len(tokenizer.vocabulary),
        "merges": len(tokenizer.merges),
        "special_tokens": special_tokens(tokenizer.vocabulary),
        "is_gpt2": all(
            hashlib.sha256(model.file(name).read_bytes()).hexdigest() in accepted[name]
            for name in (ENCODER_FILE, MERGES_FILE)
        ),
    }


def loaders(description: Mapping[str, Any]) -> dict[str, str]:
    """Return where a model can be loaded, and what to do for it.

    Args:
        description: see `describe`.
    """
    found = {
        "this toolkit": "as it is",
        "openai/gpt-2, nshepperd/gpt-2, gpt-2-simple": "as it is"
        if not description["others"]
        else "convert from_tf1, which leaves out the tensors that are not weights",
        "transformers, CTranslate2, vLLM": "convert to_hf",
        "llama.cpp, Ollama, LM Studio": "convert to_gguf",
        "TensorFlow Serving": "convert to_savedmodel",
        "LiteRT": "convert to_litert",
    }
    if not description["vocabulary"]["merges"]:
        found["llama.cpp, Ollama, LM Studio"] = "no: the vocabulary has no merges"
    return found


@dataclasses.dataclass(frozen=True)
class TensorDifference:
    """How a tensor of one model differs from that of another.

    Attributes:
        shapes: in both models, None where it is missing.
        largest: largest absolute difference of two numbers; infinite for different shapes.
    """

    name: str
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    largest: float


def differences(
    first: PortableModel,
    second: PortableModel,
    progress: Callable[[int], object] = lambda tensors: None,
) -> list[TensorDifference]:
    """Return the difference of each tensor that one of two models has, sorted by name.

    Raises:
        UserError: a tensor cannot be read.
    """
    shapes = (first.hparams.tensor_shapes(), second.hparams.tensor_shapes())
    found = []
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        both = (shapes[0].get(name), shapes[1].get(name))
        largest = math.inf
        if both[0] == both[1]:
            largest = float(np.abs(first.read(name) - second.read(name)).max())
        found.append(TensorDifference(name, both, largest))
        progress(1)
    return found
