"""Write `interop/`: files of a tiny GPT-2 as PyTorch and transformers save it, and its logits.

None of the toolkit's code is used. Run by hand in an environment with torch, transformers and
tokenizers:

    python tests/golden/make_interop.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

OUTPUT = Path(__file__).with_name("interop")
SEED = 20190214
SIZES = {"vocab_size": 281, "n_positions": 12, "n_embd": 8, "n_head": 2, "n_layer": 2}
TEXTS = [
    "the cat sat on the mat",
    "  spaces\n\nand naïve émigrés, 12 of 345!",
    "one<|endoftext|>two<|poem|>three",
]
TRAINING = ["the cat and the hat and the mat sat on the other mat with another cat " * 20]


def model(weights: dict[str, torch.Tensor] | None = None, **changes: object) -> GPT2LMHeadModel:
    """Return a model of `SIZES`, its weights random and large enough that an error shows."""
    config = GPT2Config(**SIZES, bos_token_id=279, eos_token_id=279, **changes)
    torch.manual_seed(SEED)
    found = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(0.0, 0.5)
    if weights:
        found.load_state_dict(weights)
    return found


def logits(which: GPT2LMHeadModel, tokens: torch.Tensor) -> np.ndarray:
    """Return float32 [B, T, V]."""
    with torch.no_grad():
        return which(tokens).logits.float().numpy()


def linear(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict with matrices as `torch.nn.Linear` has them."""
    matrices = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {n: t.t().contiguous() if n.endswith(matrices) else t for n, t in state.items()}


def main() -> None:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    tokens = torch.randint(SIZES["vocab_size"], (1, 12), generator=torch.Generator().manual_seed(1))
    base = model()
    state = base.state_dict()  # with transformer. prefix and the tied lm_head.weight
    arrays = {"tokens": tokens.numpy(), "logits": logits(base, tokens)}
    for name, changes in {
        "inverse": {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
        "unscaled": {"scale_attn_weights": False},
    }.items():
        arrays[f"logits_{name}"] = logits(model(state, **changes), tokens)

    byte_level = ByteLevelBPETokenizer()
    byte_level.train_from_iterator(TRAINING, vocab_size=279, min_frequency=1, show_progress=False)
    byte_level.add_special_tokens(
        [AddedToken(word, special=True) for word in ("<|endoftext|>", "<|poem|>")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level._tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    assert len(tokenizer) == SIZES["vocab_size"], len(tokenizer)
    ids = {text: tokenizer(text)["input_ids"] for text in TEXTS}
    (OUTPUT / "ids.json").write_text(json.dumps(ids, indent=1) + "\n")

    base.save_pretrained(OUTPUT / "transformers")
    tokenizer.save_pretrained(OUTPUT / "transformers")
    base.save_pretrained(OUTPUT / "sharded", max_shard_size="8KB")

    # As transformers 2 and 3 wrote it: causal masks, and each type that weights come in.
    mask = torch.tril(torch.ones(12, 12, dtype=torch.bool)).view(1, 1, 12, 12)
    masks = {f"transformer.h.{n}.attn.bias": mask for n in range(2)}
    masks |= {f"transformer.h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(2)}
    whole = {**state, **masks}
    torch.save(whole, OUTPUT / "zip.bin")
    torch.save(whole, OUTPUT / "old.bin", _use_new_zipfile_serialization=False)
    plain = {name.removeprefix("transformer."): t for name, t in state.items() if "lm_" not in name}
    for name, dtype in {"half": torch.float16, "bfloat16": torch.bfloat16}.items():
        rounded = {key: tensor.to(dtype) for key, tensor in plain.items()}
        torch.save(rounded, OUTPUT / f"{name}.bin")
        exact = {f"transformer.{key}": tensor.float() for key, tensor in rounded.items()}
        exact["lm_head.weight"] = exact["transformer.wte.weight"]
        arrays[f"logits_{name}"] = logits(model(exact), tokens)

    # nanoGPT with bias=False: no biases, exact GELU, compiled, with the optimizer's state.
    no_bias = {n: torch.zeros_like(t) if n.endswith(".bias") else t for n, t in state.items()}
    arrays["logits_nanogpt"] = logits(model(no_bias, activation_function="gelu"), tokens)
    parameters = {n: t for n, t in linear(no_bias).items() if not n.endswith(".bias")}
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.sum().backward()
    optimizer.step()
    arguments = {
        "n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 12, "bias": False, "vocab_size": 281,
        "dropout": 0.0,
    }  # fmt: skip
    checkpoint = {
        "model": {f"_orig_mod.{name}": tensor for name, tensor in parameters.items()},
        "optimizer": optimizer.state_dict(),
        "model_args": arguments,
        "iter_num": 7,
        "best_val_loss": torch.tensor(1.5),
        "config": {"out_dir": "out", "compile": True, "learning_rate": 1e-3, "betas": (0.9, 0.95)},
    }
    torch.save(checkpoint, OUTPUT / "nanogpt.pt")
    # minGPT: Linear layers, the tanh form of GELU, and a head of its own, which may be equal.
    for name, head in {"mingpt": 1.0, "untied": 1.5}.items():
        separate = linear(state) | {"lm_head.weight": state["lm_head.weight"].clone() * head}
        torch.save(separate, OUTPUT / f"{name}.pt")
    # Refers to a class, which unpickling would import.
    torch.save({"model": plain, "settings": torch.optim.AdamW}, OUTPUT / "hostile.pt")
    np.savez_compressed(OUTPUT / "logits.npz", **arrays)


if __name__ == "__main__":
    main()
