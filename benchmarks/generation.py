#!/usr/bin/env python3
"""Compare this project's speed of generation with that of other programs on the same weights.

python benchmarks/generation.py --vocabulary models/117M --peers peers/bin/python

Every system that is installed takes part, in a process of its own, once in each round. The weights
are those of --model, or random ones of the same size as the smallest released model, with the
vocabulary of --vocabulary; how fast a model is does not depend on what it has learnt. They are
converted for each system in a temporary folder, which takes about six times their size.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import machine
import report
from systems import SYSTEMS, write_plain_model
from worker import Failed, Missing, Worker

from gpt2 import files
from gpt2.errors import UserError
from gpt2.quiet import quiet

# What sessions of this project run on where there is no GPU.
FAST = ("litert none", "litert int8", "litert int4")
# A measurement begins when others use less than this share of the processors, and is repeated if
# they used more while it ran; both only so often, for some machines are never quiet.
OTHERS = 0.05
PATIENCE = 20.0  # seconds
ATTEMPTS = 2


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is generated."""

    short: int = 8  # tokens of a short prompt
    new: int = 256  # tokens written after it
    batch: int = 16
    long: int = 1000  # tokens of a long prompt
    after_long: int = 24  # tokens written after that
    near: int = 100  # position around which the speed is looked at
    around: int = 16  # how far from it
    top_k: int = 40
    generations: int = 100  # one after the other in a session
    generation: int = 32  # tokens in each of those

    def within(self, n_ctx: int) -> Sizes:
        """The same as far as the window of a model allows it."""
        long = min(self.long, n_ctx - self.after_long)
        new, generation = (min(size, n_ctx - self.short) for size in (self.new, self.generation))
        if min(long, new) < 1:
            raise UserError(f"A window of {n_ctx} tokens is too small to measure anything in.")
        return dataclasses.replace(self, long=long, new=new, generation=generation)


QUICK = Sizes(new=128, batch=3, long=200, generations=20, generation=8)


def main() -> None:
    args = _arguments()
    # Ends as by Ctrl+C, so that the temporary folder, which is large, goes too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
            result = measure(args, Path(temporary))
        text = report.text(result)
        print(f"\n{text}")
        if args.json:
            files.write_text(Path(args.json), json.dumps(result, indent=1) + "\n")
        if args.docs:
            report.write_section(Path(args.docs), text, args.section)
            report.record_speeds(Path(args.docs), result)
    except (UserError, Failed) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--model", metavar="FOLDER", help="a model's folder (default: random weights)")
    add("--vocabulary", metavar="FOLDER", help="of random weights: encoder.json and vocab.bpe")
    add(
        "--peers",
        metavar="PYTHON",
        action="append",
        help="a Python that has other programs; may be given several times (default: this one)",
    )
    add("--systems", metavar="NAMES", help=f"of: {'; '.join(SYSTEMS)} (default: all)")
    add("--rounds", metavar="N", type=int, default=3, help="(default: 3)")
    add("--quick", action="store_true", help="one short round, to see whether all is well")
    add("--no_sessions", action="store_true", help="leave out the many generations in one process")
    add("--json", metavar="FILE", help="where to write all measurements")
    add("--docs", metavar="FILE", help="a Markdown file in which to renew the tables")
    add("--section", default="benchmark", help="markers of the tables in that file")
    args = parser.parse_args()
    if not args.model and not args.vocabulary:
        parser.error("give --model, or --vocabulary for random weights")
    for path in filter(None, (args.json, args.docs)):
        if not Path(path).absolute().parent.is_dir():
            parser.error(f"there is no folder for {path}")
    if args.rounds < 1:
        parser.error("--rounds should be at least 1")
    names = [name.strip() for name in args.systems.split(";")] if args.systems else list(SYSTEMS)
    if unknown := set(names) - set(SYSTEMS):
        parser.error(f"there is no system {min(unknown)!r}; there are {', '.join(SYSTEMS)}")
    args.systems = names
    args.peers = args.peers or [sys.executable]
    if args.quick:
        args.rounds = 1
    return args


def measure(args: argparse.Namespace, temporary: Path) -> dict:
    """Everything, as what is written to --json."""
    from gpt2.checkpoint.folder import ModelFolder

    plain = temporary / "plain"
    plain.mkdir()
    if not args.model:  # keep a random model out of the user's cache
        os.environ["GPT2_CACHE_DIR"] = str(temporary / "cache")
    with quiet():
        model = Path(args.model or _random_model(args.vocabulary, temporary)).resolve()
        write_plain_model(model, plain)
    hparams = ModelFolder(model).hparams
    sizes = (QUICK if args.quick else Sizes()).within(hparams.n_ctx)
    bench = Bench(model, plain, sizes, hparams.n_vocab)
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "model": {
            "name": model.name if args.model else "Random weights",
            "parameters": hparams.parameters,
            **dataclasses.asdict(hparams),
        },
        "sizes": dataclasses.asdict(sizes),
        "rounds": args.rounds,
        "fast": FAST,
        "bandwidth": {"one thread": [], "all threads": []},
        "systems": {},
        "sessions": {},
    }
    systems, pythons = result["systems"], {}
    for name in args.systems:
        if prepared := bench.prepare(name, args.peers):
            pythons[name], version = prepared
            systems[name] = {"version": version, **_facts(name, hparams), "rounds": []}
    reader = machine.Reader()
    for number in range(1, args.rounds + 1):
        machine.wait_for_quiet(OTHERS, PATIENCE)
        result["bandwidth"]["one thread"].append(reader.bandwidth(1))
        result["bandwidth"]["all threads"].append(reader.bandwidth(result["machine"]["cores"]))
        for name, system in systems.items():
            measured = bench.round(name, pythons[name])
            system["rounds"].append(measured)
            _show(f"round {number}: {name}", measured)
    result["others"] = bench.others
    if not args.no_sessions:
        for name in filter(pythons.get, FAST):
            result["sessions"][name] = bench.session(name, pythons[name])
    return result


class Bench:
    """One model, and what is to be measured of each system on it."""

    def __init__(self, model: Path, plain: Path, sizes: Sizes, n_vocab: int):
        self._model, self._plain, self._sizes = model, plain, sizes
        draw = random.Random(1)
        # The last id is the end of text.
        words = range(n_vocab - 1)
        self._long = [draw.choices(words, k=sizes.long)]
        self._short = [draw.choices(words, k=sizes.short) for _ in range(sizes.batch)]
        self.others = 0.0  # the most that others used of the processors in a measurement
        self._reference: list[list[int]] | None = None

    def prepare(self, name: str, peers: list[str]) -> tuple[str, str] | None:
        """Convert the weights for a system, and hold its tokens against those of the first one.

        Returns:
            The Python it runs in, and the versions of its packages; None if there is none.
        """
        reasons = []
        for python in [sys.executable] if SYSTEMS[name].ours else peers:
            try:
                with self._worker(name, python) as worker:
                    version = worker.ask("prepare")["version"]
                    worker.ask("open")
                    likeliest = worker.ask("write", prompts=self._short, new=2, top_k=1)["tokens"]
            except (Missing, Failed, OSError) as reason:
                reasons.append(f"{reason}")
                continue
            self._reference = self._reference or likeliest
            same = sum(map(list.__eq__, likeliest, self._reference))
            print(f"{name}: {version}, the same likeliest tokens after", end=" ")
            print(f"{same} of {len(likeliest)} prompts", flush=True)
            return python, version
        print(f"{name}: left out ({'; '.join(reasons)})", flush=True)
        return None

    def round(self, name: str, python: str) -> dict[str, float]:
        """All the cases, in a fresh process."""
        sizes = self._sizes
        measured: dict[str, float] = {}
        try:
            with self._worker(name, python) as worker:
                worker.ask("open")
                measured["ready"] = time.perf_counter() - worker.started
                single = self._run(worker, self._short[:1], sizes.new)
                _set(measured, "peak", worker.ask("memory").get("peak"))
                measured[report.SINGLE] = sizes.new / single["seconds"]
                near = (sizes.near - sizes.around, sizes.near + sizes.around)
                _set(measured, report.NEAR_START, _speed(single["stamps"], sizes.short, *near))

                long = self._run(worker, self._long, sizes.after_long)
                _set(measured, report.NEAR_END, _speed(long["stamps"], sizes.long, 0, math.inf))
                if long["stamps"]:
                    measured[report.FIRST] = long["stamps"][0]
                else:
                    measured[report.FIRST] = self._run(worker, self._long, 1)["seconds"]

                batch = self._run(worker, self._short, sizes.new)
                measured[report.BATCH] = sizes.batch * sizes.new / batch["seconds"]
        except (Missing, Failed) as reason:
            print(f"{name} failed: {reason}", flush=True)
        return measured

    def session(self, name: str, python: str) -> dict[str, list[float]]:
        """Many generations in one process: seconds of each, and bytes of memory after each."""
        sizes = self._sizes
        seconds, memory = [], []
        with self._worker(name, python) as worker:
            worker.ask("open")
            for _ in range(sizes.generations):
                answer = worker.ask(
                    "write", prompts=self._short[:1], new=sizes.generation, top_k=sizes.top_k
                )
                seconds.append(answer["seconds"])
                memory.append(worker.ask("memory").get("now"))
        return {"seconds": seconds, "memory": memory}

    def _worker(self, name: str, python: str) -> Worker:
        return Worker(python, name, self._model, self._plain)

    def _run(self, worker: Worker, prompts: list[list[int]], new: int) -> dict:
        """One measurement, after a warm-up of the same shape.

        Each call has prompts of its own, since some programs keep the KV cache of a prompt.
        """
        top_k = self._sizes.top_k
        worker.ask("write", prompts=rotated(prompts, 1), new=min(new, 4), top_k=top_k)
        answers = []
        for attempt in range(ATTEMPTS):
            machine.wait_for_quiet(OTHERS, PATIENCE)
            others = machine.Others(worker.process)
            turned = rotated(prompts, 2 + attempt)
            answer = worker.ask("write", prompts=turned, new=new, top_k=top_k)
            answers.append({**answer, "others": others.share()})
            if answers[-1]["others"] < OTHERS:
                break
        quietest = min(answers, key=lambda answer: answer["others"])
        self.others = max(self.others, quietest["others"])
        return quietest


def rotated(prompts: list[list[int]], by: int) -> list[list[int]]:
    """Return prompts that begin at another of their tokens, and have the others in order."""
    return [prompt[by % len(prompt) :] + prompt[: by % len(prompt)] for prompt in prompts]


def _speed(stamps: list[float], prompt: int, low: float, high: float) -> float | None:
    """Tokens per second between two positions of a text.

    Args:
        stamps: when each token after the prompt was there; the first one was read from the
            prompt's last position, so the one with index i took a pass at position prompt + i - 1.
    """
    inside = [i for i in range(1, len(stamps)) if low <= prompt + i - 1 < high]
    if not inside:
        return None
    return len(inside) / (stamps[inside[-1]] - stamps[inside[0] - 1])


def _set(measured: dict[str, float], key: str, value: float | None) -> None:
    if value is not None:
        measured[key] = value


def _facts(name: str, hparams) -> dict:
    """Whose a system is, and how many bytes of weights there are and a token reads."""
    shapes = hparams.tensor_shapes()
    positions = math.prod(shapes.pop("model/wpe"))  # of which a token reads one row
    matrices = sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)
    vectors = sum(math.prod(shape) for shape in shapes.values() if len(shape) == 1)
    system = SYSTEMS[name]
    head = math.prod(shapes["model/wte"])
    read = (matrices - head) * system.matrix_bytes + head * system.head_bytes + vectors * 4
    everything = read + positions * 4
    return {"ours": system.ours, "weight_bytes": read, "all_weight_bytes": everything}


def _random_model(vocabulary: str, temporary: Path) -> Path:
    """Write a model of the smallest released size, as it is before training."""
    from gpt2.checkpoint.new_model import write_model_folder
    from gpt2.hparams import HParams
    from gpt2.model import initial_weights
    from gpt2.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(Path(vocabulary))
    hparams = HParams(n_vocab=len(tokenizer.vocabulary))
    model = temporary / "random"
    weights = initial_weights(hparams, seed=1)
    write_model_folder(model, hparams, tokenizer.vocabulary, tokenizer.merges, weights)
    return model


def _show(title: str, measured: dict[str, float]) -> None:
    numbers = ", ".join(f"{key} {value:.4g}" for key, value in measured.items())
    print(f"{title}: {numbers}", flush=True)


if __name__ == "__main__":
    main()
