#!/usr/bin/env python3
"""Make a small dataset of questions and answers: arithmetic, capitals, opposites and colors.

    python examples/questions/questions.py

writes three files to examples/questions/data: `train.jsonl` and `test.jsonl` with a question and
its answer in each line, and `conversations.jsonl` with several of the training questions in a row,
as messages. Every fact is asked in several ways, of which one is only in the test file. The facts
are common knowledge and the questions are this project's own, so the data is free of licenses.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"
CONVERSATIONS = 600

CAPITALS = {
    "Austria": "Vienna", "Belgium": "Brussels", "Bulgaria": "Sofia", "Canada": "Ottawa",
    "Chile": "Santiago", "China": "Beijing", "Cuba": "Havana", "Denmark": "Copenhagen",
    "Egypt": "Cairo", "Finland": "Helsinki", "France": "Paris", "Germany": "Berlin",
    "Greece": "Athens", "Hungary": "Budapest", "Ireland": "Dublin", "Italy": "Rome",
    "Japan": "Tokyo", "Kenya": "Nairobi", "Norway": "Oslo", "Peru": "Lima", "Poland": "Warsaw",
    "Portugal": "Lisbon", "Romania": "Bucharest", "Spain": "Madrid", "Sweden": "Stockholm",
}  # fmt: skip
OPPOSITES = {
    "big": "small", "hot": "cold", "fast": "slow", "high": "low", "old": "new", "wet": "dry",
    "light": "dark", "early": "late", "open": "closed", "full": "empty", "hard": "soft",
    "loud": "quiet", "strong": "weak", "rich": "poor", "long": "short", "clean": "dirty",
}  # fmt: skip
COLORS = {
    "grass": "green", "snow": "white", "coal": "black", "blood": "red", "a lemon": "yellow",
    "the sky": "blue", "a tomato": "red", "milk": "white", "the sea": "blue", "a frog": "green",
    "a flamingo": "pink", "a carrot": "orange", "chocolate": "brown", "an elephant": "gray",
}  # fmt: skip
SUMS = {f"{a} plus {b}": str(a + b) for a in range(10) for b in range(10)}

# Of each kind: its facts, and the ways to ask for one.
KINDS = {
    "capital": (
        CAPITALS,
        [
            "What is the capital of {}?",
            "Which city is the capital of {}?",
            "Name the capital of {}.",
            "Tell me the capital of {}, please.",
        ],
    ),
    "opposite": (
        OPPOSITES,
        [
            "What is the opposite of {}?",
            "Which word is the opposite of {}?",
            "Name the opposite of {}.",
            "Tell me the opposite of {}, please.",
        ],
    ),
    "color": (
        COLORS,
        [
            "What color is {}?",
            "Which color is {}?",
            "Name the color of {}.",
            "Tell me the color of {}, please.",
        ],
    ),
    "sum": (SUMS, ["What is {}?", "How much is {}?", "Name the sum {}.", "Tell me {}, please."]),
}


def questions() -> Iterator[tuple[dict[str, str], bool]]:
    """Yield each question with its answer, and whether it is held out for the test."""
    for kind, (facts, ways) in KINDS.items():
        for number, (thing, answer) in enumerate(facts.items()):
            for way, text in enumerate(ways):
                record = {"kind": kind, "question": text.format(thing), "answer": answer}
                yield record, way == number % len(ways)


def conversations(records: list[dict[str, str]], seed: int = 1) -> Iterator[dict[str, list]]:
    """Yield conversations of one to three questions."""
    choose = random.Random(seed)
    for _ in range(CONVERSATIONS):
        messages = []
        for record in choose.sample(records, choose.randint(1, 3)):
            messages.append({"role": "user", "content": record["question"]})
            messages.append({"role": "assistant", "content": record["answer"]})
        yield {"messages": messages}


def write(name: str, records: list[dict]) -> None:
    """Write records as JSON lines."""
    path = DATA / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    print(f"{path}: {len(records)} records")


def main() -> None:
    """Write the three files."""
    DATA.mkdir(exist_ok=True)
    train = [record for record, held_out in questions() if not held_out]
    write("train.jsonl", train)
    write("test.jsonl", [record for record, held_out in questions() if held_out])
    write("conversations.jsonl", list(conversations(train)))


if __name__ == "__main__":
    main()
