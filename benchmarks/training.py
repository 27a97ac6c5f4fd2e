#!/usr/bin/env python3
"""Compare this project's speed and memory of training with those of other programs.

python benchmarks/training.py --peers peers/bin/python --docs docs/benchmarks/training.md

Every system that is installed takes part, once in each round, in a process of its own: one step to
warm up, then the steps that count. All train a random model of a released size by Adam on random
tokens; how fast a model is does not depend on what it has learnt.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import machine
from report import TRAINING, record, table, write_section
from training_systems import OURS, ROOT, SYSTEMS

from gpt2 import files
from gpt2.errors import UserError

MATRIX_PRODUCTS = "matrix products"
SIZES = {
    "124M": {"n_embd": 768, "n_head": 12, "n_layer": 12},
    "355M": {"n_embd": 1024, "n_head": 16, "n_layer": 24},
    "774M": {"n_embd": 1280, "n_head": 20, "n_layer": 36},
    "tiny": {"n_embd": 64, "n_head": 4, "n_layer": 2},  # to see whether all is well
}
PATIENCE = 20.0  # seconds to wait for other processes to leave the machine alone
OTHERS = 0.05  # the share of the processors that they may use


def main() -> None:
    args = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if args.profile:
            result = measure_profile(args)
            text, section = profile_text(result), "profile"
        else:
            result = measure(args)
            text, section = benchmark_text(result), f"benchmark {args.size}"
        print(f"\n{text}")
        if args.json:
            files.write_text(Path(args.json), json.dumps(result, indent=1) + "\n")
        if args.docs:
            write_section(Path(args.docs), text, section)
            if not args.profile:
                record(
                    Path(args.docs),
                    result["machine"]["cpu"],
                    {
                        TRAINING.format(name, result["size"]): f"{_median(rounds):.2f} s"
                        for name, rounds in result["systems"].items()
                        if rounds
                    },
                )
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")


def _arguments() -> argparse.Namespace:
    names = [name for name in SYSTEMS if name != MATRIX_PRODUCTS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--size", choices=SIZES, default="124M", help="(default: 124M)")
    add("--batch_size", metavar="N", type=int, default=1, help="sequences (default: 1)")
    add("--window", metavar="N", type=int, default=1024, help="tokens in each (default: 1024)")
    add(
        "--peers",
        metavar="PYTHON",
        action="append",
        help="a Python that has other programs; may be given several times (default: this one)",
    )
    add("--systems", metavar="NAMES", help=f"of: {'; '.join(names)} (default: all)")
    add("--rounds", metavar="N", type=int, default=3, help="(default: 3)")
    add("--steps", metavar="N", type=int, default=3, help="that count, in each round (default: 3)")
    add("--profile", action="store_true", help="measure this project's parts of a step instead")
    add("--json", metavar="FILE", help="where to write all measurements")
    add("--docs", metavar="FILE", help="a Markdown file in which to renew the tables")
    args = parser.parse_args()
    for name in ("rounds", "steps", "batch_size", "window"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} should be at least 1")
    for path in filter(None, (args.json, args.docs)):
        if not Path(path).absolute().parent.is_dir():
            parser.error(f"there is no folder for {path}")
    args.systems = [name.strip() for name in args.systems.split(";")] if args.systems else names
    if unknown := set(args.systems) - set(names):
        parser.error(f"there is no system {min(unknown)!r}; there are {'; '.join(names)}")
    args.peers = args.peers or [sys.executable]
    return args


def _job(args: argparse.Namespace) -> dict:
    vocabulary = 1000 if args.size == "tiny" else 50257
    sizes = {"n_vocab": vocabulary, "n_ctx": max(args.window, 1024), **SIZES[args.size]}
    return {
        "sizes": sizes,
        "batch_size": args.batch_size,
        "window": args.window,
        "steps": args.steps,
    }


def measure(args: argparse.Namespace) -> dict:
    """All rounds of all systems, as what is written to --json.

    Stopped after the first round, it gives the rounds that are complete.
    """
    job = _job(args)
    result = {**_facts(args, job), "rates": [], "systems": {name: [] for name in args.systems}}
    for number in range(1, args.rounds + 1):
        try:
            rate = _ask(sys.executable, MATRIX_PRODUCTS, job)
            found = {name: _round(name, args.peers, job, number) for name in result["systems"]}
        except KeyboardInterrupt:
            if number == 1:
                raise
            break
        result["rates"].append(rate)
        result["systems"] = {
            name: [*result["systems"][name], one] for name, one in found.items() if one
        }
    return result


def measure_profile(args: argparse.Namespace) -> dict:
    """The parts of a step and the whole of it, in both precisions."""
    job = _job(args)
    machine.wait_for_quiet(OTHERS, PATIENCE)
    return {
        **_facts(args, job),
        "rates": [_ask(sys.executable, MATRIX_PRODUCTS, job)],
        "parts": {
            name: _ask(sys.executable, f"profile {name}", job) for name in ("float32", "bfloat16")
        },
        "whole": {name: _ask(sys.executable, name, job) for name in ("fp32", "bf16")},
    }


def _facts(args: argparse.Namespace, job: dict) -> dict:
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "size": args.size,
        "operations": operations(job),
        **job,
    }


def operations(job: dict) -> int:
    """Multiplications and additions in the matrix products of a step, all of attention counted."""
    sizes, rows = job["sizes"], job["batch_size"] * job["window"]
    matrices = 12 * sizes["n_layer"] * sizes["n_embd"] ** 2 + sizes["n_vocab"] * sizes["n_embd"]
    attention = 2 * sizes["n_layer"] * job["window"] * sizes["n_embd"]
    return 6 * rows * (matrices + attention)


def _round(name: str, peers: list[str], job: dict, number: int) -> dict | None:
    reasons = []
    for python in [sys.executable] if name in OURS else peers:
        machine.wait_for_quiet(OTHERS, PATIENCE)
        found = _ask(python, name, job)
        if "missing" not in found:
            steps = ", ".join(f"{seconds:.2f}" for seconds in found["seconds"])
            print(f"round {number}: {name}: {steps} s, {found['peak'] / 1e9:.2f} GB", flush=True)
            return found
        reasons.append(found["missing"])
    print(f"{name}: left out ({'; '.join(reasons)})", flush=True)
    return None


def _ask(python: str, name: str, job: dict) -> dict:
    """What a system's process answers."""
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",  # it is processors that are compared
        "HF_HUB_OFFLINE": "1",
    }
    command = [python, str(ROOT / "benchmarks" / "training_systems.py"), name, json.dumps(job)]
    with tempfile.TemporaryFile("w+") as notes:
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=notes, text=True, env=environment
            )
        except OSError as error:
            return {"missing": str(error)}
        if done.returncode:
            notes.seek(0)
            last = [line for line in notes.read().splitlines() if line.strip()][-1:]
            return {"missing": f"its process ended: {''.join(last) or 'without a word'}"}
    return json.loads(done.stdout)


def benchmark_text(result: dict) -> str:
    """The preface, the systems and their ratios, in Markdown."""
    rates = {
        name: statistics.median(r[name] for r in result["rates"]) for name in result["rates"][0]
    }
    heads = ["system", "s/step", "tokens/s", "of matmul speed", "peak, GB", "estimated, GB"]
    rows = []
    for name, rounds in result["systems"].items():
        seconds = _median(rounds)
        rate = rates["bfloat16" if "bf16" in name else "float32"]
        estimated = rounds[0].get("estimated")
        rows.append(
            [
                f"**{name}**" if name in OURS else name,
                f"{seconds:.2f}",
                f"{result['batch_size'] * result['window'] / seconds:.0f}",
                f"{result['operations'] / seconds / rate:.0%}",
                f"{max(one['peak'] for one in rounds) / 1e9:.2f}",
                f"{estimated / 1e9:.2f}" if estimated else "-",
            ]
        )
    parts = [_preface(result, rates), table(heads, rows)]
    others = [name for name in result["systems"] if name not in OURS]
    ours = [name for name in result["systems"] if name in OURS]
    against = [*ours, *others]
    heads = ["time of a step relative to", *ours]
    rows = [
        [other, *(f"{_ratio(result, name, other):.2f}" for name in ours)]
        for other in against
        if other in others or other in ("fp32", "bf16")
    ]
    if rows:
        parts.append(table(heads, rows))
    return "\n\n".join(parts)


def profile_text(result: dict) -> str:
    """A table of the parts, in Markdown."""
    rates = result["rates"][0]
    single, half = result["parts"]["float32"], result["parts"]["bfloat16"]
    heads = ["part (forward and backward, all layers)", "GFLOP"]
    heads += ["fp32 matmul bound", "reference", "used", "bf16 matmul bound", "used"]

    def row(name: str, count: int, *seconds: float | None) -> list[str]:
        plain, fp32, bf16 = (f"{one:.3f}" if one else "-" for one in seconds)
        least = {key: f"{count / rate:.3f}" if count else "-" for key, rate in rates.items()}
        products = f"{count / 1e9:.0f}" if count else "-"
        return [name, products, least["float32"], plain, fp32, least["bfloat16"], bf16]

    rows = [
        row(name, part["operations"], part["plain"], part["seconds"], half[name]["seconds"])
        for name, part in single.items()
    ]
    totals = [
        sum(part[key] for part in parts.values())
        for parts, key in ((single, "plain"), (single, "seconds"), (half, "seconds"))
    ]
    rows.append(row("sum", sum(part["operations"] for part in single.values()), *totals))
    steps = [_median([result["whole"][name]]) for name in ("fp32", "bf16")]
    rows.append(row("whole step", result["operations"], None, *steps))
    explained = (
        "Seconds. Each part is timed alone, minimum of several runs; the whole step is a median. "
        "*Matmul bound*: time of the part's matrix products at the speed of large square matrices, "
        "with full (not causal) attention. *Reference*: `model.py` in float32. *Used*: "
        "`forward.py`."
    )
    return "\n\n".join([_preface(result, rates), explained, table(heads, rows)])


def _preface(result: dict, rates: dict[str, float]) -> str:
    described = result["machine"]
    versions = dict.fromkeys(
        rounds[0]["version"] for rounds in result.get("systems", {}).values() if rounds
    )
    rounds = len(result["rates"])
    ran = (
        f" Median of {rounds} rounds of {result['steps']} steps; in each round every system runs "
        f"in its own process. Bold: this project. Versions: {', '.join(versions)}."
        if versions
        else ""
    )
    return (
        f"Measured on {result['date']} by `benchmarks/training.py`: {described['cpu']}, "
        f"{described['cores']} cores ({' '.join(described['flags'])}), matrix products at "
        f"{rates['float32'] / 1e9:.0f} GFLOP/s in float32 and {rates['bfloat16'] / 1e9:.0f} in "
        f"bfloat16. GPT-2 {result['size']}, {result['batch_size']} x {result['window']} tokens, "
        f"Adam; {result['operations'] / 1e9:.0f} GFLOP of matrix products per step.{ran}"
    )


def _median(rounds: list[dict]) -> float:
    return statistics.median(seconds for one in rounds for seconds in one["seconds"])


def _ratio(result: dict, name: str, other: str) -> float:
    """The median of the ratios within each round."""
    pairs = zip(result["systems"][name], result["systems"][other], strict=True)
    return statistics.median(_median([one]) / _median([two]) for one, two in pairs)


if __name__ == "__main__":
    main()
