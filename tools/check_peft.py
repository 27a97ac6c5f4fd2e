#!/usr/bin/env python3
"""Compare LoRA adapters with transformers and PEFT, both ways, and print the largest differences.

    python tools/check_peft.py --peers PYTHON

PYTHON is the interpreter of an environment with torch, transformers and peft. A small model is
trained with LoRA here; PEFT loads the adapter that `convert to_peft` writes. Then PEFT writes an
adapter, which `convert from_peft` reads. Exits with 1 if a logit differs by more than 1e-4.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MOST = 1e-4
SIZES = "--n_vocab 300 --n_ctx 32 --n_embd 32 --n_head 4 --n_layer 3"
RATE = "--learning_rate 0.01 --batch_size 2"
# Run by PEERS: what PEFT makes of our adapter, and an adapter that it wrote.
PEER = """
import numpy, peft, torch, transformers
from transformers import AutoModelForCausalLM as Model

tokens = torch.tensor(numpy.load("tokens.npy"))
def logits(model):
    with torch.no_grad():
        return model.eval()(tokens).logits.numpy()
ours = logits(peft.PeftModel.from_pretrained(Model.from_pretrained("base"), "adapter"))
config = peft.LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM")
theirs = peft.get_peft_model(Model.from_pretrained("base"), config)
for name, parameter in theirs.named_parameters():
    if "lora_" in name:
        torch.nn.init.normal_(parameter, std=0.1)
theirs.save_pretrained("theirs")
numpy.savez("peer.npz", ours=ours, theirs=logits(theirs))
print(f"PEFT {peft.__version__}, transformers {transformers.__version__}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", required=True, help="interpreter with transformers and peft")
    peers = parser.parse_args().peers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()  # or the models of this clone would be used

        def gpt2(words: str) -> None:
            command = [sys.executable, "-m", "gpt2", *words.split()]
            environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
            subprocess.run(
                command, cwd=folder, check=True, env=environment, stdout=subprocess.DEVNULL
            )

        (folder / "text.txt").write_text((ROOT / "README.md").read_text("utf-8"), "utf-8")
        gpt2(f"new-model small --dataset text.txt {SIZES}")
        gpt2("encode text.txt text.npz --model_name small")
        gpt2(f"train --dataset text.npz --model_name small --lora_rank 4 --max_steps 20 {RATE}")
        gpt2("convert to_hf small base")
        gpt2("convert to_peft run1 adapter")
        tokens = np.random.default_rng(1).integers(300, size=(2, 32))
        np.save(folder / "tokens.npy", tokens)
        subprocess.run([peers, "-c", PEER], cwd=folder, check=True)
        gpt2("convert from_peft theirs merged --base small")
        with np.load(folder / "peer.npz") as peer:
            differences = {
                "base": _logits(folder / "models/small", tokens) - peer["ours"],
                "to_peft": _logits(folder / "checkpoint/run1", tokens) - peer["ours"],
                "from_peft": _logits(folder / "models/merged", tokens) - peer["theirs"],
            }
    largest = {name: float(np.abs(values).max()) for name, values in differences.items()}
    print(f"without the adapter the logits differ by up to {largest.pop('base'):.2g}")
    for name, value in largest.items():
        print(f"{name}: logits differ by up to {value:.1e}")
    sys.exit(max(largest.values()) > MOST)


def _logits(path: Path, tokens: np.ndarray) -> np.ndarray:
    """Return float32 [B, T, V] of a model folder."""
    import tensorflow as tf

    from gpt2 import model
    from gpt2.checkpoint.folder import ModelFolder

    found = ModelFolder(path)
    weights = {name: tf.constant(values) for name, values in found.weights().items()}
    return model.logits(weights, found.hparams, tf.constant(tokens, tf.int32)).numpy()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    main()
