"""The pieces of the forward pass as training computes them.

The mathematics is that of `gpt2.model`, and tests hold each piece to it. What is different: matrix
products may be of 16-bit numbers, element-wise work is compiled into single passes over memory, and
gradients are written so that little is kept between the forward and the backward pass.

Shapes: B batch, T positions, N rows (B times T), C width, H heads, D head width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from gpt2 import model
from gpt2.hparams import HParams

# Queries that look at keys in one product. Fewer spare more of what lies ahead of them and is not
# to be seen; below this, products get too small to be fast.
ATTENTION_ROWS = 256
# Rows whose logits exist at once, of float32; twice as many of 16 bits. At 50,257 tokens 51 MB.
LOSS_ROWS = 256
LOSS_SLICES = 16  # where the number of rows is not known in advance

# No `if` and no loop in here depends on a tensor; to look for one would take TensorFlow seconds.
graph = functools.partial(tf.function, autograph=False)


@dataclasses.dataclass(frozen=True)
class ComputeSettings:
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
    """The fastest `ComputeSettings.precision` that this machine has in hardware and that trains well.

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


def compiled(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """A function of tensors as one compiled pass, and its gradient as another.

    The gradient is computed from the arguments alone: nothing else is kept for it.
    """
    forward = graph(function, jit_compile=True)

    @graph(jit_compile=True)
    def backward(upstream: tf.Tensor, *arguments: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = function(*arguments)
        return tape.gradient(result, arguments, upstream)

    @tf.custom_gradient
    def call(*arguments: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return forward(*arguments), lambda upstream: backward(upstream, *arguments)

    return call


def recomputed(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """A function that keeps only its arguments for the gradient and is evaluated again there.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". All that the gradient should
    reach has to be an argument. The first argument is what the function waits for.
    """

    @tf.custom_gradient
    def call(*arguments: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            # Without this the graph could compute it at once, and keep it.
            with tf.control_dependencies([upstream]):
                again = [tf.identity(arguments[0]), *arguments[1:]]
            with tf.GradientTape() as tape:
                tape.watch(again)
                result = function(*again)
            return tape.gradient(result, again, upstream)

        return function(*arguments), gradient

    return call


_gelu = compiled(lambda x: tf.cast(model.gelu(tf.cast(x, tf.float32)), x.dtype))


def gelu(x: tf.Tensor) -> tf.Tensor:
    """`model.gelu`, computed in float32 and rounded to what came."""
    return _gelu(x)


def layer_norm(
    x: tf.Tensor, gain: tf.Tensor, bias: tf.Tensor, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """`model.layer_norm` of float32 [N, C], rounded to `dtype`."""
    return _LAYER_NORMS[dtype](x, gain, bias)


_LAYER_NORMS = {
    dtype: compiled(
        lambda x, gain, bias, dtype=dtype: tf.cast(
            model.layer_norm({"n/g": gain, "n/b": bias}, "n", x), dtype
        )
    )
    for dtype in (tf.float32, tf.bfloat16, tf.float16)
}


def linear(x: tf.Tensor, matrix: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """`model.linear` in the precision of `x`: [N, in], [1, in, out], [out] -> [N, out]."""
    matrix = tf.cast(tf.reshape(matrix, matrix.shape[1:]), x.dtype)
    return tf.nn.bias_add(tf.matmul(x, matrix), tf.cast(bias, x.dtype))


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor | None) -> tf.Tensor:
    """Zero in places that follow from the seed, and what remains scaled up to the same mean.

    Srivastava et al. 2014.
    """
    if rate == 0:
        return x
    kept = tf.random.stateless_uniform(tf.shape(x), seed) >= rate
    return tf.where(kept, x * tf.cast(1 / (1 - rate), x.dtype), tf.zeros([], x.dtype))


@graph(jit_compile=True)
def _causal_softmax(scores: tf.Tensor) -> tf.Tensor:
    """Probabilities of [B, H, T, S], whose last query is that of the last key."""
    queries, keys = tf.unstack(tf.shape(scores)[2:])
    visible = tf.range(keys) <= tf.range(keys - queries, keys)[:, None]
    return tf.cast(
        tf.nn.softmax(tf.where(visible, tf.cast(scores, tf.float32), -1e10)), scores.dtype
    )


@graph(jit_compile=True)
def _softmax_gradient(probabilities: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    p, up = tf.cast(probabilities, tf.float32), tf.cast(upstream, tf.float32)
    return tf.cast(p * (up - tf.reduce_sum(p * up, axis=-1, keepdims=True)), upstream.dtype)


def causal_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    rate: float = 0.0,
    seed: tf.Tensor | None = None,
) -> tf.Tensor:
    """`model.causal_attention` in pieces that leave out most of what no query may see.

    Args:
        query, key, value: [B, H, T, D].
        rate, seed: of the dropout of the probabilities.
    """
    length = query.shape[2]
    rows = min(ATTENTION_ROWS, length) if length else None
    ends = [*range(rows, length, rows), length] if length else [None]
    starts = [0, *ends[:-1]]

    def dropped(x: tf.Tensor, number: int) -> tf.Tensor:
        return dropout(
            x,
            rate,
            seed if seed is None else tf.random.experimental.stateless_fold_in(seed, number),
        )

    @tf.custom_gradient
    def attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        probabilities, attended = [], []
        for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
            scores = tf.matmul(query[:, :, start:end], key[:, :, :end], transpose_b=True)
            probabilities.append(_causal_softmax(scores))  # [B, H, rows, end]
            attended.append(tf.matmul(dropped(probabilities[-1], number), value[:, :, :end]))

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            for_query, for_key, for_value = [], [], []
            for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
                up, seen = upstream[:, :, start:end], probabilities[number]
                fit = dropped(tf.matmul(up, value[:, :, :end], transpose_b=True), number)
                fit = _softmax_gradient(seen, fit)
                for_query.append(tf.matmul(fit, key[:, :, :end]))
                for_key.append(tf.matmul(fit, query[:, :, start:end], transpose_a=True))
                for_value.append(tf.matmul(dropped(seen, number), up, transpose_a=True))
            return tf.concat(for_query, 2), _sum_to(for_key), _sum_to(for_value)

        return tf.concat(attended, 2), gradient

    return attend(query * tf.cast(query.shape[-1] ** -0.5, query.dtype), key, value)


def _sum_to(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """The sum of tensors [B, H, t, D] of growing t, each as if zeros came after it."""
    total = parts[0]
    for part in parts[1:]:
        end = tf.shape(total)[2]
        total = tf.concat([total + part[:, :, :end], part[:, :, end:]], axis=2)
    return total


@tf.custom_gradient
def embed(tokens: tf.Tensor, embeddings: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable]:
    """The tokens' rows, and the embeddings themselves for whoever uses them next.

    The two gradients then meet where the rows can be added to the other in place.
    """

    def gradient(rows: tf.Tensor, whole: tf.Tensor) -> tuple[None, tf.Tensor]:
        return None, tf.tensor_scatter_nd_add(whole, tokens[:, None], rows)

    return (tf.gather(embeddings, tokens), tf.identity(embeddings)), gradient


def cross_entropy(
    x: tf.Tensor, embeddings: tf.Tensor, targets: tf.Tensor, dtype: tf.DType, gradient: bool = True
) -> tf.Tensor:
    """Mean nats of the targets that are not negative; the logits exist a slice of rows at a time.

    Args:
        x: the final layer's normalised output, float32 [N, C].
        embeddings: float32 [V, C].
        targets: int32 [N].
        dtype: of the matrix products.
        gradient: whether it will be asked for; it is computed along with the loss.
    """
    rows = x.shape[0]
    count = -(-rows // (LOSS_ROWS * tf.float32.size // dtype.size)) if rows else LOSS_SLICES
    size = -(-tf.shape(x)[0] // count) if rows is None else -(-rows // count)
    counted = tf.cast(targets >= 0, tf.float32)
    share = 1 / tf.maximum(tf.reduce_sum(counted), 1.0)  # of each of them in the mean

    @tf.custom_gradient
    def head(x: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        table = _head_table(embeddings, dtype)
        losses, for_x = [], []
        for_table: list[tf.Tensor] = []  # two at most, which the backward pass adds up
        waits: list[tf.Tensor] = []
        for number in range(count):
            part = slice(number * size, (number + 1) * size)
            with tf.control_dependencies(waits):  # one slice after the other
                inputs = tf.identity(x[part])
            logits = tf.matmul(tf.cast(inputs, dtype), table, transpose_b=True)  # [rows, V]
            nats, change = _softmax_loss(logits, tf.maximum(targets[part], 0))
            losses.append(tf.reduce_sum(nats * counted[part]))
            waits = losses[-1:]
            if not gradient:
                continue
            weight = counted[part][:, None]
            for_x.append(tf.cast(tf.matmul(change, table), tf.float32) * weight)
            product = tf.matmul(change, tf.cast(inputs * weight, dtype), transpose_a=True)
            for_table = [*([_scaled_sum(for_table, 1.0)] if number > 1 else for_table), product]
            waits = for_x[-1:]

        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            scale = share * upstream
            return tf.concat(for_x, 0) * scale, _scaled_sum(for_table, scale)

        return tf.add_n(losses) * share, backward

    return head(x, embeddings)


def _head_table(embeddings: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """What the head multiplies by.

    In 16 bits the mean row is taken out: it shifts all logits of a position alike, which changes no
    probability, and with it they are too large to be told apart (GPT-2's are near -100, where
    bfloat16 has steps of a half).
    """
    return embeddings if dtype == tf.float32 else _centred(embeddings, dtype)


@graph(jit_compile=True)
def _centred(embeddings: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(embeddings - tf.reduce_mean(embeddings, axis=0), dtype)


@graph(jit_compile=True)
def _softmax_loss(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Nats of each row, and their gradient by the logits: [N, V], [N] -> float32 [N], [N, V]."""
    scores = tf.cast(logits, tf.float32)
    scores -= tf.reduce_max(scores, axis=-1, keepdims=True)
    exponentials = tf.exp(scores)
    total = tf.reduce_sum(exponentials, axis=-1, keepdims=True)
    is_target = tf.range(logits.shape[1]) == targets[:, None]
    target = tf.reduce_sum(tf.where(is_target, scores, 0.0), axis=-1)
    nats = tf.math.log(total[:, 0]) - target
    return nats, tf.cast(exponentials / total - tf.cast(is_target, tf.float32), logits.dtype)


@graph(jit_compile=True)
def _scaled_sum(parts: Sequence[tf.Tensor], scale: tf.Tensor) -> tf.Tensor:
    return tf.add_n([tf.cast(part, tf.float32) for part in parts]) * scale


# --- the model ---


def hidden_states(
    weights: model.Weights,
    hparams: HParams,
    inputs: tf.Tensor,
    computation: ComputeSettings = ComputeSettings(),
    dropout_seed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The final layer's normalised output, float32 [N, C], and the embeddings for the head, [V, C].

    Args:
        inputs: token ids, int32 [B, T]; negative ids are read as token 0.
        dropout_seed: integers [2] that the dropout follows from.
    """
    tokens = tf.reshape(tf.maximum(inputs, 0), [-1])  # [N]
    rows, embeddings = embed(tokens, tf.convert_to_tensor(weights["model/wte"]))
    batch, length = _sizes(inputs)
    positions = tf.convert_to_tensor(weights["model/wpe"])[:length]
    x = tf.reshape(rows, [batch, length, hparams.n_embd]) + positions
    x = tf.reshape(x, [-1, hparams.n_embd])  # [N, C]
    x = dropout(x, computation.dropout, _place(dropout_seed, 0))
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

        x = (recomputed(block) if computation.recompute else block)(x, *own.values())
    return layer_norm(x, weights["model/ln_f/g"], weights["model/ln_f/b"]), embeddings


def _block(
    weights: Mapping[str, tf.Tensor],
    hparams: HParams,
    x: tf.Tensor,
    batch: int | tf.Tensor,
    computation: ComputeSettings,
    seed: tf.Tensor | None,
) -> tf.Tensor:
    """One layer, as `model.before_attention` and `model.after_attention` have it: [N, C] each."""
    dtype, rate = tf.as_dtype(computation.precision), computation.dropout

    def normalized(name: str, x: tf.Tensor) -> tf.Tensor:
        return layer_norm(x, weights[f"{name}/g"], weights[f"{name}/b"], dtype)

    def projected(name: str, x: tf.Tensor) -> tf.Tensor:
        return linear(x, weights[f"{name}/w"], weights[f"{name}/b"])

    def add(x: tf.Tensor, change: tf.Tensor, place: int) -> tf.Tensor:
        return x + dropout(tf.cast(change, tf.float32), rate, _place(seed, place))

    qkv = model.split_heads(projected("attn/c_attn", normalized("ln_1", x)), hparams, batch)
    attended = causal_attention(*qkv, rate, _place(seed, 1))
    x = add(x, projected("attn/c_proj", model.merge_heads(attended, hparams)), 2)
    inner = gelu(projected("mlp/c_fc", normalized("ln_2", x)))  # [N, 4C]
    return add(x, projected("mlp/c_proj", inner), 3)


def _sizes(inputs: tf.Tensor) -> list[int | tf.Tensor]:
    """Both sizes, as numbers where they are known."""
    dynamic = tf.unstack(tf.shape(inputs))
    return [known or size for known, size in zip(inputs.shape, dynamic, strict=True)]


def _place(seed: tf.Tensor | None, place: int) -> tf.Tensor | None:
    """A seed of its own for one place of the model."""
    return None if seed is None else tf.random.experimental.stateless_fold_in(seed, place)
