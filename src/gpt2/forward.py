"""The fast forward pass, for training and scoring.

It computes the same as `gpt2.model`, and tests compare each function with the one there. The
differences: matrix products may use 16-bit numbers, element-wise operations are compiled into
single passes over memory (XLA), and custom gradients keep little between the forward and the
backward pass.

Order: precision, helpers (XLA, gradient checkpointing), pieces of a layer, one layer,
`hidden_states`, `cross_entropy`.

Shapes in comments: B batch, T positions, C hidden size, H heads, D head size, V vocabulary.
[B*T, C] is the batch and the positions flattened into rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from gpt2 import model
from gpt2.data.samplers import Batch
from gpt2.hparams import HParams
from gpt2.slices import ATTENTION_ROWS, LOSS_ROWS, band_rows

LOSS_SLICES = 16  # slices of the loss when the number of rows is unknown while tracing
# CPU flags in /proc/cpuinfo that mean bfloat16 products in hardware.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "avx10_1", "avx10_2"}

# No `if` or loop in these functions depends on a tensor, and AutoGraph takes seconds to check.
graph = functools.partial(tf.function, autograph=False)


# --- precision ---


@dataclasses.dataclass(frozen=True)
class ComputeSettings:
    """How the forward and the backward pass are computed."""

    # "float32", "bfloat16" or "float16", for matrix products and the activations between them.
    # Weights, the residual stream, softmax statistics and the loss stay float32.
    precision: str = "float32"
    gradient_checkpointing: bool = False  # recompute each layer's activations in the backward pass
    dropout: float = 0.0  # of embeddings, attention and residuals (Radford et al. 2018, 4.1)
    gradient: bool = True  # False skips the gradient of the loss, about half of the head's work


def hardware_precision() -> str:
    """Return the fastest `ComputeSettings.precision` that this machine supports in hardware.

    float16 only on GPUs that have it and lack bfloat16 (Volta and Turing); float32 if unknown.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capabilities = [
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
            for gpu in gpus
        ]
        return _gpu_precision(min(capabilities))
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


# --- helpers ---


def compiled(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Return a function of tensors with its forward and its backward pass compiled by XLA.

    The backward pass starts from the arguments: no intermediate result is kept for it.
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


def gradient_checkpointed(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Return a function that keeps only its arguments and recomputes itself in the backward pass.

    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".

    Args:
        function: a function of tensors. Only its arguments get gradients, so it must not read
            trained tensors in another way.
    """

    @tf.custom_gradient
    def call(*arguments: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            # Without this dependency TensorFlow may recompute early and keep the result.
            with tf.control_dependencies([upstream]):
                copies = [tf.identity(arguments[0]), *arguments[1:]]
            with tf.GradientTape() as tape:
                tape.watch(copies)
                result = function(*copies)
            return tape.gradient(result, copies, upstream)

        return function(*arguments), gradient

    return call


def _fold_in(seed: tf.Tensor | None, number: int) -> tf.Tensor | None:
    """Return a seed of its own for one use of dropout."""
    return None if seed is None else tf.random.experimental.stateless_fold_in(seed, number)


# --- the pieces of a layer ---


@tf.custom_gradient
def embed(tokens: tf.Tensor, embeddings: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable]:
    """Return the embeddings of tokens, [B*T, C], and the whole matrix for the head, [V, C].

    GPT-2 uses `wte` twice. With both results from one function, the gradient of the lookup is added
    to that of the head in place, without a second matrix of [V, C].
    """

    def gradient(d_rows: tf.Tensor, d_matrix: tf.Tensor) -> tuple[None, tf.Tensor]:
        return None, tf.tensor_scatter_nd_add(d_matrix, tokens[:, None], d_rows)

    return (tf.gather(embeddings, tokens), tf.identity(embeddings)), gradient


_gelu = compiled(lambda x: tf.cast(model.gelu(tf.cast(x, tf.float32)), x.dtype))


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Return `model.gelu`, computed in float32 and returned in the dtype of `x`."""
    return _gelu(x)


def layer_norm(
    x: tf.Tensor, gain: tf.Tensor, bias: tf.Tensor, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """Return `model.layer_norm` of float32 [B*T, C], in `dtype`."""
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
    """Return `model.linear` in the dtype of `x`: [B*T, in], [1, in, out], [out] -> [B*T, out]."""
    matrix = tf.cast(tf.reshape(matrix, matrix.shape[1:]), x.dtype)
    return tf.nn.bias_add(tf.matmul(x, matrix), tf.cast(bias, x.dtype))


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor | None) -> tf.Tensor:
    """Set a share `rate` of `x` to 0 and scale the rest by 1 / (1 - rate).

    Source: Srivastava et al. 2014. The mask is a function of the seed, integers [2].
    """
    if rate == 0:
        return x
    kept = tf.random.stateless_uniform(tf.shape(x), seed) >= rate
    return tf.where(kept, x * tf.cast(1 / (1 - rate), x.dtype), tf.zeros([], x.dtype))


def causal_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    rate: float = 0.0,
    seed: tf.Tensor | None = None,
    segments: tf.Tensor | None = None,
    reach: int | None = None,
) -> tf.Tensor:
    """Return `model.causal_attention`, computed in slices of queries that skip most masked keys.

    Args:
        query, key, value: [B, H, T, D].
        rate: dropout probability of the attention probabilities.
        seed: integers [2] for the dropout.
        segments: of packed examples, integers [B, T]; queries see only the keys of their segment.
        reach: size of the largest segment, if it is known; keys further back are skipped.
    """
    query *= tf.cast(query.shape[-1] ** -0.5, query.dtype)
    length = query.shape[2]
    of_queries = of_keys = None if segments is None else segments[:, None, :, None]  # [B, 1, T, 1]
    rows = band_rows(reach) if reach and length and reach < length else None
    if rows:
        query, of_queries = _in_blocks(query, rows), _in_blocks(of_queries, rows)
        key, value, of_keys = (_with_previous(_in_blocks(x, rows)) for x in (key, value, of_keys))
        parts = [(0, rows, 0, 2 * rows)]
        attended = _attend(query, key, value, of_queries, of_keys, parts, rate, seed)
        return _from_blocks(attended, length)
    step = min(ATTENTION_ROWS, length) if length else None
    ends = [*range(step, length, step), length] if length else [None]
    starts = [0, *ends[:-1]]
    firsts = [max(0, start - reach + 1) if reach else 0 for start in starts]  # keys needed
    parts = list(zip(starts, ends, firsts, ends, strict=True))
    return _attend(query, key, value, of_queries, of_keys, parts, rate, seed)


def _in_blocks(x: tf.Tensor, rows: int) -> tf.Tensor:
    """Return [B, H, T, D] as blocks of positions, [B, H, N, rows, D], -1 after the end."""
    batch, heads, length, size = _sizes(x)
    count = -(-length // rows)
    if missing := count * rows - length:
        x = tf.pad(x, [[0, 0], [0, 0], [0, missing], [0, 0]], constant_values=-1)
    return tf.reshape(x, [batch, heads, count, rows, size])


def _from_blocks(x: tf.Tensor, length: int) -> tf.Tensor:
    """Return the first positions of [B, H, N, rows, D], [B, H, length, D]."""
    batch, heads, count, rows, size = _sizes(x)
    x = tf.reshape(x, [batch, heads, count * rows, size])
    # The gradient of `tf.slice` pads, which is much faster than that of an index.
    return x if count * rows == length else tf.slice(x, [0, 0, 0, 0], [-1, -1, length, -1])


@tf.custom_gradient
def _with_previous(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Return each block after the one before it, [B, H, N, 2 * rows, D], -2 before the first."""
    return _joined_with_previous(x), _sum_with_next


@graph(jit_compile=True)
def _joined_with_previous(x: tf.Tensor) -> tf.Tensor:
    previous = tf.pad(x[:, :, :-1], [[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]], constant_values=-2)
    return tf.concat([previous, x], axis=3)


@graph(jit_compile=True)
def _sum_with_next(upstream: tf.Tensor) -> tf.Tensor:
    """Return the gradient of `_joined_with_previous`: [B, H, N, 2 * rows, D] -> half the rows."""
    as_previous, own = tf.split(upstream, 2, axis=3)
    return own + tf.pad(as_previous[:, :, 1:], [[0, 0], [0, 0], [0, 1], [0, 0], [0, 0]])


def _attend(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    of_queries: tf.Tensor | None,
    of_keys: tf.Tensor | None,
    parts: Sequence[tuple[int, int | None, int, int | None]],
    rate: float,
    seed: tf.Tensor | None,
) -> tf.Tensor:
    """Return the attention of queries [..., T, D] to keys [..., S, D], part by part.

    Args:
        of_queries, of_keys: segments of the queries and the keys, integers [..., T, 1] and
            [..., S, 1], or None.
        parts: start and end of some queries, and of the keys that the last of them see.
        rate, seed: of the dropout.
    """

    def softmax(scores: tf.Tensor, queries: slice, keys: slice) -> tf.Tensor:
        if of_queries is None:
            return _causal_softmax(scores)
        return _segment_softmax(scores, of_queries[..., queries, :], of_keys[..., keys, :])

    def dropped(x: tf.Tensor, number: int) -> tf.Tensor:
        return dropout(x, rate, _fold_in(seed, number))

    slices = [(slice(start, end), slice(first, last)) for start, end, first, last in parts]
    firsts = [first for _, _, first, _ in parts]

    @tf.custom_gradient
    def attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        probabilities, attended = [], []
        for number, (queries, keys) in enumerate(slices):
            scores = tf.matmul(query[..., queries, :], key[..., keys, :], transpose_b=True)
            p = softmax(scores, queries, keys)  # [..., queries, keys]
            probabilities.append(p)
            attended.append(tf.matmul(dropped(p, number), value[..., keys, :]))

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            d_query, d_key, d_value = [], [], []
            for number, (queries, keys) in enumerate(slices):
                up, p = upstream[..., queries, :], probabilities[number]
                d_p = dropped(tf.matmul(up, value[..., keys, :], transpose_b=True), number)
                d_scores = _softmax_gradient(p, d_p)  # [..., queries, keys]
                d_query.append(tf.matmul(d_scores, key[..., keys, :]))
                d_key.append(tf.matmul(d_scores, query[..., queries, :], transpose_a=True))
                d_value.append(tf.matmul(dropped(p, number), up, transpose_a=True))
            sums = (_sum_overlapping(gradients, firsts) for gradients in (d_key, d_value))
            return tf.concat(d_query, -2), *sums

        return tf.concat(attended, -2), gradient

    return attend(query, key, value)


@graph(jit_compile=True)
def _causal_softmax(scores: tf.Tensor) -> tf.Tensor:
    """Return the probabilities for scores [..., T, S], T <= S; the queries are the last T."""
    queries, keys = tf.unstack(tf.shape(scores)[-2:])
    visible = tf.range(keys) <= tf.range(keys - queries, keys)[:, None]
    return tf.cast(
        tf.nn.softmax(tf.where(visible, tf.cast(scores, tf.float32), -1e10)), scores.dtype
    )


@graph(jit_compile=True)
def _segment_softmax(scores: tf.Tensor, of_queries: tf.Tensor, of_keys: tf.Tensor) -> tf.Tensor:
    """Return `_causal_softmax` among the keys of each query's segment.

    Args:
        of_queries, of_keys: segments, integers [B, 1, ..., T, 1] and [B, 1, ..., S, 1].
    """
    same = of_queries == tf.linalg.matrix_transpose(of_keys)  # [B, 1, ..., T, S]
    return _causal_softmax(tf.where(same, scores, scores.dtype.min))


@graph(jit_compile=True)
def _softmax_gradient(probabilities: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    p, up = tf.cast(probabilities, tf.float32), tf.cast(upstream, tf.float32)
    return tf.cast(p * (up - tf.reduce_sum(p * up, axis=-1, keepdims=True)), upstream.dtype)


def _sum_overlapping(parts: Sequence[tf.Tensor], starts: Sequence[int]) -> tf.Tensor:
    """Return the sum of tensors [..., t, D] that begin at these positions and end one by one."""
    total = parts[0]
    for part, start in zip(parts[1:], starts[1:], strict=True):
        overlap = tf.shape(total)[-2] - start
        middle = total[..., start:, :] + part[..., :overlap, :]
        total = tf.concat([total[..., :start, :], middle, part[..., overlap:, :]], axis=-2)
    return total


# --- one layer, and the model ---


def _block(
    weights: Mapping[str, tf.Tensor],
    hparams: HParams,
    x: tf.Tensor,
    batch: int | tf.Tensor,
    settings: ComputeSettings,
    seed: tf.Tensor | None,
    segments: tf.Tensor | None,
    reach: int | None,
) -> tf.Tensor:
    """Return the output of one layer: [B*T, C] -> [B*T, C].

    As `model.before_attention`, attention and `model.after_attention`, with dropout of the
    attention probabilities and of both results that are added to the residual stream.

    Args:
        weights: the layer's tensors, named without `model/hN/`.
        batch: B.
        seed: integers [2] for the dropout of this layer.
        segments, reach: see `Batch`.
    """
    dtype, rate = tf.as_dtype(settings.precision), settings.dropout

    def normalized(name: str, x: tf.Tensor) -> tf.Tensor:
        return layer_norm(x, weights[f"{name}/g"], weights[f"{name}/b"], dtype)

    def projected(name: str, x: tf.Tensor) -> tf.Tensor:
        return linear(x, weights[f"{name}/w"], weights[f"{name}/b"])

    def add(x: tf.Tensor, change: tf.Tensor, number: int) -> tf.Tensor:
        return x + dropout(tf.cast(change, tf.float32), rate, _fold_in(seed, number))

    qkv = projected("attn/c_attn", normalized("ln_1", x))  # [B*T, 3C]
    query, key, value = model.split_heads(qkv, hparams, batch)  # [B, H, T, D] each
    attended = causal_attention(query, key, value, rate, _fold_in(seed, 1), segments, reach)
    x = add(x, projected("attn/c_proj", model.merge_heads(attended, hparams)), 2)
    inner = gelu(projected("mlp/c_fc", normalized("ln_2", x)))  # [B*T, 4C]
    return add(x, projected("mlp/c_proj", inner), 3)


def hidden_states(
    weights: model.Weights,
    hparams: HParams,
    batch: Batch,
    settings: ComputeSettings = ComputeSettings(),
    dropout_seed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the normalized output of the last layer and the embeddings for the head.

    Args:
        weights: tensors or variables, by OpenAI's names.
        batch: of arrays or tensors; its targets are not used.
        dropout_seed: integers [2]; required if `settings.dropout` is not 0.

    Returns:
        The hidden states, float32 [B*T, C], and `wte`, float32 [V, C]. The head has to use this
        `wte` for the gradients of both uses to meet; see `embed`.
    """
    inputs = tf.convert_to_tensor(batch.inputs)
    tokens = tf.reshape(tf.maximum(inputs, 0), [-1])  # [B*T]
    rows, embeddings = embed(tokens, tf.convert_to_tensor(weights["model/wte"]))
    size, length = _sizes(inputs)
    positions = tf.convert_to_tensor(weights["model/wpe"])
    if batch.positions is None:
        positions = positions[:length]  # [T, C]
    else:
        positions = tf.gather(positions, batch.positions)  # [B, T, C]
    segments = None if batch.segments is None else tf.convert_to_tensor(batch.segments)
    x = tf.reshape(rows, [size, length, hparams.n_embd]) + positions  # [B, T, C]
    x = tf.reshape(x, [-1, hparams.n_embd])  # [B*T, C]
    x = dropout(x, settings.dropout, _fold_in(dropout_seed, 0))
    for layer in range(hparams.n_layer):
        prefix = f"model/h{layer}/"
        own = {
            name.removeprefix(prefix): tf.convert_to_tensor(tensor)
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }

        def block(x: tf.Tensor, *tensors: tf.Tensor, layer=layer, names=tuple(own)) -> tf.Tensor:
            layer_weights = dict(zip(names, tensors, strict=True))
            seed = _fold_in(dropout_seed, layer + 1)
            return _block(layer_weights, hparams, x, size, settings, seed, segments, batch.reach)

        run = gradient_checkpointed(block) if settings.gradient_checkpointing else block
        x = run(x, *own.values())
    return layer_norm(x, weights["model/ln_f/g"], weights["model/ln_f/b"]), embeddings


def _sizes(inputs: tf.Tensor) -> list[int | tf.Tensor]:
    """Return B and T of [B, T], as Python integers where they are known while tracing."""
    dynamic = tf.unstack(tf.shape(inputs))
    return [known or size for known, size in zip(inputs.shape, dynamic, strict=True)]


# --- the loss ---


def cross_entropy(
    x: tf.Tensor, embeddings: tf.Tensor, targets: tf.Tensor, dtype: tf.DType, gradient: bool = True
) -> tf.Tensor:
    """Return the mean cross-entropy of the targets in nats, a float32 scalar.

    The logits of only one slice of rows exist at a time, and never those of the whole batch. The
    gradient is computed in the same pass as the loss, so that no logits have to be kept.

    Args:
        x: hidden states, float32 [B*T, C].
        embeddings: `wte`, float32 [V, C].
        targets: int32 [B*T]; negative ids (padding) are ignored. 0 nats if all are.
        dtype: of the matrix products.
        gradient: whether the gradient is needed.
    """
    rows = x.shape[0]
    count = -(-rows // (LOSS_ROWS * tf.float32.size // dtype.size)) if rows else LOSS_SLICES
    size = -(-tf.shape(x)[0] // count) if rows is None else -(-rows // count)
    counted = tf.cast(targets >= 0, tf.float32)
    share = 1 / tf.maximum(tf.reduce_sum(counted), 1.0)  # weight of one target in the mean

    @tf.custom_gradient
    def head(x: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        matrix = _head_matrix(embeddings, dtype)
        losses, d_x = [], []
        d_matrix: list[tf.Tensor] = []  # at most two; the backward pass adds them
        previous: list[tf.Tensor] = []
        for number in range(count):
            part = slice(number * size, (number + 1) * size)
            with tf.control_dependencies(previous):  # one slice after the other
                inputs = tf.identity(x[part])
            logits = tf.matmul(tf.cast(inputs, dtype), matrix, transpose_b=True)  # [size, V]
            nats, d_logits = _softmax_cross_entropy(logits, tf.maximum(targets[part], 0))
            losses.append(tf.reduce_sum(nats * counted[part]))
            previous = losses[-1:]
            if not gradient:
                continue
            weight = counted[part][:, None]
            d_x.append(tf.cast(tf.matmul(d_logits, matrix), tf.float32) * weight)
            product = tf.matmul(d_logits, tf.cast(inputs * weight, dtype), transpose_a=True)
            total = [_scaled_sum(d_matrix, 1.0)] if number > 1 else d_matrix
            d_matrix = [*total, product]
            previous = d_x[-1:]

        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            scale = share * upstream
            return tf.concat(d_x, 0) * scale, _scaled_sum(d_matrix, scale)

        return tf.add_n(losses) * share, backward

    return head(x, embeddings)


def _head_matrix(embeddings: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return the output matrix in `dtype`; in 16 bits, minus the mean embedding.

    The mean adds the same number to all logits of a position, which changes no probability.
    GPT-2's logits are near -100, where neighboring bfloat16 numbers are 0.5 apart.
    """
    return embeddings if dtype == tf.float32 else _centered(embeddings, dtype)


@graph(jit_compile=True)
def _centered(embeddings: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(embeddings - tf.reduce_mean(embeddings, axis=0), dtype)


@graph(jit_compile=True)
def _softmax_cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the cross-entropy of each row, float32 [size], and its gradient, [size, V].

    Args:
        logits: [size, V].
        targets: int32 [size].
    """
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
