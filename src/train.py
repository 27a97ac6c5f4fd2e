#!/usr/bin/env python3
"""Train a GPT-2 model on your text: python src/train.py --dataset shakespeare.npz"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("train")
