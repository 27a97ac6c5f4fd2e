#!/usr/bin/env python3
"""Train a small model on generated stories, without a download: python examples/demo.py"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("demo")
