"""How well a model predicts each next token, computed for training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams
from gpt2.training import operations


@dataclasses.dataclass(frozen=True)
class Computation:
    """How the forward and the backward pass are computed."""

    # "float32", "bfloat16" or "float16": of the matrix products and what lies between two of them;
    # weights, the residual stream, statistics and the loss are float32.
    precision: str = "float32"
    recompute: bool = False  # each block again in the backward pass, instead of keeping it
    dropout: float = 0.0  # of embeddings, attention and what blocks add (Radford et al. 2018)
    gradient: bool = True  # whether it will be asked for; False spares the half of the head's work


# Instructions that multiply bfloat16 numbers, as /proc/cpuinfo names them.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "avx10_1", "avx10_2"}


def hardware_precision() -> str:
    """The fastest `Computation.precision` that this machine has in hardware and that trains well.

    float16 only on GPUs from Volta on that lack bfloat16, float32 where the system does not tell.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        abilities = [
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
            for gpu in gpus
        ]
        return _gpu_precision(min(abilities))
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        text = ""
    return _cpu_precision(text)


def _gpu_precision(compute_capability: tuple[int, int]) -> str:
    if compute_capability >= (8, 0):
        return "bfloat16"
    return "float16" if compute_capability >= (7, 0) else "float32"


def _cpu_precision(cpuinfo: str) -> str:
    return "bfloat16" if BFLOAT16_FLAGS & set(cpuinfo.split()) else "float32"


def next_token_loss(
    weights: model.Weights,
    hparams: HParams,
    inputs: tf.Tensor,
    targets: tf.Tensor,
    computation: Computation = Computation(),
    dropout_seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """Mean cross-entropy in nats, a float32 scalar.

    Args:
        inputs: what the model sees, int32 [B, T]; negative ids are read as token 0.
        targets: the token that follows each of them, int32 [B, T]; negative ids do not count.
        dropout_seed: integers [2] that the dropout follows from.
    """
    dtype = tf.as_dtype(computation.precision)
    x, embeddings = hidden_states(weights, hparams, inputs, computation, dropout_seed)
    targets = tf.reshape(targets, [-1])
    return operations.cross_entropy(x, embeddings, targets, dtype, computation.gradient)


def hidden_states(
    weights: model.Weights,
    hparams: HParams,
    inputs: tf.Tensor,
    computation: Computation = Computation(),
    dropout_seed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The final layer's normalised output, float32 [N, C], and the embeddings for the head, [V, C].

    Args:
        inputs, dropout_seed: see `next_token_loss`.
    """
    tokens = tf.reshape(tf.maximum(inputs, 0), [-1])  # [N]
    rows, embeddings = operations.embed(tokens, tf.convert_to_tensor(weights["model/wte"]))
    batch, length = _sizes(inputs)
    positions = tf.convert_to_tensor(weights["model/wpe"])[:length]
    x = tf.reshape(rows, [batch, length, hparams.n_embd]) + positions
    x = tf.reshape(x, [-1, hparams.n_embd])  # [N, C]
    x = operations.dropout(x, computation.dropout, _place(dropout_seed, 0))
    for layer in range(hparams.n_layer):
        name = f"model/h{layer}/"
        own = {key: tf.convert_to_tensor(weights[key]) for key in weights if key.startswith(name)}

        def block(x: tf.Tensor, *tensors: tf.Tensor, layer=layer, names=tuple(own)) -> tf.Tensor:
            parts = {
                key.removeprefix(f"model/h{layer}/"): tensor
                for key, tensor in zip(names, tensors, strict=True)
            }
            seed = _place(dropout_seed, layer + 1)
            return _block(parts, hparams, x, batch, computation, seed)

        x = (operations.recomputed(block) if computation.recompute else block)(x, *own.values())
    return operations.layer_norm(x, weights["model/ln_f/g"], weights["model/ln_f/b"]), embeddings


def _block(
    weights: Mapping[str, tf.Tensor],
    hparams: HParams,
    x: tf.Tensor,
    batch: int | tf.Tensor,
    computation: Computation,
    seed: tf.Tensor | None,
) -> tf.Tensor:
    """One layer, as `model.before_attention` and `model.after_attention` have it: [N, C] each."""
    dtype, rate = tf.as_dtype(computation.precision), computation.dropout

    def norm(name: str, x: tf.Tensor) -> tf.Tensor:
        return operations.layer_norm(x, weights[f"{name}/g"], weights[f"{name}/b"], dtype)

    def linear(name: str, x: tf.Tensor) -> tf.Tensor:
        return operations.linear(x, weights[f"{name}/w"], weights[f"{name}/b"])

    def add(x: tf.Tensor, change: tf.Tensor, place: int) -> tf.Tensor:
        return x + operations.dropout(tf.cast(change, tf.float32), rate, _place(seed, place))

    qkv = model.split_heads(linear("attn/c_attn", norm("ln_1", x)), hparams, batch)
    attended = operations.causal_attention(*qkv, rate, _place(seed, 1))
    x = add(x, linear("attn/c_proj", model.merge_heads(attended, hparams)), 2)
    inner = operations.gelu(linear("mlp/c_fc", norm("ln_2", x)))  # [N, 4C]
    return add(x, linear("mlp/c_proj", inner), 3)


def _sizes(inputs: tf.Tensor) -> list[int | tf.Tensor]:
    """Both sizes, as numbers where they are known."""
    dynamic = tf.unstack(tf.shape(inputs))
    return [known or size for known, size in zip(inputs.shape, dynamic, strict=True)]


def _place(seed: tf.Tensor | None, place: int) -> tf.Tensor | None:
    """A seed of its own for one place of the model."""
    return None if seed is None else tf.random.experimental.stateless_fold_in(seed, place)
