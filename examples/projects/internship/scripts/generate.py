#!/usr/bin/env python3
"""Write samples to one file each.

    python examples/projects/internship/scripts/generate.py \\
        --model_dir results/model --output_dir results/generated_texts
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "src"))

import gpt2
from gpt2 import files
from gpt2.commands import exits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", required=True, help="folder of the model")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the samples")
    parser.add_argument("--prompt", default="", help="text that all samples continue")
    parser.add_argument("--nsamples", type=int, default=5, help="number of samples")
    parser.add_argument("--length", type=int, default=100, help="tokens per sample")
    parser.add_argument("--temperature", type=float, default=0.7, help="sampling temperature")
    parser.add_argument("--seed", type=int, help="random seed")
    options = parser.parse_args()
    model = gpt2.load(options.model_dir)
    samples = model.generate(
        options.prompt,
        nsamples=options.nsamples,
        length=options.length,
        temperature=options.temperature,
        seed=options.seed,
    )
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(samples, 1):
        path = options.output_dir / f"sample_{number}.txt"
        files.write_text(path, f"{options.prompt}{sample.text}\n")
        print(f"Wrote {path}")


if __name__ == "__main__":
    exits.run(main, Path(__file__).name)
