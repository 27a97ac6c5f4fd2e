#!/usr/bin/env python3
"""Encode a text and train on it, as the project's own script did in one command.

    python examples/projects/shakespeare/train_gpt2.py shakespeare.txt --model_name small

All flags are those of src/train.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "src"))

from gpt2.commands.main import run_verb

if __name__ == "__main__":
    text, *flags = sys.argv[1:] or ["--help"]
    words = [text] if text.startswith("-") else ["--dataset", text]
    run_verb("train", [*words, *flags], Path(__file__).name)
