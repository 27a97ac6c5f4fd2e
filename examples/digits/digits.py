#!/usr/bin/env python3
"""Text and pictures in one sequence: one small model draws digits from captions and reads them.

    pip install scikit-learn
    python examples/digits/digits.py

See README.md in this folder for the method and the results. scikit-learn provides the pictures and
the classifier that judges the drawings; everything else is done by the usual commands, which are
printed as you would type them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = Path("examples/digits/data")
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CAPTIONS = [f"an {name}" if name == "eight" else f"a {name}" for name in NAMES]
SIDE = 8  # pixels in each row and column of a picture
LEVELS = [f"<|{level}|>" for level in range(5)]  # gray levels, white to black
START = "<|endoftext|>"  # precedes each document in training, and so each prompt
WINDOW = 1 + SIDE * SIDE + 2  # START, a picture, and the two tokens of a caption
SHIFTS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
HELD_OUT = 5  # one picture in five is held out
CAPTION_FIRST = 3  # documents per picture with the caption first; there are 9 others
DRAWN = 20  # pictures to draw for each caption

Picture = list[int]  # gray levels, row by row from the top


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="random seed")
    parser.add_argument(
        "--steps",
        type=int,
        default=3000,
        help="training steps (default: 3000, which draws about 97%% right; 900 draw about 34%%)",
    )
    args = parser.parse_args()
    try:
        known, unknown = load_pictures()
        from sklearn.svm import SVC
    except ImportError:
        sys.exit("This example needs scikit-learn. Install it: pip install scikit-learn")
    for folder in (DATA, "models/captions", "models/digits", "checkpoint/digits-run"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    (ROOT / DATA).mkdir()
    write_lines("captions.txt", CAPTIONS * 2)  # merges need at least two occurrences
    write_lines("known.txt", documents(known, args.seed))

    call(
        f"src/new_model.py captions --dataset {DATA}/captions.txt --n_vocab 400 --n_ctx {WINDOW}"
        f" --n_embd 96 --n_head 4 --n_layer 4 --seed {args.seed}"
    )
    call("src/new_model.py digits --from captions --add_tokens " + shlex.join(LEVELS))
    call(f"src/encode.py {DATA}/known.txt {DATA}/known.npz --lines --model_name digits")
    call(
        f"src/train.py --dataset {DATA}/known.npz --respect_documents --model_name digits"
        f" --run_name digits-run --seed {args.seed} --batch_size 32 --max_steps {args.steps}"
        f" --learning_rate 0.002 --lr_schedule cosine --warmup_steps {args.steps // 30}"
        " --sample_every 1000000"
    )

    wanted = [digit for digit in range(10) for _ in range(DRAWN)]
    captions = [CAPTIONS[digit] for digit in wanted]
    how = f"--length {SIDE * SIDE + 1} --temperature 0.7 --seed {args.seed}"
    drawn = list(map(levels, complete("drawing", captions, how)))
    for digit in (3, 8):
        show(CAPTIONS[digit], drawn[digit * DRAWN])
    pictures, digits = zip(*known, strict=True)
    judge = SVC().fit(pictures, digits)
    recognized = sum(
        len(picture) == SIDE * SIDE and judge.predict([picture])[0] == digit
        for picture, digit in zip(drawn, wanted, strict=True)
    )
    print(f"\nDrawn from captions and recognized by the classifier: {of(recognized, wanted)}")

    read = complete(
        "reading", [spelled(picture) for picture, _ in unknown], "--length 3 --temperature 0"
    )
    right = sum(text == CAPTIONS[digit] for text, (_, digit) in zip(read, unknown, strict=True))
    print(f"\nCaptions that are right, for held-out pictures: {of(right, unknown)}")


def load_pictures() -> tuple[list[tuple[Picture, int]], list[tuple[Picture, int]]]:
    """Return the training pictures and the held-out pictures, each with its digit."""
    from sklearn.datasets import load_digits

    pictures, digits = load_digits(return_X_y=True)
    pictures = (pictures / 4).round().astype(int).tolist()  # from 0..16 to levels 0..4
    pairs = list(zip(pictures, digits.tolist(), strict=True))
    known = [pair for number, pair in enumerate(pairs) if number % HELD_OUT]
    return known, pairs[::HELD_OUT]


def documents(known: Iterable[tuple[Picture, int]], seed: int) -> list[str]:
    """Return documents with each picture after its caption, and shifted copies before it."""
    lines = []
    for picture, digit in known:
        lines += [CAPTIONS[digit] + spelled(picture)] * CAPTION_FIRST
        lines += [spelled(moved(picture, *shift)) + CAPTIONS[digit] for shift in SHIFTS]
    random.Random(seed).shuffle(lines)
    return lines


def moved(picture: Picture, down: int, right: int) -> Picture:
    """Return the picture shifted within its frame, filled up with white."""
    return [
        picture[SIDE * (row - down) + column - right]
        if 0 <= row - down < SIDE and 0 <= column - right < SIDE
        else 0
        for row in range(SIDE)
        for column in range(SIDE)
    ]


def spelled(picture: Picture) -> str:
    """Return the tokens of a picture."""
    return "".join(LEVELS[level] for level in picture)


def levels(text: str) -> Picture:
    """Return the picture that a text encodes."""
    return [int(level) for level in re.findall(r"<\|(\d)\|>", text)]


def write_lines(name: str, lines: Iterable[str]) -> None:
    """Write a data file of this example."""
    (ROOT / DATA / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def call(command: str) -> None:
    """Print a command, run it in the root of the repository, and exit if it fails."""
    print(f"\n$ python {command}", flush=True)
    if code := subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT).returncode:
        sys.exit(code)


def complete(name: str, prompts: Iterable[str], flags: str) -> list[str]:
    """Return the completion of each prompt."""
    write_lines(f"{name}.txt", (START + prompt for prompt in prompts))
    call(
        f"src/generate_conditional_samples.py --model_name digits-run --prompts {DATA}/{name}.txt"
        f" --out {DATA}/{name}.jsonl --batch_size 50 {flags}"
    )
    with open(ROOT / DATA / f"{name}.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [record["text"] for record in sorted(records, key=lambda record: record["number"])]


def show(caption: str, picture: Picture) -> None:
    """Print a picture, two characters per pixel."""
    print(f"\n{caption}:")
    for row in range(0, len(picture), SIDE):
        print("".join(" .+#@"[level] * 2 for level in picture[row : row + SIDE]))


def of(some: int, everything: list) -> str:
    """Return how many of how many, with the percentage."""
    return f"{some} of {len(everything)}, {some / len(everything):.0%}"


if __name__ == "__main__":
    main()
