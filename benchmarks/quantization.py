#!/usr/bin/env python3
"""What quantized weights cost: the perplexity of a trained model on held-out text.

    python benchmarks/quantization.py RUN HELD_OUT.txt

Every token is predicted from those before it in its window, by the LiteRT engine, in float32, int8
and int4.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from report import write_section

import gpt2
from gpt2.generation.sampling import log_probability


def perplexity(model, tokens: list[int]) -> float:
    """The exponential of the mean nats of every token but each window's first."""
    nats = count = 0
    for start in range(0, len(tokens) - 1, model.hparams.n_ctx):
        window = tokens[start : start + model.hparams.n_ctx + 1]
        model.engine.reset(1)
        logits = model.engine.prefill(0, window[:1])
        for place, token in enumerate(window[1:], start=1):
            nats -= log_probability(logits, token)
            count += 1
            if place < len(window) - 1:
                logits = model.engine.decode(np.array([token]))[0]
    return math.exp(nats / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a trained model or run")
    parser.add_argument("text", type=Path, help="text that it was not trained on")
    parser.add_argument("--tokens", type=int, default=20000, help="how many to predict at most")
    parser.add_argument("--docs", type=Path, help="Markdown file whose section is written")
    args = parser.parse_args()
    found = {}
    for quantize in ("none", "int8", "int4"):
        model = gpt2.load(args.model, engine="litert", quantize=quantize)
        tokens = model.tokenizer.encode(args.text.read_text(encoding="utf-8"))[: args.tokens]
        found[quantize] = perplexity(model, tokens)
        change = 100 * (found[quantize] / found["none"] - 1)
        print(
            f"{quantize}: perplexity {found[quantize]:.3f} ({change:+.3f} %) per token over "
            f"{len(tokens):,} tokens"
        )
    quantized = [
        f"{found[name]:.3f} in {name} ({100 * (found[name] / found['none'] - 1):+.3f} %)"
        for name in ("int8", "int4")
    ]
    if args.docs:
        section = (
            f"Perplexity on {len(tokens):,} held-out tokens of {args.text.name}, of a model with "
            f"{model.hparams.parameters:,} parameters trained on text of the same kind: "
            f"{found['none']:.3f} in float32, {', '.join(quantized)}."
        )
        write_section(args.docs, section, "quantization")


if __name__ == "__main__":
    main()
