#!/usr/bin/env python3
"""Run the commands of a page of the docs, in full length, and print them with their output.

    python tools/run_page.py docs/tutorial.md FOLDER

The outputs that the page shows are taken from here. Downloads and other programs are left out, and
interactive commands get an empty input.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.support import documents


def main(page: str, folder: str) -> None:
    (Path(folder) / "models").mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for block in documents.blocks(Path(page).resolve()):
        for words in block.commands():
            found = documents.verb_of(words)
            if not found or found[0] in ("download", "serve"):
                continue
            print("$", shlex.join(words), flush=True)
            command = [sys.executable, "-m", "gpt2", found[0], *found[1]]
            subprocess.run(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=True
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
