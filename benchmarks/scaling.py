#!/usr/bin/env python3
"""What several devices gain: measured with two processes here, predicted for GPUs and machines.

    python benchmarks/scaling.py --docs docs/scaling.md

The time of a step is modeled as compute + all-reduce, one after the other:

    compute     operations of a device's share of the batch / its speed
    all-reduce  2 (n - 1) x latency + 2 (n - 1) / n x gradient bytes / bandwidth    (ring)

Latency and bandwidth are fitted to all-reduces of vectors between two processes on loopback; the
model is then compared with trainings of three sizes by the same two processes, each on a core of
its own. The predictions use the same formula with the published figures of the hardware.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from machine import describe, taken
from report import table, write_section

from gpt2.hparams import RELEASED, HParams

VECTORS = [2**power for power in range(10, 25, 2)]  # numbers of 4 bytes
ALL_REDUCE = """
import json, sys, time
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
for size in json.loads(sys.argv[1]):
    value = tf.ones(size)

    @tf.function
    def reduce():
        def on_device():
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
        return strategy.run(on_device)

    times = []
    for _ in range(12):
        started = time.perf_counter()
        reduce()[0].numpy()
        times.append(time.perf_counter() - started)
    print(json.dumps([4 * size, sorted(times[2:])[5]]), flush=True)
"""
SIZES = {  # flags of new-model
    "small": "--n_embd 128 --n_head 4 --n_layer 4",
    "medium": "--n_embd 256 --n_head 4 --n_layer 6",
    "large": "--n_embd 512 --n_head 8 --n_layer 8",
}
VOCABULARY, WINDOW, BATCH = 2048, 256, 8
STEPS, WARM_UP = 12, 4


class Link(NamedTuple):
    """How devices are connected.

    Attributes:
        latency: seconds of a message.
        bandwidth: bytes per second that each device sends.
    """

    latency: float
    bandwidth: float

    def all_reduce(self, size: float, devices: int) -> float:
        """Return the seconds of a ring all-reduce of so many bytes."""
        messages = 2 * (devices - 1)
        return messages * (self.latency + size / devices / self.bandwidth)

    @classmethod
    def fit(cls, measured: list[tuple[int, float]]) -> Link:
        """Fit latency and bandwidth to seconds by bytes of two devices, by relative errors."""
        sizes, seconds = np.array(measured, float).T
        terms = np.stack([np.full_like(sizes, 2), sizes], axis=1) / seconds[:, None]
        latency, per_byte = np.linalg.lstsq(terms, np.ones_like(seconds), rcond=None)[0]
        return cls(float(latency), 1 / float(per_byte))


# Eight devices, as their makers and network's rate state; 40 % of the matrix rate is typical of
# training, and 90 % of a network's rate remains after its protocol.
SPEED, SPEED_TEXT = 0.4 * 312e12, "40 % of an A100's 312 TFLOP/s (bf16)"
LINKS = {
    "8 GPUs, NVLink (300 GB/s)": Link(10e-6, 0.8 * 300e9),
    "8 machines, 100 Gbit/s": Link(50e-6, 0.9 * 100e9 / 8),
    "8 machines, 10 Gbit/s": Link(50e-6, 0.9 * 10e9 / 8),
}


def operations(hparams: HParams, sequences: int) -> float:
    """Return the floating-point operations of forward and backward pass, attention included."""
    attention = 12 * hparams.n_layer * hparams.n_embd * hparams.n_ctx
    return float((6 * hparams.parameters + attention) * sequences * hparams.n_ctx)


def start_workers(commands: list[list[str]], folder: Path) -> list[subprocess.Popen]:
    """Start one process per command, each on a core of its own; several form a cluster."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in commands]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for number, command in enumerate(commands):
        task = {"type": "worker", "index": number}
        config = {"cluster": {"worker": addresses}, "task": task}
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if len(commands) > 1:
            environment["TF_CONFIG"] = json.dumps(config)
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        os.sched_setaffinity(process.pid, {number})
        processes.append(process)
    return processes


def end(processes: list[subprocess.Popen]) -> None:
    """Wait for processes, and exit if one failed."""
    for process in processes:
        process.communicate()
        if process.returncode:
            sys.exit(f"{shlex.join(map(str, process.args))} failed.")


def loopback_bytes() -> int:
    """Return the bytes that the loopback device has received since the system started."""
    line = re.search(r"lo:\s*(\d+)", Path("/proc/net/dev").read_text())
    assert line
    return int(line[1])


def measure_link(folder: Path) -> list[tuple[int, float]]:
    """Return bytes and seconds of all-reduces between two processes."""
    processes = start_workers([["-c", ALL_REDUCE, json.dumps(VECTORS)]] * 2, folder)
    assert processes[0].stdout
    measured = [tuple(json.loads(line)) for line in processes[0].stdout]
    end(processes)
    return measured


def measure_training(size: str, workers: int, folder: Path) -> tuple[float, float]:
    """Return the seconds of a step and the bytes it sends; each process has the same share."""
    name = f"{size}-{workers}"
    words = (
        f"-m gpt2 train --dataset {size}.npz --model_name {size} --run_name {name} --seed 1"
        f" --batch_size {BATCH // 2 * workers} --max_steps {STEPS} --sample_every 1000"
    )
    processes = start_workers([shlex.split(words)] * workers, folder)
    stamps, sent = [], []
    assert processes[0].stdout
    for line in processes[0].stdout:
        if found := re.match(r"\[\d+ \| ([\d.]+)\]", line):
            stamps.append(float(found[1]))
            sent.append(loopback_bytes())
    end(processes)
    seconds = statistics.median(np.diff(stamps[WARM_UP:]))
    return float(seconds), (sent[-1] - sent[WARM_UP]) / (len(sent) - 1 - WARM_UP)


def prepare(folder: Path) -> dict[str, int]:
    """Write models and datasets; return the number of parameters by size."""

    def run(line: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "gpt2", *shlex.split(line)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            check=True,
            encoding="utf-8",
        ).stdout

    (folder / "models").mkdir()
    run("stories stories.txt --count 4000 --seed 1")
    counts = {}
    for size, flags in SIZES.items():
        sizes = f"--n_vocab {VOCABULARY} --n_ctx {WINDOW} {flags}"
        run(f"new-model {size} --dataset stories.txt {sizes}")
        run(f"encode stories.txt {size}.npz --model_name {size}")
        file = next((folder / "models" / size).glob("model.ckpt.data*"))
        counts[size] = file.stat().st_size // 4
    return counts


def measured_text(folder: Path) -> str:
    """Return the measurements as Markdown."""
    reduces = measure_link(folder)
    link = Link.fit(reduces)
    rows = []
    for size, count in prepare(folder).items():
        one, _ = measure_training(size, 1, folder)
        two, sent = measure_training(size, 2, folder)
        exchange = link.all_reduce(4 * count, 2)
        rows.append(
            [
                f"{count / 1e6:.1f}M",
                f"{1000 * one:.0f}",
                f"{1000 * two:.0f}",
                f"{1000 * (one + exchange):.0f}",
                f"{2 * one / two:.2f}",
                f"{sent / 1e6:.1f}",
                f"{2 * 4 * count / 1e6:.1f}",
            ]
        )
        print(*rows[-1], flush=True)
    heads = [
        "parameters",
        "1 process, ms",
        "2 processes, ms",
        "predicted, ms",
        "speedup",
        "MB sent per step",
        "predicted",
    ]
    fitted = (
        f"An all-reduce between two processes on loopback takes {1e6 * link.latency:.0f} µs per "
        f"message and moves {link.bandwidth / 1e9:.2f} GB/s, fitted to vectors of "
        f"{reduces[0][0] / 1e3:.0f} kB to {reduces[-1][0] / 1e6:.0f} MB. A process has one core "
        f"and {BATCH // 2} sequences of {WINDOW} tokens per step; two processes train on twice as "
        "many."
    )
    return f"{fitted}\n\n{table(heads, rows)}"


def predicted_text() -> str:
    """Return the predictions as Markdown."""
    rows = []
    for (n_layer, n_embd), name in RELEASED.items():
        hparams = HParams(n_embd=n_embd, n_head=n_embd // 64, n_layer=n_layer)
        size = 4 * hparams.parameters
        compute = operations(hparams, 8) / SPEED
        cells = []
        for link in LINKS.values():
            exchange = link.all_reduce(size, 8)
            cells.append(f"{8 * compute / (compute + exchange):.1f}")
            cells.append(f"{8 * 8 * compute / (8 * compute + exchange):.1f}")
        rows.append([name, f"{size / 1e9:.2f}", f"{1000 * compute:.0f}", *cells])
    heads = ["model", "gradients, GB", "compute, ms"]
    for name in LINKS:
        heads += [name, "same, accumulating 8"]
    return (
        "Predicted speedup of eight devices over one, for 8 sequences of 1,024 tokens per device "
        f"and step. Assumptions: {SPEED_TEXT} per device, float32 gradients, a ring, the exchange "
        "begins when all gradients are computed; latency 10 µs in a machine, 50 µs between "
        "machines; 80 % of NVLink's and 90 % of the network's rate. `--accumulate_gradients 8` "
        f"exchanges once in eight batches. No GPU was at hand to check it.\n\n{table(heads, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, help="Markdown file whose section is written")
    args = parser.parse_args()
    machine, load = describe(), taken()
    with tempfile.TemporaryDirectory() as folder:
        measured = measured_text(Path(folder))
    preface = (
        f"Measured on {datetime.date.today()} by `benchmarks/scaling.py`: {machine['cpu']}, "
        f"{machine['cores']} cores, other load {load:.0%}."
    )
    text = f"{preface} {measured}\n\n{predicted_text()}"
    print(text)
    if args.docs:
        write_section(args.docs, text, "scaling")


if __name__ == "__main__":
    main()
