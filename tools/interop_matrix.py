#!/usr/bin/env python3
"""Compare models with other programs, format by format, and write the table of docs/interop.md.

    python tools/interop_matrix.py --peers PYTHON --docs docs/interop.md

PYTHON is the interpreter of an environment with the other programs; `make interop` makes one. For
each cell a model is converted, and both sides compute greedy text of 64 tokens, logits, and the
token ids of texts. Rows that a program cannot read, or that is not installed, are left empty.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

import numpy as np
from report import write_section

from gpt2.checkpoint.folder import ModelFolder

PEERS = ROOT / "tools" / "interop_peers.py"
LENGTH = 64  # tokens of greedy text
PROMPT = 16  # tokens
TEXTS = [
    "Hello world, it's the year 2019.",
    "  spaces\n\n\ttabs   and    more ",
    "naïve émigrés, 東京, Привет, 😀👍🏽, a\u0301",
    "def f(x):\n    return x**2  # <|endoftext|> 'quoted' \"text\"",
    "",
]
TRAINING = ("README.md", "docs/training.md", "docs/glossary.md")


class Row(NamedTuple):
    """A format.

    Attributes:
        title: how it is made, for the table.
        words: of `gpt2 convert`, with MODEL and OUT (written) or IN and NAME (read).
        written_by_peer: the kind that `interop_peers.py write` makes; "" if we write the format.
        exact: whether the weights are those of the model, so that greedy text must be equal.
    """

    title: str
    words: tuple[str, ...]
    written_by_peer: str = ""
    exact: bool = True


ROWS = (
    Row("to_hf", ("to_hf", "MODEL", "OUT")),
    Row("to_hf --dtype fp16", ("to_hf", "MODEL", "OUT", "--dtype", "fp16"), exact=False),
    Row("to_hf --dtype bf16", ("to_hf", "MODEL", "OUT", "--dtype", "bf16"), exact=False),
    Row("from_hf, safetensors", ("from_hf", "OUT", "NAME"), "safetensors"),
    Row("from_hf, sharded", ("from_hf", "OUT", "NAME"), "sharded"),
    Row("from_hf, .bin", ("from_hf", "OUT", "NAME"), "bin"),
    Row("from_hf, .bin before PyTorch 1.6", ("from_hf", "OUT", "NAME"), "bin-old"),
)
# The programs that read what we write; what we read is written by transformers.
COLUMNS = ("transformers", "CTranslate2")


class Answer(NamedTuple):
    """What either side computes."""

    logits: np.ndarray  # [T, V]
    greedy: list[int]
    ids: list[list[int]]


def ours(folder: Path, prompt: Sequence[int]) -> Answer:
    """Return what this project computes with a model folder."""
    import tensorflow as tf

    from gpt2 import model as reference

    model = ModelFolder(folder)
    weights = {name: tf.constant(values) for name, values in model.weights().items()}

    @tf.function(input_signature=[tf.TensorSpec([1, None], tf.int32)])
    def logits_of(tokens: tf.Tensor) -> tf.Tensor:
        return reference.logits(weights, model.hparams, tokens)[0]

    tokens = list(prompt)
    logits = logits_of([tokens]).numpy()
    for _ in range(LENGTH):
        tokens.append(int(logits_of([tokens])[-1].numpy().argmax()))
    tokenizer = model.tokenizer()
    return Answer(logits, tokens[len(prompt) :], [tokenizer.encode(text) for text in TEXTS])


def run(words: Sequence[object], folder: Path) -> str | None:
    """Run a command; return the last line of its standard error if it fails, else None."""
    done = subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return (done.stderr.strip() or "failed").splitlines()[-1]


def convert(row: Row, folder: Path, out: Path) -> None:
    """Run the conversion of a row."""
    places = {"MODEL": "subject", "OUT": str(out), "NAME": str(folder / "models" / out.name)}
    words = [places.get(word, word) for word in row.words]
    if error := run([sys.executable, ROOT / "src" / "convert.py", *words], folder):
        sys.exit(f"{row.title}: {error}")


def cell(row: Row, peer: str, python: str, folder: Path) -> tuple[str, str]:
    """Return the text of a cell, and the version of the peer."""
    out = folder / f"{row.title}-{peer}".replace(" ", "_").replace(",", "")
    request, result = folder / "request.json", folder / "result.npz"
    direction = ("write", row.written_by_peer) if row.written_by_peer else ("read", peer)
    if not row.written_by_peer:
        convert(row, folder, out)
    if error := run([python, PEERS, *direction, out, request, result], folder):
        return f"no: {error[:60]}", ""
    if row.written_by_peer:
        convert(row, folder, out)
    with np.load(result, allow_pickle=False) as archive:
        found = Answer(
            archive["logits"], archive["greedy"].tolist(), json.loads(archive["ids"].item())
        )
        version = archive["version"].item()
    model = folder / "models" / (out.name if row.written_by_peer else "subject")
    expected = ours(model, json.loads(request.read_text())["prompt"])
    difference = np.abs(found.logits - expected.logits).max()
    text = "same text" if found.greedy == expected.greedy else "other text"
    ids = "same ids" if found.ids == expected.ids else "other ids"
    if row.exact and (text, ids) != ("same text", "same ids"):
        print(f"DIFFERENT: {row.title} by {peer}", file=sys.stderr)
    return f"{text}, {difference:.0e}, {ids}", version


def train_subject(folder: Path) -> None:
    """Train a small model on texts of the project, `models/subject`."""
    (folder / "models").mkdir()
    for name in TRAINING:
        (folder / Path(name).name).write_bytes((ROOT / name).read_bytes())
    sizes = ("--n_vocab", 400, "--n_ctx", 96, "--n_embd", 64, "--n_head", 4, "--n_layer", 3)
    train = ("--run_name", "subject", "--max_steps", 60, "--save_every", 60)
    python, src = sys.executable, ROOT / "src"
    for words in (
        [python, src / "new_model.py", "start", "--dataset", "*.md", *sizes, "--seed", 1],
        [python, src / "train.py", "--dataset", "*.md", "--model_name", "start", *train],
    ):
        if error := run(words, folder):
            sys.exit(f"{Path(words[1]).name}: {error}")
    (folder / "checkpoint" / "subject").rename(folder / "models" / "subject")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="python with the other programs")
    parser.add_argument("--docs", type=Path, help="page to write the table to")
    args = parser.parse_args()
    versions: dict[str, None] = {}
    lines = [f"| format | {' | '.join(COLUMNS)} |", "| --- |" + " --- |" * len(COLUMNS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_subject(folder)
        prompt = np.random.default_rng(0).integers(0, 256, PROMPT).tolist()
        request = {"prompt": prompt, "length": LENGTH, "texts": TEXTS}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        for row in ROWS:
            cells = []
            for peer in COLUMNS:
                if row.written_by_peer and peer != "transformers":
                    cells.append("")
                    continue
                found, version = cell(row, peer, args.peers, folder)
                cells.append(found)
                versions |= {version: None} if version else {}
            lines.append(f"| {row.title} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    table = (
        f"Measured on {datetime.date.today()} by `tools/interop_matrix.py` with "
        f"{', '.join(versions)}. Each cell: greedy text of {LENGTH} tokens, largest difference of "
        f"a logit, token ids of {len(TEXTS)} texts.\n\n" + "\n".join(lines)
    )
    if args.docs:
        write_section(args.docs, table, "matrix")


if __name__ == "__main__":
    main()
