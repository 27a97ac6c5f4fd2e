"""GPT-2's forward pass, and nothing but.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3, which
builds on Radford et al. 2018 and Vaswani et al. 2017. The weights are a mapping from OpenAI's
tensor names to tensors or variables, so the file's names, the paper's and the code's are the same.

Shapes: B batch, T positions, N rows (B times T), C width, H heads, D head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from gpt2 import randomness
from gpt2.hparams import HParams

Weights = Mapping[str, tf.Tensor | tf.Variable]
# From queries, keys and values of one layer, each [B, H, T, D], to the attended values.
Attend = Callable[[int, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def logits(weights: Weights, hparams: HParams, tokens: tf.Tensor) -> tf.Tensor:
    """Scores of every next token at every position: int32 [B, T] -> float32 [B, T, V]."""
    batch, length = tf.unstack(tf.shape(tokens))
    x = hidden_states(weights, hparams, tokens, tf.range(length))
    scores = head(weights, tf.reshape(x, [-1, hparams.n_embd]))
    return tf.reshape(scores, [batch, length, hparams.n_vocab])


def hidden_states(
    weights: Weights,
    hparams: HParams,
    tokens: tf.Tensor,
    positions: tf.Tensor,
    attend: Attend | None = None,
) -> tf.Tensor:
    """The final layer's normalised output, float32 [B, T, C].

    Args:
        tokens: int32 [B, T].
        positions: places in the window, below n_ctx; int32 [T] or [B, T].
        attend: how a layer's queries look at keys and values; causally among `tokens` if not
            given. A decoder passes one that keeps the keys and values of earlier tokens.
    """
    attend = attend or causal_attention
    batch, length = tf.unstack(tf.shape(tokens))
    x = tf.gather(weights["model/wte"], tokens) + tf.gather(weights["model/wpe"], positions)
    x = tf.reshape(x, [-1, hparams.n_embd])  # [N, C]
    for layer in range(hparams.n_layer):
        query, key, value = split_heads(before_attention(weights, layer, x), hparams, batch)
        attended = merge_heads(attend(layer, query, key, value), hparams)
        x = after_attention(weights, layer, x, attended)
    return tf.reshape(final_norm(weights, x), [batch, length, hparams.n_embd])


def head(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """Scores of the next token, by likeness to its embedding: [N, C] -> [N, V]."""
    return tf.matmul(x, weights["model/wte"], transpose_b=True)


def before_attention(weights: Weights, layer: int, x: tf.Tensor) -> tf.Tensor:
    """Queries, keys and values of a layer side by side: [N, C] -> [N, 3C]."""
    name = f"model/h{layer}"
    return linear(weights, f"{name}/attn/c_attn", layer_norm(weights, f"{name}/ln_1", x))


def after_attention(weights: Weights, layer: int, x: tf.Tensor, attended: tf.Tensor) -> tf.Tensor:
    """The rest of a layer: adds what was attended to, then the MLP's output: [N, C] -> [N, C]."""
    name = f"model/h{layer}"
    x += linear(weights, f"{name}/attn/c_proj", attended)
    inner = linear(weights, f"{name}/mlp/c_fc", layer_norm(weights, f"{name}/ln_2", x))  # [N, 4C]
    return x + linear(weights, f"{name}/mlp/c_proj", gelu(inner))


def final_norm(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """What the head is given: [N, C] -> [N, C]."""
    return layer_norm(weights, "model/ln_f", x)


def split_heads(
    qkv: tf.Tensor, hparams: HParams, batch: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Queries, keys and values of each head: [N, 3C] -> three of [B, H, T, D]."""
    width = hparams.n_embd // hparams.n_head
    qkv = tf.reshape(qkv, [batch, -1, 3, hparams.n_head, width])
    return tuple(tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4])))


def merge_heads(values: tf.Tensor, hparams: HParams) -> tf.Tensor:
    """The heads' values side by side again: [B, H, T, D] -> [N, C]."""
    return tf.reshape(tf.transpose(values, [0, 2, 1, 3]), [-1, hparams.n_embd])


def causal_attention(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Each position attends to itself and those before it: [B, H, T, D] -> [B, H, T, D]."""
    return scaled_dot_product(query, key, value, causally_visible(tf.shape(query)[2]))


def causally_visible(length: int | tf.Tensor) -> tf.Tensor:
    """Each position sees itself and those before it: bool [T, T]."""
    return tf.linalg.band_part(tf.ones([length, length], tf.bool), -1, 0)


def scaled_dot_product(
    query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, visible: tf.Tensor
) -> tf.Tensor:
    """Values weighted by how well their keys fit the queries (Vaswani et al. 2017, equation 1).

    Args:
        query: [B, H, T, D].
        key, value: [B, H, S, D].
        visible: whether a query may look at a key; broadcasts to [B, H, T, S].
    """
    return tf.matmul(attention_probabilities(query, key, visible), value)


def attention_probabilities(query: tf.Tensor, key: tf.Tensor, visible: tf.Tensor) -> tf.Tensor:
    """How much each query looks at each key, [B, H, T, S]; see `scaled_dot_product`."""
    scores = tf.matmul(query * query.shape[-1] ** -0.5, key, transpose_b=True)  # [B, H, T, S]
    scores = tf.where(visible, scores, tf.cast(-1e10, scores.dtype))
    return tf.nn.softmax(scores)


def gelu(x: tf.Tensor) -> tf.Tensor:
    """GELU in its tanh form, which GPT-2 was trained with (Hendrycks and Gimpel 2016)."""
    return tf.nn.gelu(x, approximate=True)


def layer_norm(weights: Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    """Mean 0 and variance 1 along the width, then a gain and a bias (Ba et al. 2016)."""
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    centred = x - mean
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + 1e-5) * weights[f"{name}/g"] + weights[f"{name}/b"]


def linear(weights: Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    """A matrix and a bias: [N, in] -> [N, out]."""
    matrix = weights[f"{name}/w"]  # [1, in, out]
    return tf.matmul(x, tf.reshape(matrix, matrix.shape[1:])) + weights[f"{name}/b"]


def initial_weights(hparams: HParams, seed: int) -> dict[str, np.ndarray]:
    """Weights to begin a training with, float32, drawn as the paper did.

    Normal with deviation 0.02 (0.01 for positions), biases 0, gains 1; matrices that write into
    the residual stream are smaller by the root of how many there are (paper, section 2.3).
    """
    random = randomness.generator(seed, randomness.WEIGHTS)
    weights = {}
    for name, shape in hparams.tensor_shapes().items():
        kind = name.rpartition("/")[2]
        if kind == "b":
            weights[name] = np.zeros(shape, np.float32)
        elif kind == "g":
            weights[name] = np.ones(shape, np.float32)
        else:
            deviation = 0.01 if kind == "wpe" else 0.02
            if name.endswith("c_proj/w"):
                deviation /= (2 * hparams.n_layer) ** 0.5
            weights[name] = random.standard_normal(shape, np.float32) * np.float32(deviation)
    return weights
