"""The systems that train, one function each, run in a process of their own.

    python benchmarks/training_systems.py "transformers bf16" '{"steps": 3, ...}'

The last line of standard output is a JSON object: seconds of each step, losses, peak memory,
versions; or "missing" with the reason. Everything is imported where it is used, for no Python has
all of it. All train a random model of the given sizes on random tokens, by Adam, without dropout.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEARNING_RATE = 1e-4


def this_project(job: dict, precision: str = "fp32", recompute: bool = False) -> dict:
    """A step of `train.py`."""
    sys.path.insert(0, str(ROOT / "src"))
    from gpt2.data.samplers import Batch
    from gpt2.hparams import HParams
    from gpt2.model import initial_weights
    from gpt2.training.memory import estimate
    from gpt2.training.settings import TrainerSettings
    from gpt2.training.trainer import Trainer

    hparams = HParams(**job["sizes"])
    settings = TrainerSettings(
        learning_rate=LEARNING_RATE, precision=precision, memory_saving_gradients=recompute
    )
    trainer = Trainer(initial_weights(hparams, seed=1), hparams, settings, seed=1)
    batches = [_tokens(job, number, one_more=True) for number in range(job["steps"] + 1)]
    numbers = iter(range(1, len(batches) + 1))

    def step(batch: object) -> float:
        result = trainer.step(next(numbers), [Batch.of_rows(batch)])
        return float(getattr(result, "loss", result))

    estimated = estimate(hparams, settings, job["batch_size"], job["window"])
    return _run(step, batches, ["tensorflow"]) | {"estimated": estimated}


def transformers(job: dict, autocast: bool) -> dict:
    """Hugging Face's GPT-2 on PyTorch, as its users write a loop."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = job["sizes"]
    config = GPT2Config(
        vocab_size=sizes["n_vocab"],
        n_positions=sizes["n_ctx"],
        n_embd=sizes["n_embd"],
        n_head=sizes["n_head"],
        n_layer=sizes["n_layer"],
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)

    def step(batch: object) -> float:
        tokens = torch.tensor(batch, dtype=torch.long)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    batches = [_tokens(job, number) for number in range(job["steps"] + 1)]
    return _run(step, batches, ["transformers", "torch"])


def gpt_2_simple(job: dict) -> dict:
    """The graph that gpt-2-simple's `finetune` builds, with its optimizer."""
    import gpt_2_simple as package
    import tensorflow as tf
    from gpt_2_simple.src import model

    hparams = model.default_hparams()
    hparams.override_from_dict(job["sizes"])
    session = package.start_tf_sess()
    tokens = tf.compat.v1.placeholder(tf.int32, [job["batch_size"], None])
    logits = model.model(hparams=hparams, X=tokens)["logits"]
    loss = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens[:, 1:], logits=logits[:, :-1])
    )
    variables = [v for v in tf.compat.v1.trainable_variables() if "model" in v.name]
    gradients = tf.gradients(ys=loss, xs=variables)
    optimizer = tf.compat.v1.train.AdamOptimizer(LEARNING_RATE)
    apply = optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
    session.run(tf.compat.v1.global_variables_initializer())

    def step(batch: object) -> float:
        return float(session.run((apply, loss), {tokens: batch})[1])

    batches = [_tokens(job, number) for number in range(job["steps"] + 1)]
    return _run(step, batches, ["gpt-2-simple", "tensorflow"])


def matrix_products(job: dict) -> dict:
    """Operations a second of TensorFlow's products of large square matrices."""
    import tensorflow as tf

    rates = {}
    for dtype in (tf.float32, tf.bfloat16):
        matrix = tf.cast(tf.random.normal([4096, 4096]), dtype)
        seconds = [_seconds(lambda matrix=matrix: tf.matmul(matrix, matrix)) for _ in range(5)]
        rates[dtype.name] = 2 * 4096**3 / min(seconds)
    return rates


SYSTEMS: dict[str, Callable[[dict], dict]] = {
    "fp32": this_project,
    "fp32, memory saving": lambda job: this_project(job, recompute=True),
    "bf16": lambda job: this_project(job, "bf16"),
    "bf16, memory saving": lambda job: this_project(job, "bf16", recompute=True),
    "gpt-2-simple": gpt_2_simple,
    "transformers fp32": lambda job: transformers(job, autocast=False),
    "transformers bf16": lambda job: transformers(job, autocast=True),
    "matrix products": matrix_products,
}
OURS = [name for name in SYSTEMS if name.startswith(("fp32", "bf16"))]


def profile(job: dict, precision: str) -> dict:
    """Seconds of the parts of a step alone, forward and backward.

    Each part as training computes it, and in float32 also as TensorFlow does from `model.py`.
    """
    sys.path.insert(0, str(ROOT / "src"))
    import tensorflow as tf

    from gpt2 import forward, model
    from gpt2.hparams import HParams

    hparams, batch, length = HParams(**job["sizes"]), job["batch_size"], job["window"]
    dtype = tf.as_dtype(precision)
    rows, width, vocabulary = batch * length, hparams.n_embd, hparams.n_vocab
    layers, heads = hparams.n_layer, hparams.n_head

    def random(*shape: int, like: object = dtype) -> object:
        return tf.cast(tf.random.normal(shape, stddev=0.1), like)

    def plain_loss(x: object, table: object) -> object:
        logits = tf.matmul(x, table, transpose_b=True)
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
        )

    def plain_linear(x: object, matrix: object, bias: object) -> object:
        return model.linear({"n/w": matrix, "n/b": bias}, "n", x)

    def linear(inputs: int, outputs: int) -> tuple:
        arguments = random(rows, inputs), random(1, inputs, outputs, like=tf.float32)
        arguments = (*arguments, random(outputs, like=tf.float32))
        return forward.linear, plain_linear, arguments, 6 * rows * inputs * outputs

    targets = tf.random.uniform([rows], 0, vocabulary, tf.int32)
    attention = [random(batch, heads, length, width // heads) for _ in range(3)]
    stream = random(rows, width, like=tf.float32)
    table = random(vocabulary, width, like=tf.float32)
    vectors = [random(width, like=tf.float32) for _ in range(2)]
    # Each: as training has it, as the model has it, arguments, operations, how often.
    parts = {
        "queries, keys, values": (*linear(width, 3 * width), layers),
        "attention's output": (*linear(width, width), layers),
        "MLP, in": (*linear(width, 4 * width), layers),
        "MLP, out": (*linear(4 * width, width), layers),
        "attention": (
            lambda q, k, v: forward.causal_attention(q, k, v),
            lambda q, k, v: model.causal_attention(0, q, k, v),
            attention,
            12 * rows * length * width,
            layers,
        ),
        "heads apart and together": (
            lambda x: model.merge_heads(tf.add_n(model.split_heads(x, hparams, batch)), hparams),
            lambda x: model.merge_heads(tf.add_n(model.split_heads(x, hparams, batch)), hparams),
            [random(rows, 3 * width)],
            0,
            layers,
        ),
        "GELU": (forward.gelu, model.gelu, [random(rows, 4 * width)], 0, layers),
        "layer norms": (
            lambda x, gain, bias: forward.layer_norm(x, gain, bias, dtype),
            lambda x, gain, bias: model.layer_norm({"n/g": gain, "n/b": bias}, "n", x),
            [stream, *vectors],
            0,
            2 * layers + 1,
        ),
        "head and loss": (
            lambda x, table: forward.cross_entropy(x, table, targets, dtype),
            plain_loss,
            [stream, table],
            6 * rows * width * vocabulary,
            1,
        ),
    }
    found = {}
    for name, (ours, plain, arguments, count, times) in parts.items():
        found[name] = {"operations": count * times, "seconds": times * _both(ours, arguments)}
        if dtype == tf.float32:
            found[name]["plain"] = times * _both(plain, arguments)
    everything = hparams.parameters
    variable, mean, square = (tf.Variable(tf.zeros([everything])) for _ in range(3))
    gradient = tf.zeros([everything])

    def adam() -> object:
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=mean.handle, v=square.handle, grad=gradient, beta1=0.9,
            beta2=0.999, beta1_power=0.9, beta2_power=0.999, lr=1e-4, epsilon=1e-8,
        )  # fmt: skip
        return variable[0]

    seconds = min(_seconds(tf.function(adam)) for _ in range(4))
    found["Adam"] = {"operations": 0, "seconds": seconds, "plain": seconds}
    return found


def _both(function: Callable, arguments: list) -> float:
    """Seconds of a function and its gradient, in a graph; the best of a few."""
    import tensorflow as tf

    @tf.function
    def both(*arguments: object) -> object:
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = function(*arguments)
        gradients = tape.gradient(result, arguments)
        # One number of each, so that nothing is left out and little is added.
        return [tf.reshape(tensor, [-1])[0] for tensor in (result, *gradients)]

    return min(_seconds(lambda: both(*arguments)[0]) for _ in range(6))


def _seconds(function: Callable) -> float:
    start = time.perf_counter()
    function().numpy().ravel()[:1].tolist()
    return time.perf_counter() - start


def _tokens(job: dict, number: int, one_more: bool = False) -> object:
    import numpy as np

    shape = job["batch_size"], job["window"] + one_more
    random = np.random.default_rng((1, number))
    return random.integers(0, job["sizes"]["n_vocab"], shape).astype(np.int32)


def _run(step: Callable[[object], float], batches: list, packages: list[str]) -> dict:
    """Time every step; the first is longer, for graphs are built in it."""
    seconds, losses = [], []
    for batch in batches:
        start = time.perf_counter()
        losses.append(step(batch))
        seconds.append(time.perf_counter() - start)
    return {
        "first": seconds[0],
        "seconds": seconds[1:],
        "losses": losses,
        "peak": _peak(),
        "version": " on ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
    }


def _peak() -> int | None:
    """The most bytes that this process held; not by getrusage, which begins with its parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    name, job = sys.argv[1], json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    try:
        if name.startswith("profile "):
            answer = profile(job, name.removeprefix("profile "))
        else:
            answer = SYSTEMS[name](job)
    except ImportError as error:
        answer = {"missing": str(error)}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
