#!/usr/bin/env python3
"""Convert models from and to the formats of other programs.

python src/convert.py to_hf run1 out/
python src/convert.py from_hf out/ models/mine
"""

from gpt2.commands.main import run_script

if __name__ == "__main__":
    run_script("convert")
