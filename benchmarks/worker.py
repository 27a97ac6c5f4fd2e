"""A system in a process of its own, asked and answering in lines of JSON.

    {"do": "prepare"}                                         {"version": "ctranslate2 4.6.0"}
    {"do": "open"}                                            {"threads": 2}
    {"do": "write", "prompts": [[15496]], "new": 2, ...}      {"seconds": 0.02, "stamps": [], ...}
    {"do": "memory"}                                          {"now": 81e6, "peak": 93e6}

Instead of an answer there may be {"missing": "..."}, if a package is, or {"error": "..."}. The
process ends when its input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Missing(Exception):
    """The Python of a worker lacks a package."""


class Failed(Exception):
    """A worker could not do what it was asked."""


class Worker:
    """The asking end."""

    def __init__(self, python: str, system: str, model: Path, plain: Path):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "CUDA_VISIBLE_DEVICES": "-1",  # it is processors that are compared
            "HF_HUB_OFFLINE": "1",
        }
        self._notes = plain / "notes.txt"
        with self._notes.open("w") as notes:
            self.started = time.perf_counter()
            self._process = subprocess.Popen(
                [python, __file__, system, str(model), str(plain)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=notes,
                text=True,
                env=environment,
            )

    @property
    def process(self) -> int:
        """The number of its process."""
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=20)  # its input ends, and so it should
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, do: str, **details: object) -> dict:
        """Have something done, and wait for the answer.

        Raises:
            Missing, Failed: it was not done.
        """
        try:
            self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            notes = self._notes.read_text(errors="replace").strip().splitlines()
            raise Failed(f"its process ended: {notes[-1] if notes else 'without a word'}")
        answer = json.loads(line)
        if "missing" in answer:
            raise Missing(answer["missing"])
        if "error" in answer:
            raise Failed(answer["error"])
        return answer


def serve(name: str, model: Path, plain: Path) -> None:
    """The answering end."""
    from systems import SYSTEMS

    # Libraries print; what they print goes to standard error, and the answers where it was meant.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    system = SYSTEMS[name]
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = _answer(system, question.pop("do"), model, plain, **question)
        except ImportError as error:
            answer = {"missing": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(system: object, do: str, model: Path, plain: Path, **details: object) -> dict:
    from systems import threads, version

    if do == "prepare":
        system.prepare(model, plain)
        return {"version": version(system)}
    if do == "open":
        system.open(model, plain)
        return {"threads": threads()}
    if do == "memory":
        return _memory()
    return _write(system, **details)


def _write(system: object, prompts: list[list[int]], new: int, top_k: int) -> dict:
    stamps = []
    tick = None
    if system.ticks and len(prompts) == 1:

        def tick() -> None:
            stamps.append(time.perf_counter() - start)

    start = time.perf_counter()
    tokens = system.generate(prompts, new, top_k, tick)
    seconds = time.perf_counter() - start
    lengths = {len(row) for row in tokens}
    if len(tokens) != len(prompts) or lengths != {new}:
        raise RuntimeError(f"it wrote {lengths} tokens in {len(tokens)} texts, not {new}")
    return {"seconds": seconds, "stamps": stamps, "tokens": tokens}


def _memory() -> dict:
    """Bytes of memory that this process holds, and held at most; nothing where Linux is not.

    Not by `getrusage`, whose maximum includes what the process that started this one held.
    """
    path = Path("/proc/self/status")
    if not path.exists():
        return {}
    status = dict(line.split(":", 1) for line in path.read_text().splitlines())
    now, peak = (int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return {"now": now, "peak": peak}


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
