#!/usr/bin/env python3
"""Download released models into models/: python download_model.py 117M"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("download")
