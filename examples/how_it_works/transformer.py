"""GPT-2's forward pass in NumPy, with the tensor names of a checkpoint.

Shapes: T positions, C hidden size, H heads, D = C / H head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]


def softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * weights[f"{name}/g"] + weights[f"{name}/b"]


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}/w"][0] + weights[f"{name}/b"]


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Attend from each position to itself and earlier ones: three of [H, T, D] -> [H, T, D]."""
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])  # [H, T, T]
    future = np.triu(np.ones(scores.shape[1:], bool), 1)
    return softmax(np.where(future, -1e10, scores)) @ value


def logits(weights: Weights, n_layer: int, n_head: int, tokens: np.ndarray) -> np.ndarray:
    """Return the logits of the next token at each position: int [T] -> [T, V]."""
    x = weights["model/wte"][tokens] + weights["model/wpe"][: len(tokens)]  # [T, C]
    for name in (f"model/h{layer}" for layer in range(n_layer)):
        qkv = linear(weights, f"{name}/attn/c_attn", layer_norm(weights, f"{name}/ln_1", x))
        heads = qkv.reshape(len(x), 3, n_head, -1).transpose(1, 2, 0, 3)  # [3, H, T, D]
        attended = attention(*heads).transpose(1, 0, 2).reshape(x.shape)  # [T, C]
        x = x + linear(weights, f"{name}/attn/c_proj", attended)
        inner = gelu(linear(weights, f"{name}/mlp/c_fc", layer_norm(weights, f"{name}/ln_2", x)))
        x = x + linear(weights, f"{name}/mlp/c_proj", inner)
    return layer_norm(weights, "model/ln_f", x) @ weights["model/wte"].T


if __name__ == "__main__":
    random = np.random.default_rng(1)
    one_head = random.standard_normal((3, 1, 4, 8))  # queries, keys, values of four positions
    changed = one_head.copy()
    changed[:, :, -1] = 0  # another last token
    same = np.isclose(attention(*one_head), attention(*changed)).all(-1)[0]
    print("unchanged when the last token changes:", *same)
