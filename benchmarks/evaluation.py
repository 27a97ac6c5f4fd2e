#!/usr/bin/env python3
"""Compare this project's speed of scoring a text with that of transformers on PyTorch.

python benchmarks/evaluation.py --peers peers/bin/python --docs docs/benchmarks/evaluation.md

In each round every system reads so many windows of random tokens with random weights, in a process
of its own and after a warm-up. How fast a model is does not depend on what it has learnt, nor on
the text: the rate is that of WikiText-2's test set, of which the windows are a part.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

WIKITEXT2 = 287_644  # GPT-2's tokens in the raw test set, lines joined by blank ones
SIZES = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}
OURS, TRANSFORMERS = "this project", "transformers"
PATIENCE = 20.0  # seconds to wait for other processes to leave the machine alone
OTHERS = 0.05  # the share of the processors that they may use
SQUARE = 4096  # of the matrices whose product is the measure of the machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--peers", metavar="PYTHON", default=sys.executable, help="one that has transformers")
    add("--rounds", metavar="N", type=int, default=3, help="(default: 3)")
    add(
        "--windows", metavar="N", type=int, default=4, help="that count, in each round (default: 4)"
    )
    add("--window", metavar="N", type=int, default=1024, help="(default: 1024)")
    add("--json", metavar="FILE", help="where to write all measurements")
    add("--docs", metavar="FILE", help="a Markdown file in which to renew the table")
    add("--recipes", action="store_true", help="renew the list of recipes instead")
    add("--system", help=argparse.SUPPRESS)  # what a process of this script is to measure
    args = parser.parse_args()
    job = {"windows": args.windows, "window": args.window}
    if args.system:
        answer(SYSTEMS[args.system], job)
        return
    import machine
    from report import write_section

    from gpt2 import files

    if args.recipes:
        print(recipes_list())
        if args.docs:
            write_section(Path(args.docs), recipes_list(), "recipes")
        return
    described = machine.describe()
    rounds = []
    for number in range(1, args.rounds + 1):
        found = {}
        for name, python in ((OURS, sys.executable), (TRANSFORMERS, args.peers)):
            machine.wait_for_quiet(OTHERS, PATIENCE)
            found[name] = ask(python, name, args)
            rate = args.window * args.windows / sum(found[name]["seconds"])
            print(f"round {number}: {name}: {rate:.0f} tokens/s", flush=True)
        rounds.append(found)
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": described,
        "rounds": rounds,
        **job,
    }
    print(f"\n{table_of(result)}")
    if args.json:
        files.write_text(Path(args.json), json.dumps(result, indent=1) + "\n")
    if args.docs:
        write_section(Path(args.docs), table_of(result))


def ask(python: str, name: str, args: argparse.Namespace) -> dict:
    """What a process of its own measures of a system."""
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",  # it is processors that are compared
        "HF_HUB_OFFLINE": "1",
    }
    command = [python, __file__, "--system", name, "--windows", str(args.windows)]
    command += ["--window", str(args.window)]
    with tempfile.TemporaryFile("w+") as notes:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=notes, text=True, env=environment
        )
        if done.returncode:
            notes.seek(0)
            last = [line for line in notes.read().splitlines() if line.strip()][-1:]
            sys.exit(f"error: {name} ended: {''.join(last) or 'without a word'}")
    return json.loads(done.stdout)


def answer(system: Callable[[dict], dict], job: dict) -> None:
    """Measure, and write the result as the only line of standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    answers.write(json.dumps(system(job)) + "\n")
    answers.flush()


def this_project(job: dict) -> dict:
    """`evaluate.py perplexity`, and between its batches the rate of matrix products."""
    import numpy as np
    import tensorflow as tf

    from gpt2.evaluation.scoring import BATCH_TOKENS, Scorer
    from gpt2.evaluation.windows import WindowSettings
    from gpt2.hparams import HParams
    from gpt2.model import initial_weights

    hparams = HParams(**SIZES)
    scorer = Scorer(initial_weights(hparams, seed=1), hparams)
    batch = max(1, BATCH_TOKENS // job["window"])
    cut = WindowSettings(job["window"], job["window"])
    matrix = tf.random.normal([SQUARE, SQUARE])

    def read(number: int) -> np.ndarray:
        [scores] = scorer.score([tokens(job, number, batch * job["window"] + 1)], cut)
        return scores.nats

    read(0)
    tf.matmul(matrix, matrix)
    seconds, rates, nats = [], [], []
    for number in range(1, 1 + max(1, job["windows"] // batch)):
        products = timed(lambda: tf.matmul(matrix, matrix).numpy(), [])
        rates.append(2 * SQUARE**3 / products)
        seconds.append(timed(lambda number=number: read(number), nats))
    return {
        "seconds": seconds,
        "rates": rates,
        "mean": float(np.concatenate(nats).mean()),
        "version": version("tensorflow"),
    }


def transformers(job: dict) -> dict:
    """A window at a time, as in transformers' guide to perplexity."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=SIZES["n_vocab"],
        n_positions=SIZES["n_ctx"],
        n_embd=SIZES["n_embd"],
        n_head=SIZES["n_head"],
        n_layer=SIZES["n_layer"],
    )
    model = GPT2LMHeadModel(config).eval()

    @torch.no_grad()
    def read(number: int) -> float:
        window = torch.tensor(tokens(job, number, job["window"])[None], dtype=torch.long)
        return model(window, labels=window).loss.item()

    read(0)
    losses: list[float] = []
    seconds = [
        timed(lambda number=number: read(number), losses) for number in range(1, 1 + job["windows"])
    ]
    mean = statistics.mean(losses)
    return {"seconds": seconds, "mean": mean, "version": version("transformers", "torch")}


SYSTEMS = {OURS: this_project, TRANSFORMERS: transformers}


def tokens(job: dict, number: int, count: int) -> object:
    """Random ids, int32 [count]."""
    import numpy as np

    return np.random.default_rng((1, number)).integers(0, SIZES["n_vocab"], count).astype(np.int32)


def timed(function: Callable, results: list) -> float:
    """Seconds that a function takes."""
    start = time.perf_counter()
    results.append(function())
    return time.perf_counter() - start


def version(*packages: str) -> str:
    """Names and versions."""
    return " on ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def operations(window: int, visible: bool) -> int:
    """Multiplications and additions in the matrix products for one token.

    Args:
        visible: whether of attention only what a token may see is counted.
    """
    width, layers = SIZES["n_embd"], SIZES["n_layer"]
    attention = 2 * layers * width * ((window + 1) / 2 if visible else window)
    return int(2 * (12 * layers * width**2 + SIZES["n_vocab"] * width + attention))


def table_of(result: dict) -> str:
    """The machine, the systems and their ratio, in Markdown."""
    from report import table

    rounds, window = result["rounds"], result["window"]
    read = window * result["windows"]
    rates = {name: [read / sum(each[name]["seconds"]) for each in rounds] for name in rounds[0]}
    products = [statistics.median(each[OURS]["rates"]) for each in rounds]

    def share(visible: bool) -> str:
        shares = [
            rate * operations(window, visible) / product
            for rate, product in zip(rates[OURS], products, strict=True)
        ]
        return f"{statistics.median(shares):.2f}"

    ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
    described = result["machine"]
    preface = (
        f"Measured on {result['date']} by `benchmarks/evaluation.py`: {described['cpu']}, "
        f"{described['cores']} cores ({' '.join(described['flags'])}), float32 matrix "
        f"products ({SQUARE:,} rows) at {statistics.median(products) / 1e9:.0f} GFLOP/s "
        f"({min(products) / 1e9:.0f} to {max(products) / 1e9:.0f} in the rounds). GPT-2 124M, "
        f"random weights, float32, window and stride {window:,}; median of {len(rounds)} rounds; "
        f"in each round every system scores {result['windows']} windows after a warm-up. "
        f"Versions: {', '.join(rounds[0][name]['version'] for name in rates)}."
    )
    heads = ["system", "tokens/s", f"WikiText-2's {WIKITEXT2:,} tokens, s", "of matmul speed"]
    heads += ["with causal attention only", "speedup over transformers"]
    rows = []
    for name, values in rates.items():
        rate, ours = statistics.median(values), name == OURS
        rows.append(
            [
                f"**{name}**" if ours else name,
                f"{rate:.0f}",
                f"{WIKITEXT2 / rate:.0f}",
                share(visible=False) if ours else "-",
                share(visible=True) if ours else "-",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                if ours
                else "1",
            ]
        )
    return f"{preface}\n\n{table(heads, rows)}"


def recipes_list() -> str:
    """What each recipe does, and what has been published of it, in Markdown."""
    from gpt2.evaluation.recipes import PAPER, RECIPES

    def values(kind: str, published: dict[str, float]) -> str:
        numbers = ", ".join(f"{value} for {size}" for size, value in published.items())
        return f"{PAPER}: {kind} {numbers}."

    parts = []
    for recipe in RECIPES.values():
        text = f"- **{recipe.name}**: {recipe.source}. Detokenizer: {recipe.detokenizer}."
        if recipe.published:
            kind = "bits per byte" if recipe.measure == "bits" else "perplexity"
            text += f" {values(kind, recipe.published)}"
        if recipe.accuracies:
            text += f" {values('accuracy in percent', recipe.accuracies)}"
        if recipe.others:
            text += f" Measured by others: {recipe.others}."
        parts.append(textwrap.fill(text, 105, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(parts)


if __name__ == "__main__":
    main()
