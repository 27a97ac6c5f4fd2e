"""GPT-2's forward pass, and nothing but.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3, which
builds on Radford et al. 2018 and Vaswani et al. 2017. The weights are a mapping from OpenAI's tensor
names to tensors or variables, so the file's names, the paper's and the code's are the same.

Shapes: B batch, T positions, C width, H heads, D head width, V vocabulary.
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
    positions = tf.range(tf.shape(tokens)[1])
    return head(weights, hidden_states(weights, hparams, tokens, positions))


def hidden_states(
    weights: Weights,
    hparams: HParams,
    tokens: tf.Tensor,
    positions: tf.Tensor,
    attend: Attend | None = None,
    wrap_block: Callable[[Callable], Callable] = lambda block: block,
) -> tf.Tensor:
    """The final layer's normalised output, float32 [B, T, C].

    Args:
        tokens: int32 [B, T].
        positions: places in the window, below n_ctx; int32 [T] or [B, T].
        attend: how a layer's queries look at keys and values; causally among `tokens` if not
            given. A decoder passes one that keeps the keys and values of earlier tokens.
        wrap_block: put around the function of each block, for example to recompute it in the
            backward pass.
    """
    attend = attend or causal_attention
    x = tf.gather(weights["model/wte"], tokens) + tf.gather(weights["model/wpe"], positions)
    for layer in range(hparams.n_layer):

        def apply(x: tf.Tensor, layer: int = layer) -> tf.Tensor:
            return block(weights, hparams, layer, x, attend)

        x = wrap_block(apply)(x)  # [B, T, C]
    return layer_norm(weights, "model/ln_f", x)


def head(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """Scores of the next token, by likeness to its embedding: [..., C] -> [..., V]."""
    width = x.shape[-1]
    scores = tf.matmul(tf.reshape(x, [-1, width]), weights["model/wte"], transpose_b=True)
    return tf.reshape(scores, tf.concat([tf.shape(x)[:-1], tf.shape(scores)[-1:]], axis=0))


def block(
    weights: Weights, hparams: HParams, layer: int, x: tf.Tensor, attend: Attend
) -> tf.Tensor:
    """One layer: attention, then the MLP, each on normalised input and added: [B, T, C]."""
    name = f"model/h{layer}"
    x += attention(weights, hparams, layer, layer_norm(weights, f"{name}/ln_1", x), attend)
    x += mlp(weights, f"{name}/mlp", layer_norm(weights, f"{name}/ln_2", x))
    return x


def attention(
    weights: Weights, hparams: HParams, layer: int, x: tf.Tensor, attend: Attend
) -> tf.Tensor:
    """Multi-head self-attention: [B, T, C] -> [B, T, C]."""
    name = f"model/h{layer}/attn"
    batch, length = tf.shape(x)[0], tf.shape(x)[1]
    width = hparams.n_embd // hparams.n_head
    qkv = linear(weights, f"{name}/c_attn", x)  # [B, T, 3C]
    qkv = tf.reshape(qkv, [batch, length, 3, hparams.n_head, width])
    query, key, value = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))  # each [B, H, T, D]
    values = attend(layer, query, key, value)  # [B, H, T, D]
    merged = tf.reshape(tf.transpose(values, [0, 2, 1, 3]), [batch, length, hparams.n_embd])
    return linear(weights, f"{name}/c_proj", merged)


def causal_attention(layer: int, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Each position attends to itself and those before it: [B, H, T, D] -> [B, H, T, D]."""
    length = tf.shape(query)[2]
    visible = tf.linalg.band_part(tf.ones([length, length], tf.bool), -1, 0)  # [T, T]
    return scaled_dot_product(query, key, value, visible)


def scaled_dot_product(
    query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, visible: tf.Tensor
) -> tf.Tensor:
    """Values weighted by how well their keys fit the queries (Vaswani et al. 2017, equation 1).

    Args:
        query: [B, H, T, D].
        key, value: [B, H, S, D].
        visible: whether a query may look at a key; broadcasts to [B, H, T, S].
    """
    scores = tf.matmul(query * query.shape[-1] ** -0.5, key, transpose_b=True)  # [B, H, T, S]
    scores = tf.where(visible, scores, tf.cast(-1e10, scores.dtype))
    return tf.matmul(tf.nn.softmax(scores), value)


def mlp(weights: Weights, name: str, x: tf.Tensor) -> tf.Tensor:
    """Two linear layers around a GELU, four times as wide inside: [B, T, C] -> [B, T, C]."""
    return linear(weights, f"{name}/c_proj", gelu(linear(weights, f"{name}/c_fc", x)))


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
    """A matrix and a bias: [B, T, in] -> [B, T, out]."""
    matrix = weights[f"{name}/w"]  # [1, in, out]
    inputs, outputs = matrix.shape[1:]
    rows = tf.matmul(tf.reshape(x, [-1, inputs]), tf.reshape(matrix, [inputs, outputs]))
    shape = tf.concat([tf.shape(x)[:-1], [outputs]], axis=0)
    return tf.reshape(rows + weights[f"{name}/b"], shape)


def fresh_weights(hparams: HParams, seed: int) -> dict[str, np.ndarray]:
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
