"""Two processes on loopback train one run together, and what happens when one of them is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.toolkit_copy import Done, Home, Running, Toolkit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="TensorFlow has no gRPC on Windows"),
]

RUN = (
    "python src/train.py --dataset text.npz --batch_size 4 --accumulate_gradients 2 --seed 3"
    " --learning_rate 0.01 --optimizer adafactor --memory_saving_gradients --lora_rank 2"
    " --val_split 0.2 --val_every 2 --val_batch_size 3 --save_every 2 --sample_every 1000"
)


@pytest.fixture(scope="module")
def toolkit(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Toolkit:
    toolkit = Toolkit(tmp_path_factory.mktemp("cluster") / "toolkit")
    shutil.copytree(home.toolkit.root / "models" / "117M", toolkit.root / "models" / "117M")
    shutil.copy(home.toolkit.root / "text.npz", toolkit.root)
    return toolkit


def free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]


def line(addresses: list[str], worker: int, flags: str, **variables: object) -> str:
    """The command line of a worker."""
    task = {"type": "worker", "index": worker}
    config = json.dumps({"cluster": {"worker": addresses}, "task": task})
    settings = "".join(f"{name}={value} " for name, value in variables.items())
    return f"TF_CONFIG={shlex.quote(config)} {settings}{RUN} {flags}"


@contextlib.contextmanager
def cluster(toolkit: Toolkit, *flags: str) -> Iterator[list[Running]]:
    addresses = free_addresses(len(flags))
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(toolkit.start(line(addresses, worker, words)))
            for worker, words in enumerate(flags)
        ]


def losses(toolkit: Toolkit, run: str) -> dict[tuple[int, str], float]:
    path = toolkit.root / "checkpoint" / run / "history.jsonl"
    lines = map(json.loads, path.read_text().splitlines())
    return {
        (entry["step"], name): entry[name]
        for entry in lines
        for name in ("loss", "gradient_norm", "val_loss")
        if name in entry
    }


def test_two_workers_have_the_losses_of_one_process(toolkit: Toolkit) -> None:
    flags = "--max_steps 4 --run_name two"
    with cluster(toolkit, flags, flags) as workers:
        chief, other = (worker.finish().succeeds() for worker in workers)
    toolkit.run(f"{RUN} --max_steps 4 --run_name one").succeeds()
    assert "[4 | " in chief.out and "[1 | " not in other.out
    found, expected = losses(toolkit, "two"), losses(toolkit, "one")
    assert found.keys() == expected.keys() and (4, "val_loss") in found
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5), key
    files = {path.name for path in (toolkit.root / "checkpoint" / "two").iterdir()}
    assert "model-4.index" in files and "config.json" in files
    # Continued by one process, as exactly as sums in another order allow.
    for run in ("two", "one"):
        toolkit.run(f"{RUN} --max_steps 6 --run_name {run}").succeeds()
    found, expected = losses(toolkit, "two"), losses(toolkit, "one")
    assert found[6, "loss"] == pytest.approx(expected[6, "loss"], rel=1e-5)


def step_of(worker: Running, step: int) -> bool:
    return f"\n[{step} | " in worker.out


def test_a_signal_to_any_worker_saves_once_and_ends_all(toolkit: Toolkit) -> None:
    flags = "--run_name stopped"
    with cluster(toolkit, flags, flags) as (chief, other):
        chief.wait_until(lambda: step_of(chief, 3))
        other.process.send_signal(signal.SIGTERM)
        ended = [worker.finish() for worker in (chief, other)]
    assert [done.code for done in ended] == [0, 0], ended
    assert all("interrupted" in done.out for done in ended)
    last = max(step for step, _ in losses(toolkit, "stopped"))
    assert f"Saving checkpoint/stopped/model-{last}" in ended[0].out
    assert "Saving" not in ended[1].out


def test_a_killed_worker_is_named_and_the_run_resumes(toolkit: Toolkit) -> None:
    flags = "--run_name killed"
    with cluster(toolkit, flags, flags) as (chief, other):
        chief.wait_until(lambda: step_of(chief, 3))
        other.process.kill()
        chief.finish().says(1, r"Lost worker 1 \(127\.0\.0\.1:\d+\).*resumes from the last check")
    flags = "--run_name killed --max_steps 20"
    with cluster(toolkit, flags, flags) as workers:
        chief, other = (worker.finish() for worker in workers)
    assert (chief.code, other.code) == (0, 0), (chief, other)
    assert "Loading checkpoint checkpoint/killed/model-" in chief.out


def test_workers_with_other_flags_are_refused(toolkit: Toolkit) -> None:
    flags = "--run_name other --max_steps 2"
    with cluster(toolkit, flags, f"{flags} --clip_norm 1") as workers:
        ended = [worker.finish() for worker in workers]
    ended[0].says(1, r"^worker 1 \(.*\) has another --clip_norm: 1\.0 there, None here")
    ended[1].says(1, r"^worker 0 \(.*\) has another --clip_norm: None there, 1\.0 here")
    assert not (toolkit.root / "checkpoint" / "other" / "config.json").exists()


def refused(toolkit: Toolkit, command: str) -> Done:
    done = toolkit.run(command)
    assert not list(Path(toolkit.root, "checkpoint").glob("refused/model-*"))
    return done


def test_what_keeps_a_cluster_from_starting(toolkit: Toolkit) -> None:
    flags = "--run_name refused"
    own, peer = free_addresses(2)
    missing = line([own, peer], 0, flags, GPT2_WORKER_TIMEOUT=1)
    refused(toolkit, missing).says(1, rf"worker 1 \({peer}\) did not come within 1 seconds")
    with socket.create_server(("127.0.0.1", int(own.rpartition(":")[2]))):
        refused(toolkit, line([own, peer], 0, flags)).says(1, f"{own}: the port is taken")
    without_seed = line([own, peer], 0, flags).replace(" --seed 3", "")
    refused(toolkit, without_seed).says(1, "Several workers need --seed N")
    refused(toolkit, f"TF_CONFIG=nonsense {RUN} {flags}").says(1, "TF_CONFIG: not valid JSON")
    alone = f"{RUN} {flags} --distribute multi_worker"
    refused(toolkit, alone).says(1, "needs several workers. Set TF_CONFIG")
