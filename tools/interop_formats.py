#!/usr/bin/env python3
"""Compare GGUF and SavedModel with the programs that run them, and write a table of the docs.

    python tools/interop_formats.py --peers PYTHON --docs docs/interop.md

PYTHON is the interpreter of an environment with llama-cpp-python; the SavedModel is run by
TensorFlow without this project. Both sides compute the logits behind a prompt, greedy text of 64
tokens, and for llama.cpp the token ids of texts. The model has random weights and a vocabulary
learned from texts of the project.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

import numpy as np
from report import write_section

from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.hparams import HParams
from gpt2.interop.gguf import TYPES
from gpt2.tokenizer import train_vocabulary

LENGTH = 64  # tokens of greedy text
SIZES = {"n_ctx": 96, "n_embd": 64, "n_head": 4, "n_layer": 3}
TEXTS = [
    "Hello world, it's the year 2019.",
    "  spaces\n\n\ttabs   and    more ",
    "na\u00efve \u00e9migr\u00e9s, \u6771\u4eac, \u041f\u0440\u0438\u0432\u0435\u0442, \U0001f600",
    "def f(x):\n    return x**2  # 'quoted' \"text\"",
    "The end.<|endoftext|>The beginning.",
]

LLAMA = """
import json, sys
import llama_cpp
path, prompt, length, texts = json.load(sys.stdin)
defaults = llama_cpp.llama_cpp.llama_model_default_params
def params():
    found = defaults()
    found.use_extra_bufts = False  # kernels that some virtual machines cannot run
    return found
llama_cpp.llama_cpp.llama_model_default_params = params
model = llama_cpp.Llama(path, n_ctx=0, logits_all=True, verbose=False)
tokens, logits = list(prompt), None
model.eval(prompt)
for _ in range(length):
    scores = model.scores[model.n_tokens - 1]
    logits = scores.tolist() if logits is None else logits
    tokens.append(int(scores.argmax()))
    model.eval(tokens[-1:])
ids = [model.tokenize(text.encode(), add_bos=False, special=True) for text in texts]
version = f"llama-cpp-python {llama_cpp.__version__}"
print(json.dumps([version, logits, tokens[len(prompt):], ids]))
"""
TENSORFLOW = """
import json, sys
import tensorflow as tf
path, prompt, length, texts = json.load(sys.stdin)
signatures = tf.saved_model.load(path).signatures
one = {"tokens": tf.constant([prompt]), "lengths": tf.constant([len(prompt)])}
logits = signatures["prefill"](**one)["logits"][0].numpy().tolist()
scalars = {"new_tokens": length, "top_k": 0, "seed": 0}
found = signatures["generate"](
    **one, temperature=tf.constant(0.0), **{name: tf.constant(n) for name, n in scalars.items()}
)
greedy = found["tokens"][0].numpy().tolist()
print(json.dumps([f"TensorFlow {tf.__version__}", logits, greedy, None]))
"""


def make_model(folder: Path) -> None:
    """Write the model that both sides run."""
    texts = [(ROOT / name).read_text("utf-8") for name in ("README.md", "docs/training.md")]
    vocabulary, merges = train_vocabulary(texts, 400)
    hparams = HParams(n_vocab=len(vocabulary), **SIZES)
    random = np.random.default_rng(20190214)
    weights = {
        name: random.standard_normal(shape, np.float32) * np.float32(0.2)
        for name, shape in hparams.tensor_shapes().items()
    }
    write_model_folder(folder, hparams, vocabulary, merges, weights)


def ours(folder: Path, prompt: list[int]) -> tuple[np.ndarray, list[int], list[list[int]]]:
    """Return logits, greedy text and ids by the reference forward pass."""
    import tensorflow as tf

    from gpt2 import model as reference

    model = ModelFolder(folder)
    weights, tokens, first = model.weights(), list(prompt), None
    for _ in range(LENGTH):
        logits = reference.logits(weights, model.hparams, tf.constant([tokens]))[0, -1].numpy()
        first = logits if first is None else first
        tokens.append(int(logits.argmax()))
    assert first is not None
    ids = [model.tokenizer().encode(text) for text in TEXTS]
    return first, tokens[len(prompt) :], ids


def ask(python: str, program: str, out: Path, prompt: list[int]) -> list:
    """Return what a peer answers."""
    done = subprocess.run(
        [python, "-I", "-c", program],
        input=json.dumps([str(out), prompt, LENGTH, TEXTS]),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{out.name}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table, and write it to the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="python with llama-cpp-python")
    parser.add_argument("--docs", type=Path, help="page to write the table to")
    args = parser.parse_args()
    lines = ["| format | program | greedy text | largest logit difference | token ids |"]
    lines.append("| --- | --- | --- | ---: | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        prompt = list(range(40, 56))
        logits, greedy, ids = ours(folder / "model", prompt)
        rows = [(f"to_gguf --type {kind}", args.peers, LLAMA) for kind in TYPES]
        rows.append(("to_savedmodel", sys.executable, TENSORFLOW))
        for title, python, program in rows:
            out = folder / title.replace(" ", "")
            verb, *flags = title.split()
            convert = [sys.executable, ROOT / "src" / "convert.py", verb, folder / "model", out]
            subprocess.run([*convert, *flags], check=True, capture_output=True)
            version, their_logits, their_greedy, their_ids = ask(python, program, out, prompt)
            text = "same" if their_greedy == greedy else "other"
            same_ids = "-" if their_ids is None else "same" if their_ids == ids else "other"
            difference = np.abs(np.array(their_logits) - logits).max()
            lines.append(f"| {title} | {version} | {text} | {difference:.1e} | {same_ids} |")
            print(lines[-1], flush=True)
    intro = (
        f"Measured on {datetime.date.today()} by `tools/interop_formats.py`: greedy text of "
        f"{LENGTH} tokens, largest difference of a logit (the largest logit is "
        f"{np.abs(logits).max():.1f}), token ids of {len(TEXTS)} texts."
    )
    if args.docs:
        write_section(args.docs, intro + "\n\n" + "\n".join(lines), "formats")


if __name__ == "__main__":
    main()
