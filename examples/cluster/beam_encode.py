"""Encode a corpus with Apache Beam, whose workers share a file system.

    pip install apache-beam
    python examples/cluster/beam_encode.py texts/ tokens.npz --parts 8

Flags of Beam follow, such as --runner FlinkRunner; without them it runs on this machine. The parts
are written beside the output, and merged when all are finished.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import apache_beam as beam


def encode(*words: str) -> None:
    """Run `gpt2 encode`; raises `CalledProcessError` if it fails."""
    subprocess.run([sys.executable, "-m", "gpt2", "encode", *words], check=True)


def main() -> None:
    """Run the pipeline."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", help="text files, as encode takes them")
    parser.add_argument("out", help="the .npz file")
    parser.add_argument("--parts", type=int, default=8, help="number of parts")
    values, beam_flags = parser.parse_known_args()

    def encode_part(number: int) -> int:
        part = f"{values.out}.part-{number}.npz"
        encode(values.corpus, part, "--shard", f"{number}/{values.parts}", "--workers", "1")
        return number

    def merge(_numbers: list[int]) -> None:
        encode(values.corpus, values.out, "--merge", f"{values.out}.part-*.npz")

    with beam.Pipeline(argv=beam_flags) as pipeline:
        _ = (
            pipeline
            | beam.Create(range(1, values.parts + 1))
            | beam.Reshuffle()  # so that each worker takes some
            | beam.Map(encode_part)
            | beam.combiners.ToList()  # waits for all of them
            | beam.Map(merge)
        )


if __name__ == "__main__":
    main()
