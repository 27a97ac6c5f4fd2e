#!/usr/bin/env python3
"""Text and pictures in one sequence: one small model draws digits from captions and reads them.

    pip install scikit-learn
    python examples/digits/digits.py

A picture of 8 x 8 points is 64 tokens, one for each point's level of grey, line by line from the
top. Five levels are enough to tell the digits.
Half of the documents have the caption first and half have the picture first:

    a three<|0|><|0|><|2|><|4|> ...          <|0|><|0|><|2|><|4|> ... a three

So the model learns to go on either way. Each document is 67 tokens, the window of the model, and a
chunk of its own in the encoded file: it is always trained on as a whole, and a point of a picture
has always the same position. Only the pictures are scikit-learn's, and the classifier that judges
what was drawn; all else is done by the ordinary commands, shown as you would type them.
"""

from __future__ import annotations

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
LEVELS = [f"<|{level}|>" for level in range(5)]  # white to black
POINTS = 64
WINDOW = POINTS + 3  # with the two tokens of a caption, and <|endoftext|>
HELD_OUT = 5  # one picture in five is kept from the model
DRAWN = 20  # pictures to draw from each caption
STAGES = ((0.002, 1600), (0.0004, 2000))  # a learning rate, and the step it is used up to


def main() -> None:
    try:
        from sklearn.datasets import load_digits
        from sklearn.svm import SVC
    except ImportError:
        sys.exit("The pictures are scikit-learn's; install it with: pip install scikit-learn")
    pictures, digits = load_digits(return_X_y=True)
    pictures = (pictures / 4).round()  # of 0 to 16, to levels of 0 to 4
    known = [number for number in range(len(digits)) if number % HELD_OUT]
    unknown = range(0, len(digits), HELD_OUT)
    for folder in (DATA, "models/captions", "models/digits", "checkpoint/digits", "samples/digits"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    (ROOT / DATA).mkdir()

    write_lines("captions.txt", CAPTIONS * 2)
    write_lines("known.txt", documents(pictures[known], digits[known]))
    call(
        f"src/new_model.py captions --dataset {DATA}/captions.txt --n_vocab 400 --n_ctx {WINDOW}"
        " --n_embd 96 --n_head 4 --n_layer 4 --seed 1"
    )
    call("src/new_model.py digits --from captions --add_tokens " + shlex.join(LEVELS))
    call(f"src/encode.py {DATA}/known.txt {DATA}/known.npz --lines --combine 1 --model_name digits")
    for learning_rate, steps in STAGES:
        call(
            f"src/train.py --dataset {DATA}/known.npz --model_name digits --run_name digits"
            f" --seed 1 --batch_size 32 --learning_rate {learning_rate} --max_steps {steps}"
            " --sample_every 1000000"
        )

    judge = SVC().fit(pictures[known], digits[known])
    wanted = [digit for digit in range(10) for _ in range(DRAWN)]
    drawn = [
        [int(level) for level in re.findall(r"<\|(\d+)\|>", text)]
        for text in go_on("drawing", [CAPTIONS[digit] for digit in wanted], 65, "--temperature 0.7")
    ]
    for digit in (3, 8):
        show(CAPTIONS[digit], drawn[digit * DRAWN])
    right = sum(
        len(picture) == POINTS and judge.predict([picture])[0] == digit
        for picture, digit in zip(drawn, wanted, strict=True)
    )
    print(f"\nDrawn from captions so that the classifier recognises them: {share(right, wanted)}")

    texts = go_on("reading", map(spelled, pictures[unknown]), 3, "--temperature 0")
    right = sum(text == CAPTIONS[digit] for text, digit in zip(texts, digits[unknown], strict=True))
    print(f"\nCaptions that are right, of pictures it had never seen: {share(right, unknown)}")


def documents(pictures: Iterable, digits: Iterable[int]) -> list[str]:
    """Each picture with its caption before it, and with its caption behind it, all shuffled."""
    lines = []
    for picture, digit in zip(pictures, digits, strict=True):
        lines += [CAPTIONS[digit] + spelled(picture), spelled(picture) + CAPTIONS[digit]]
    random.Random(1).shuffle(lines)
    return lines


def spelled(picture: Iterable[float]) -> str:
    """The tokens of a picture."""
    return "".join(LEVELS[int(level)] for level in picture)


def write_lines(name: str, lines: Iterable[str]) -> None:
    """Write a file of the example's."""
    (ROOT / DATA / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def call(command: str) -> None:
    """Show a command, run it from the root of the toolkit, and give up if it fails."""
    print(f"\n$ python {command}", flush=True)
    if code := subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT).returncode:
        sys.exit(code)


def go_on(name: str, prompts: Iterable[str], length: int, flags: str) -> list[str]:
    """What the model writes after each prompt."""
    write_lines(f"{name}.txt", prompts)
    call(
        f"src/generate_conditional_samples.py --model_name digits --prompts {DATA}/{name}.txt"
        f" --out {DATA}/{name}.jsonl --length {length} --batch_size 50 --seed 1 {flags}"
    )
    records = map(json.loads, (ROOT / DATA / f"{name}.jsonl").read_text("utf-8").splitlines())
    return [record["text"] for record in sorted(records, key=lambda record: record["number"])]


def show(caption: str, picture: list[int]) -> None:
    """Print a picture, two characters for a point."""
    print(f"\n{caption}:")
    for row in range(0, len(picture), 8):
        print("".join(" .+#@"[level] * 2 for level in picture[row : row + 8]))


def share(right: int, all_of_them: list[int] | range) -> str:
    """How many of how many."""
    return f"{right} of {len(all_of_them)}, {right / len(all_of_them):.0%}"


if __name__ == "__main__":
    main()
