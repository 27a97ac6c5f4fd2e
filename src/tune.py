#!/usr/bin/env python3
"""Search for the best training settings: python src/tune.py --dataset text.npz --max_steps 200"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("tune")
