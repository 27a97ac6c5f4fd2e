#!/usr/bin/env python3
"""Speed of decoding with and without speculation, and of prompts that the KV cache has.

    python benchmarks/speculation.py --model_name 124M --docs docs/benchmarks/generation.md

Each case runs with and without speculation in turns, in the same process, and the texts have to be
equal. The texts are greedy samples of a repetitive and sampled ones of an ordinary prompt, and,
with --text FILE, greedy samples that continue the beginnings of a file, such as the text that the
model was trained on.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import gpt2  # isort: skip  (before NumPy, whose number of threads it sets)
import machine
from report import write_section

from gpt2.generation.completions import Completion
from gpt2.generation.engine import prefill_prompt
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.speculation import Speculation

TABLE = "name,age,city\n" + "".join(f"person{n},{20 + n},London\n" for n in range(8))
ORDINARY = "Once upon a time there was"
PROMPTED = 100  # tokens of a prompt from --text


def cases(model: LanguageModel, text: str) -> Iterator[tuple[str, str, dict]]:
    """Yield the name, the prompt and the options of each case."""
    yield "a table, greedy", TABLE, {"temperature": 0.0}
    yield "a sentence, top_k 40", ORDINARY, {"top_k": 40}
    yield "a sentence, temperature 1", ORDINARY, {}
    if text:
        start = model.tokenizer.decode(model.tokenizer.encode(text[:10_000])[:PROMPTED])
        yield f"after {PROMPTED} tokens of the file, greedy", start, {"temperature": 0.0}


def generate(model: LanguageModel, prompt: str, options: dict) -> tuple[float, Completion]:
    """Return the seconds of decoding, without prefill, and the completion."""
    settings = model.settings(ignore_endoftext=True, **options)
    states = model.completions([(0, model.encode(prompt))], settings, 1)
    completion = next(states)  # prefill gives the first token
    began = time.perf_counter()
    for _ in states:
        pass  # the same completion, one token longer each time
    return time.perf_counter() - began, completion


def measure_case(
    models: tuple[LanguageModel, LanguageModel], prompt: str, options: dict, rounds: int
) -> tuple[float, float, list[float]]:
    """Return the median tokens per second without and with speculation, and the ratios.

    Raises:
        SystemExit: the texts differ.
    """
    for model in models:
        generate(model, prompt, {**options, "length": 8})  # warm-up
    speeds: tuple[list[float], list[float]] = [], []
    for seed in range(rounds):
        texts = []
        pairs = list(zip(models, speeds, strict=True))
        for model, found in pairs if seed % 2 else reversed(pairs):
            seconds, completion = generate(model, prompt, {**options, "seed": seed})
            found.append((len(completion.tokens) - 1) / seconds)
            texts.append(completion.tokens)
        if texts[0] != texts[1]:
            sys.exit(f"The texts differ with seed {seed}.")
    ratios = [fast / plain for plain, fast in zip(*speeds, strict=True)]
    return statistics.median(speeds[0]), statistics.median(speeds[1]), ratios


def reuse(model: LanguageModel, rounds: int) -> tuple[int, float, float]:
    """Return the tokens of a long prompt, and the milliseconds of its prefill at first and again.

    Raises:
        SystemExit: the logits differ.
    """
    engine, size = model.engine, model.hparams.n_ctx * 3 // 4
    first, again = [], []
    for number in range(rounds):
        prompt = [(7 * place + number) % model.hparams.n_vocab for place in range(size)]
        engine.reset(1)
        logits = []
        for found in (first, again):
            began = time.perf_counter()
            logits.append(prefill_prompt(engine, 0, prompt))
            found.append(1000 * (time.perf_counter() - began))
        if (logits[0] != logits[1]).any():
            sys.exit("The logits differ after reuse.")
    return size, statistics.median(first), statistics.median(again)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name", default="124M")
    parser.add_argument("--models_dir", default="models")
    parser.add_argument("--quantize", nargs="+", default=["none", "int8", "int4"])
    parser.add_argument("--text", type=Path, help="UTF-8 file; the model continues its beginning")
    parser.add_argument("--length", type=int, default=200, help="tokens of each sample")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--docs", type=Path, help="Markdown file whose section is written")
    args = parser.parse_args()
    text = args.text.read_text(encoding="utf-8") if args.text else ""
    lines = []
    prompts = []
    for quantize in args.quantize:
        plain = gpt2.load(args.model_name, "litert", quantize, args.models_dir)
        fast = LanguageModel(
            plain.engine, plain.hparams, plain.tokenizer, speculation=Speculation()
        )
        for name, prompt, options in cases(plain, text):
            options = {"length": args.length, **options}
            found = measure_case((plain, fast), prompt, options, args.rounds)
            lines.append(
                f"| {name} | {quantize} | {found[0]:.1f} | {found[1]:.1f} | "
                f"{statistics.median(found[2]):.2f} | {min(found[2]):.2f} to {max(found[2]):.2f} |"
            )
            print(lines[-1], flush=True)
        size, first, again = reuse(plain, args.rounds)
        prompts.append(f"| {size} tokens | {quantize} | {first:.0f} ms | {again:.0f} ms |")
        print(prompts[-1], flush=True)
    described = machine.describe()
    section = "\n".join(
        [
            f"Measured on {datetime.date.today()} by `benchmarks/speculation.py`: "
            f"{described['cpu']}, {described['cores']} cores; {plain.hparams.parameters:,} "
            f"parameters ({args.model_name}), {args.length} tokens at batch size 1, medians of "
            f"{args.rounds} alternating rounds. All texts and logits were equal.",
            "",
            "| text | weights | tokens/s | with `--speculate` | ratio | all rounds |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
            *lines,
            "",
            "| prompt | weights | prefill | prefill again |",
            "| --- | --- | ---: | ---: |",
            *prompts,
        ]
    )
    if args.docs:
        write_section(args.docs, section, "speculation")


if __name__ == "__main__":
    main()
