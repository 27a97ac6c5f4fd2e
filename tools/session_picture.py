#!/usr/bin/env python3
"""Run a session (encode, train, Ctrl+C, sample) in a terminal and draw its screen as an SVG.

    pip install pyte
    python tools/session_picture.py docs/session.svg

The commands run as a user types them, in a copy of the toolkit with a small model and generated
stories. What they print, status lines and progress bars included, is interpreted by pyte, a
terminal emulator. It takes a few minutes, on Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import html
import os
import pty
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, ROWS = 100, 200  # more rows than are used, so that nothing scrolls away
PREPARE = (
    "src/stories.py stories.txt --count 20000 --seed 1",
    "src/new_model.py small --dataset stories.txt --n_vocab 1024 --n_ctx 128 --n_embd 128"
    " --n_head 4 --n_layer 2 --seed 1",
)
ENCODE = "python src/encode.py stories.txt stories.npz --model_name small"
TRAIN = (
    "python src/train.py --dataset stories.npz --model_name small --optimizer adamw \\\n"
    "    --learning_rate 0.003 --batch_size 8 --print_every 100 --sample_every 100000 --seed 1"
)
SAMPLE = (
    "python src/interactive_conditional_samples.py --model_name run1 --top_k 40 \\\n"
    "    --temperature 0.7 --length 70 --seed 1"
)
# What is typed when a text appears, one after the other.
STOP = ((b"[800 | ", b"\x03"),)
TALK = ((b">>> ", b"<|fable|> Mila was\n"), (b">>> ", b"/quit\n"))

SIZE, LEADING, ADVANCE, MARGIN = 13, 18, 7.8, 16  # of the text, in pixels
BACKGROUND, FOREGROUND, PROMPT = "#0d1117", "#c9d1d9", "#7ee787"


def run(
    line: str, folder: Path, terminal: pyte.ByteStream, typed: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Run a command in a pseudo-terminal.

    Args:
        typed: texts to wait for, and what is typed when they appear.
    """
    terminal.feed(f"$ {line}\n".replace("\n", "\r\n").encode())
    words = [sys.executable, *shlex.split(line.replace("\\\n", " "))[1:]]
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=environment | {"TERM": "xterm-256color"},
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(child)
    waiting, unseen = list(typed), b""
    with contextlib.suppress(OSError):  # Linux reports the end as an error
        while output := os.read(parent, 1 << 16):
            terminal.feed(output)
            unseen += output
            if waiting and waiting[0][0] in unseen:
                os.write(parent, waiting.pop(0)[1])
                unseen = b""
    os.close(parent)
    if process.wait() not in (0, 130):
        sys.exit(f"{line} ended with {process.returncode}")


def draw(lines: list[str]) -> str:
    """Return an SVG of lines of text, in the monospaced font of the reader's system."""
    width = round(COLUMNS * ADVANCE + 2 * MARGIN)
    height = len(lines) * LEADING + 2 * MARGIN
    texts = []
    for number, line in enumerate(lines):
        if not line:
            continue
        color = f' fill="{PROMPT}"' if is_typed(lines, number) else ""
        # The length holds the columns in place, whatever the width of the font.
        length = f'textLength="{len(line) * ADVANCE:.1f}" lengthAdjust="spacingAndGlyphs"'
        y = MARGIN + LEADING * number + SIZE
        words = html.escape(line).replace(" ", "\N{NO-BREAK SPACE}")  # SVG joins plain spaces
        texts.append(f'<text x="{MARGIN}" y="{y}" {length}{color}>{words}</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img">',
        "<title>A session: a text is encoded, a model trained on it, and sampled</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>',
        f'<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{SIZE}"'
        f' fill="{FOREGROUND}">',
        *texts,
        "</g>",
        "</svg>",
        "",
    ])  # fmt: skip


def is_typed(lines: list[str], number: int) -> bool:
    """Return whether a line is a command, or continues one."""
    return lines[number].startswith("$ ") or (number > 0 and lines[number - 1].endswith(" \\"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="SVG to write")
    out = parser.parse_args().out
    screen = pyte.Screen(COLUMNS, ROWS)
    terminal = pyte.ByteStream(screen)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "src", folder / "src")
        shutil.copy(ROOT / "download_model.py", folder)
        (folder / "models").mkdir()
        for line in PREPARE:
            words = [sys.executable, *line.split()]
            subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        run(ENCODE, folder, terminal)
        run(TRAIN, folder, terminal, STOP)
        run(SAMPLE, folder, terminal, TALK)
    text = "\n".join(line.rstrip() for line in screen.display).rstrip()
    out.write_text(draw(text.split("\n")), encoding="utf-8")


if __name__ == "__main__":
    main()
