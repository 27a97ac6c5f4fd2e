"""The reference forward pass of GPT-2, and its random initialization.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3,
which builds on Radford et al. 2018 (GPT, section 3.1) and Vaswani et al. 2017 (the Transformer).

The weights are a mapping from OpenAI's tensor names to tensors or variables, so the checkpoint, the
paper and this code use the same names. Training and scoring use `gpt2.forward`, a faster version of
the same computation; tests compare it with this one.

Shapes in comments: B batch, T positions, C hidden size (n_embd), H heads, D head size (C / H),
V vocabulary, L layers. [B*T, C] is the batch and the positions flattened into rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from gpt2 import randomness
from gpt2.hparams import HParams

Weights = Mapping[str, tf.Tensor | tf.Variable]
# attend(layer, query, key, value) -> attended values; each [B, H, T, D].
Attend = Callable[[int, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def logits(weights: Weights, hparams: HParams, tokens: tf.Tensor) -> tf.Tensor:
    """Return the logits of the next token at every position: int32 [B, T] -> float32 [B, T, V]."""
    batch, length = tf.unstack(tf.shape(tokens))
    x = hidden_states(weights, hparams, tokens, tf.range(length))  # [B, T, C]
    flat = head(weights, tf.reshape(x, [-1, hparams.n_embd]))  # [B*T, V]
    return tf.reshape(flat, [batch, length, hparams.n_vocab])  # [B, T, V]


def hidden_states(
    weights: Weights,
    hparams: HParams,
    tokens: tf.Tensor,
    positions: tf.Tensor,
    attend: Attend | None = None,
) -> tf.Tensor:
    """Return the normalized output of the last layer, float32 [B, T, C].

    Radford et al. 2018, section 3.1, equation 2: token plus position embeddings, then the L layers.

    Args:
        tokens: int32 [B, T].
        positions: positions in the context window, below n_ctx; int32 [T] or [B, T].
        attend: attention of one layer; default `causal_attention` among `tokens`. A decoder passes
            a function that also attends to the KV cache.
    """
    attend = attend or causal_attention
    batch, length = tf.unstack(tf.shape(tokens))
    x = tf.gather(weights["model/wte"], tokens) + tf.gather(weights["model/wpe"], positions)
    x = tf.reshape(x, [-1, hparams.n_embd])  # [B, T, C] -> [B*T, C]
    for layer in range(hparams.n_layer):
        qkv = before_attention(weights, layer, x)  # [B*T, 3C]
        query, key, value = split_heads(qkv, hparams, batch)  # [B, H, T, D] each
        attended = merge_heads(attend(layer, query, key, value), hparams)  # [B*T, C]
        x = after_attention(weights, layer, x, attended)  # [B*T, C]
    return tf.reshape(final_norm(weights, x), [batch, length, hparams.n_embd])


def before_attention(weights: Weights, layer: int, x: tf.Tensor) -> tf.Tensor:
    """Return a layer's queries, keys and values side by side: [B*T, C] -> [B*T, 3C].

    Layer normalization comes before each sub-block (Radford et al. 2019, section 2.3).
    """
    name = f"model/h{layer}"
    return linear(weights, f"{name}/attn/c_attn", layer_norm(weights, f"{name}/ln_1", x))


def after_attention(weights: Weights, layer: int, x: tf.Tensor, attended: tf.Tensor) -> tf.Tensor:
    """Return a layer's output: add the projected attention, then the MLP: [B*T, C] -> [B*T, C]."""
    name = f"model/h{layer}"
    x += linear(weights, f"{name}/attn/c_proj", attended)  # [B*T, C]
    inner = linear(weights, f"{name}/mlp/c_fc", layer_norm(weights, f"{name}/ln_2", x))
    return x + linear(weights, f"{name}/mlp/c_proj", gelu(inner))  # [B*T, 4C] -> [B*T, C]


def final_norm(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """Apply the layer normalization after the last layer (section 2.3): [B*T, C] -> [B*T, C]."""
    return layer_norm(weights, "model/ln_f", x)


def head(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """Return the logits of the next token: [B*T, C] -> [B*T, V].

    The output matrix is the token embedding (Radford et al. 2018, section 3.1, equation 2).
    """
    return tf.matmul(x, weights["model/wte"], transpose_b=True)


def split_heads(
    qkv: tf.Tensor, hparams: HParams, batch: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the queries, keys and values of each head: [B*T, 3C] -> three of [B, H, T, D]."""
    head_size = hparams.n_embd // hparams.n_head
    qkv = tf.reshape(qkv, [batch, -1, 3, hparams.n_head, head_size])  # [B, T, 3, H, D]
    return tuple(tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4])))  # [3, B, H, T, D] -> three


def merge_heads(values: tf.Tensor, hparams: HParams) -> tf.Tensor:
    """Concatenate the outputs of the heads: [B, H, T, D] -> [B*T, C]."""
    return tf.reshape(tf.transpose(values, [0, 2, 1, 3]), [-1, hparams.n_embd])


def causal_attention(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Attend from each position to itself and earlier ones: three of [B, H, T, D] -> [B, H, T, D].

    Vaswani et al. 2017, section 3.2.3: masked self-attention.
    """
    return scaled_dot_product(query, key, value, causally_visible(tf.shape(query)[2]))


def causally_visible(length: int | tf.Tensor) -> tf.Tensor:
    """Return the causal mask, bool [T, T]: True where query (row) may attend to key (column)."""
    return tf.linalg.band_part(tf.ones([length, length], tf.bool), -1, 0)


def scaled_dot_product(
    query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, visible: tf.Tensor
) -> tf.Tensor:
    """Return softmax(Q K^T / sqrt(D)) V, shape [B, H, T, D] (Vaswani et al. 2017, equation 1).

    Args:
        query: [B, H, T, D].
        key, value: [B, H, S, D]; S differs from T when there is a KV cache.
        visible: attention mask, True where a query may attend to a key; broadcasts to [B, H, T, S].
    """
    return tf.matmul(attention_probabilities(query, key, visible), value)


def attention_probabilities(query: tf.Tensor, key: tf.Tensor, visible: tf.Tensor) -> tf.Tensor:
    """Return the attention probabilities, [B, H, T, S]; see `scaled_dot_product` for arguments."""
    scores = tf.matmul(query * query.shape[-1] ** -0.5, key, transpose_b=True)  # [B, H, T, S]
    scores = tf.where(visible, scores, tf.cast(-1e10, scores.dtype))
    return tf.nn.softmax(scores)


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Return GELU in the tanh approximation GPT-2 was trained with (Hendrycks and Gimpel 2016)."""
    return tf.nn.gelu(x, approximate=True)


def layer_norm(weights: Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    """Normalize the last axis to mean 0 and variance 1, then scale and shift (Ba et al. 2016)."""
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)  # [B*T, 1]
    centered = x - mean  # [B*T, C]
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)  # [B*T, 1]
    return centered * tf.math.rsqrt(variance + 1e-5) * weights[f"{name}/g"] + weights[f"{name}/b"]


def linear(weights: Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    """Return x W + b: [B*T, in] -> [B*T, out]."""
    matrix = weights[f"{name}/w"]  # [1, in, out]
    return tf.matmul(x, tf.reshape(matrix, matrix.shape[1:])) + weights[f"{name}/b"]


def initial_weights(hparams: HParams, seed: int) -> dict[str, np.ndarray]:
    """Return randomly initialized weights, float32, by OpenAI's tensor names.

    Normal with standard deviation 0.02 (0.01 for the position embeddings), biases 0, gains 1. The
    2L matrices that write into the residual stream (c_proj) are scaled by 1 / sqrt(2L)
    (Radford et al. 2019, section 2.3).
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
