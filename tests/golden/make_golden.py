"""Write `small_model.npz`: results of a small GPT-2, computed by PyTorch and transformers.

None of the toolkit's code is used, so tests compare the toolkit with an independent implementation.
Run by hand; the README beside this file describes how, and the contents of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

OUTPUT = Path(__file__).with_name("small_model.npz")
SEED = 20190214
HPARAMS = {"n_vocab": 61, "n_ctx": 16, "n_embd": 24, "n_head": 3, "n_layer": 2}
STEPS, ROWS = 10, 2

Step = Callable[[int, torch.Tensor, torch.Tensor], None]


def openai_name(name: str) -> str:
    """Return OpenAI's name of a tensor: transformer.h.0.ln_1.weight -> model/h0/ln_1/g."""
    name = name.removeprefix("transformer.")
    if name in ("wte.weight", "wpe.weight"):
        return "model/" + name.removesuffix(".weight")
    gain = "g" if ".ln_" in f".{name}" else "w"
    name = name.replace(".weight", f".{gain}").replace(".bias", ".b")
    return "model/" + name.replace("h.", "h", 1).replace(".", "/")


def openai_array(name: str, tensor: torch.Tensor) -> np.ndarray:
    """Return a copy in OpenAI's shape: [in, out] matrices become [1, in, out]."""
    array = tensor.detach().numpy().copy()
    return array[np.newaxis] if openai_name(name).endswith("/w") else array


def named(prefix: str, tensors: Iterator[tuple[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    """Return tensors by `prefix/` plus OpenAI's name, sorted by name."""
    arrays = {f"{prefix}/{openai_name(name)}": openai_array(name, t) for name, t in tensors}
    return dict(sorted(arrays.items()))


def new_model() -> GPT2LMHeadModel:
    """Return a model with random weights, large enough that an error in any of them shows."""
    config = GPT2Config(
        vocab_size=HPARAMS["n_vocab"],
        n_positions=HPARAMS["n_ctx"],
        n_embd=HPARAMS["n_embd"],
        n_head=HPARAMS["n_head"],
        n_layer=HPARAMS["n_layer"],
        activation_function="gelu_new",
        layer_norm_epsilon=1e-5,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",  # the only one that returns attention probabilities
    )
    model = GPT2LMHeadModel(config)
    # RandomState, because NumPy guarantees that its numbers never change.
    random = np.random.RandomState(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if openai_name(name).endswith("/g") else 0.0
            values = random.normal(mean, 0.2, size=tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def mean_loss(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of all tokens but the first of each row, in nats."""
    predictions = logits[:, :-1].flatten(0, 1)  # [B, T, V] -> [B * (T - 1), V]
    return cross_entropy(predictions, tokens[:, 1:].flatten())


def adam(learning_rate: float = 1e-3) -> Step:
    """Return Adam's step as in TensorFlow 1: epsilon is added outside the bias correction."""
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8
    moments: dict[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] = {}

    def step(t: int, weight: torch.Tensor, gradient: torch.Tensor) -> None:
        zeros = torch.zeros_like(weight)
        m, v = moments.get(weight, (zeros, zeros))
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        moments[weight] = m, v
        rate = learning_rate * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        weight -= rate * m / (v.sqrt() + epsilon)

    return step


def sgd(learning_rate: float = 1e-2) -> Step:
    """Return the step of gradient descent without momentum."""

    def step(t: int, weight: torch.Tensor, gradient: torch.Tensor) -> None:
        weight -= learning_rate * gradient

    return step


def train(batches: torch.Tensor, step: Step) -> tuple[GPT2LMHeadModel, np.ndarray]:
    """Return a new model after a step on each batch, and the loss of each batch before its step."""
    model = new_model()
    losses = []
    for t, tokens in enumerate(batches, start=1):
        model.zero_grad()
        loss = mean_loss(model(tokens).logits, tokens)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for parameter in model.parameters():
                step(t, parameter, parameter.grad)
    return model, np.array(losses, dtype=np.float32)


def golden() -> dict[str, np.ndarray]:
    """Return all arrays of the file, by name."""
    shape = (STEPS, ROWS, HPARAMS["n_ctx"])
    tokens = np.random.RandomState(SEED + 1).randint(HPARAMS["n_vocab"], size=shape)
    batches = torch.from_numpy(tokens)

    model = new_model()
    arrays = {
        "hparams": np.array(json.dumps(HPARAMS)),
        "tokens": tokens.astype(np.int32),
        **named("weights", model.named_parameters()),
    }

    output = model(batches[0], output_attentions=True)
    loss = mean_loss(output.logits, batches[0])
    loss.backward()
    arrays["logits"] = output.logits.detach().numpy()
    arrays["attention"] = torch.stack(output.attentions).detach().numpy()
    arrays["loss"] = loss.detach().numpy()
    arrays |= named("gradients", ((name, p.grad) for name, p in model.named_parameters()))

    for optimizer, step in {"adam": adam(), "sgd": sgd()}.items():
        model, losses = train(batches, step)
        arrays[f"{optimizer}_losses"] = losses
        arrays |= named(f"{optimizer}_weights", model.named_parameters())
    return arrays


def main() -> None:
    torch.set_num_threads(1)  # the same order of additions, so the same last bit
    torch.use_deterministic_algorithms(True)
    arrays = golden()
    np.savez(OUTPUT, **arrays)
    print(f"{OUTPUT.name}: {len(arrays)} arrays, {OUTPUT.stat().st_size:,} bytes")
    for name in ("loss", "adam_losses", "sgd_losses"):
        print(f"{name}: {arrays[name]}")


if __name__ == "__main__":
    main()
