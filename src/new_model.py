#!/usr/bin/env python3
"""Create a model with a vocabulary of its own: python src/new_model.py small --dataset text.txt"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("new-model")
