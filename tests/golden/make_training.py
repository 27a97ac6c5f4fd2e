"""Write `training.npz`: the small model trained by the optimizers of PyTorch and transformers.

Run by hand, like make_golden.py, whose model and batches it uses; the README beside this file
describes how, and the contents of the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from make_golden import HPARAMS, SEED, STEPS, mean_loss, named, new_model, openai_name
from torch.nn.utils import clip_grad_norm_
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)
from transformers.optimization import Adafactor

OUTPUT = Path(__file__).with_name("training.npz")
SMALL = Path(__file__).with_name("small_model.npz")
DECAY = 0.1
CLIP_NORM = 1.0
LORA = {"rank": 3, "alpha": 6.0, "layer": 1}
SCHEDULE = {"num_warmup_steps": 4, "num_training_steps": 20}

Arrays = dict[str, np.ndarray]


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return AdamW without weight decay of vectors."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3)


def momentum(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return gradient descent with momentum."""
    return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)


def clipped(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return plain gradient descent; `train` clips the gradients."""
    return torch.optim.SGD(model.parameters(), lr=1e-2)


def adafactor(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return Adafactor as set up by transformers' Trainer, with an explicit learning rate."""
    return Adafactor(model.parameters(), lr=1e-3, scale_parameter=False, relative_step=False)


def train(tokens: torch.Tensor, make: object) -> Arrays:
    """Return losses, gradient norms before clipping, and the weights after a step on each batch."""
    model = new_model()
    optimizer = make(model)
    losses, norms = [], []
    for batch in tokens:
        optimizer.zero_grad()
        loss = mean_loss(model(batch).logits, batch)
        loss.backward()
        norms.append(clip_grad_norm_(model.parameters(), CLIP_NORM if make is clipped else 1e9))
        optimizer.step()
        losses.append(loss.item())
    name = make.__name__
    return {
        f"{name}_losses": np.array(losses, np.float32),
        f"{name}_norms": np.array(norms, np.float32),
        **named(f"{name}_weights", model.named_parameters()),
    }


def lora(tokens: torch.Tensor) -> Arrays:
    """Return the results of training LoRA factors of one layer's matrices with AdamW."""
    model = new_model()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    prefix = f"transformer.h.{LORA['layer']}."
    matrices = [n for n, w in weights.items() if n.startswith(prefix) and w.dim() == 2]
    random = np.random.RandomState(SEED + 2)
    factors = {}
    for name in matrices:
        inputs, outputs = weights[name].shape
        a = random.normal(0, inputs**-0.5, (inputs, LORA["rank"])).astype(np.float32)
        factors[name] = (torch.from_numpy(a), torch.zeros(LORA["rank"], outputs))
    arrays = {f"lora_start/{openai_name(n)}": a.numpy().copy() for n, (a, _) in factors.items()}
    parameters = [factor.requires_grad_() for pair in factors.values() for factor in pair]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=DECAY)

    def merged() -> dict[str, torch.Tensor]:
        scale = LORA["alpha"] / LORA["rank"]
        return weights | {n: weights[n] + scale * a @ b for n, (a, b) in factors.items()}

    losses = []
    for batch in tokens:
        optimizer.zero_grad()
        loss = mean_loss(torch.func.functional_call(model, merged(), batch).logits, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    arrays["lora_losses"] = np.array(losses, np.float32)
    return arrays | named("lora_weights", ((n, merged()[n]) for n in matrices))


def schedules() -> Arrays:
    """Return the learning rates of transformers' schedules for each step, from its step 0."""
    total = SCHEDULE["num_training_steps"]
    warmup = {"num_warmup_steps": SCHEDULE["num_warmup_steps"]}
    arrays = {}
    for name, make, options in (
        ("constant", get_constant_schedule_with_warmup, warmup),
        ("linear", get_linear_schedule_with_warmup, SCHEDULE),
        ("cosine", get_cosine_schedule_with_warmup, SCHEDULE),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        schedule = make(optimizer, **options)
        rates = []
        for _ in range(total + 3):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        arrays[f"{name}_rates"] = np.array(rates)
    return arrays


def main() -> None:
    torch.set_num_threads(1)  # the same order of additions, so the same last bit
    torch.use_deterministic_algorithms(True)
    with np.load(SMALL, allow_pickle=False) as small:
        tokens = torch.from_numpy(small["tokens"].astype(np.int64))
    assert tokens.shape[::2] == (STEPS, HPARAMS["n_ctx"])
    arrays: Arrays = {}
    for make in (adamw, momentum, clipped, adafactor):
        arrays |= train(tokens, make)
    arrays |= lora(tokens) | schedules()
    np.savez(OUTPUT, **arrays)
    print(f"{OUTPUT.name}: {len(arrays)} arrays, {OUTPUT.stat().st_size:,} bytes")
    for name, array in arrays.items():
        if array.ndim == 1 and "/" not in name:
            print(f"{name}: {array}")


if __name__ == "__main__":
    main()
