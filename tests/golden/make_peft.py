"""Write `peft/`: LoRA adapters of the tiny GPT-2 in `interop/` as PEFT saves them, and its logits.

None of the toolkit's code is used. Run by hand, after make_interop.py, in an environment with
torch, transformers and peft:

    python tests/golden/make_peft.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2LMHeadModel

BASE = Path(__file__).with_name("interop") / "transformers"
OUTPUT = Path(__file__).with_name("peft")
SEED = 20210617
ALL = ["c_attn", "c_proj", "c_fc"]
ADAPTERS = {
    "plain": {"r": 3, "lora_alpha": 5, "target_modules": ALL},
    "rslora": {"r": 4, "lora_alpha": 2, "use_rslora": True, "target_modules": ["c_attn"]},
    "one_layer": {"r": 2, "lora_alpha": 3, "target_modules": ALL, "layers_to_transform": [1]},
    # What OpenAI's format cannot express, or a rank for each module.
    "dora": {"r": 2, "use_dora": True, "target_modules": ["c_attn"]},
    "embedding": {"r": 2, "target_modules": ["c_attn", "wte"]},
    "biases": {"r": 2, "bias": "all", "target_modules": ["c_attn"]},
    "ranks": {"r": 2, "rank_pattern": {"c_fc": 1}, "target_modules": ALL},
    "saved_module": {"r": 2, "modules_to_save": ["ln_f"], "target_modules": ["c_attn"]},
    "pissa": {"r": 2, "init_lora_weights": "pissa", "target_modules": ["c_attn"]},
}

READ = ("plain", "rslora", "one_layer")


def main() -> None:
    shutil.rmtree(OUTPUT, ignore_errors=True)
    tokens = torch.randint(281, (1, 12), generator=torch.Generator().manual_seed(1))
    arrays = {"tokens": tokens.numpy()}
    for name, settings in ADAPTERS.items():
        base = GPT2LMHeadModel.from_pretrained(BASE).eval()
        config = LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **settings)
        adapted = get_peft_model(base, config).eval()
        torch.manual_seed(SEED)
        with torch.no_grad():
            for parameter_name, parameter in adapted.named_parameters():
                if "lora_" in parameter_name and "magnitude" not in parameter_name:
                    parameter.normal_(0.0, 0.3)
            if name in READ:
                arrays[f"logits_{name}"] = adapted(tokens).logits.float().numpy()
        # The name of the base would be a path of this machine.
        adapted.peft_config["default"].base_model_name_or_path = "someone/small"
        # PEFT keeps the modules as a set, whose order changes from run to run.
        adapted.peft_config["default"].target_modules = sorted(settings["target_modules"])
        adapted.save_pretrained(OUTPUT / name)
        (OUTPUT / name / "README.md").unlink()
    np.savez_compressed(OUTPUT / "logits.npz", **arrays)


if __name__ == "__main__":
    main()
