"""The engine for small models: everything in NumPy, ready without TensorFlow or a conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gpt2.generation import attention
from gpt2.generation.cached_engine import CachedEngine, Product
from gpt2.hparams import HParams

_GELU = np.float32((2 / np.pi) ** 0.5)


class NumPyEngine(CachedEngine):
    """A model's weights as arrays; see `Engine`."""

    CHUNK = attention.ROWS  # BLAS may sum in another order for another number of rows

    def __init__(self, weights: Mapping[str, np.ndarray], hparams: HParams):
        """Take the tensors by OpenAI's names."""
        embeddings = weights["model/wte"], weights["model/wpe"]
        table = np.ascontiguousarray(weights["model/wte"].T)  # [C, V]
        layers = _layers(weights, hparams)
        super().__init__(hparams, embeddings, layers, [lambda x: [x @ table]])


def _layers(weights: Mapping[str, np.ndarray], hparams: HParams) -> Sequence[Product]:
    """Return the products of the layers; the mathematics is that of `gpt2.model`."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}/w"][0] + weights[f"{name}/b"]

    def normalized(name: str, x: np.ndarray) -> np.ndarray:
        x = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(x).mean(axis=-1, keepdims=True)
        return (
            x / np.sqrt(variance + np.float32(1e-5)) * weights[f"{name}/g"] + weights[f"{name}/b"]
        )

    def qkv(layer: int, x: np.ndarray) -> np.ndarray:
        return linear(f"model/h{layer}/attn/c_attn", normalized(f"model/h{layer}/ln_1", x))

    def after_attention(layer: int) -> Product:
        def product(x: np.ndarray, attended: np.ndarray) -> Sequence[np.ndarray]:
            name = f"model/h{layer}"
            x = x + linear(f"{name}/attn/c_proj", attended)
            inner = gelu(linear(f"{name}/mlp/c_fc", normalized(f"{name}/ln_2", x)))
            x = x + linear(f"{name}/mlp/c_proj", inner)
            if layer + 1 < hparams.n_layer:
                return x, qkv(layer + 1, x)
            return [normalized("model/ln_f", x)]

        return product

    return [lambda x: [qkv(0, x)], *map(after_attention, range(hparams.n_layer))]


def gelu(x: np.ndarray) -> np.ndarray:
    """Return GELU in its tanh form (Hendrycks and Gimpel 2016), as `gpt2.model.gelu`."""
    return np.float32(0.5) * x * (1 + np.tanh(_GELU * (x + np.float32(0.044715) * x * x * x)))
