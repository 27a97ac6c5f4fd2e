"""A stopped run resumes exactly: after Ctrl+C, SIGTERM, kill -9, or damage."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from gpt2.locks import run_lock
from tests.commands.toolkit_copy import DATA, TRAIN, Done, Home, Toolkit

pytestmark = pytest.mark.slow

STEPS, SAVE_EVERY = 30, 10
# Everything with state: Adam, a schedule, noise and dropout, the best loss, the average loss. A
# step has many batches, so that a signal arrives between two of them.
RUN = (
    f"python src/train.py --dataset text.npz --max_steps {STEPS} --save_every {SAVE_EVERY}"
    " --sample_every 20 --sample_length 4 --batch_size 2 --accumulate_gradients 25"
    " --learning_rate 0.01 --lr_schedule cosine --warmup_steps 4 --noise 0.1 --dropout 0.1"
    " --val_split 0.1 --val_every 5 --val_batch_count 3 --patience 6"
)
# How one run is stopped again and again, and at the line of which step.
SIGNALS = {"SIGINT": 3, "SIGTERM": 8, "SIGKILL": 13}


class Runs(NamedTuple):
    """Two runs that must end with the same weights."""

    toolkit: Toolkit
    whole: Done
    stopped: dict[str, Done]  # the calls of the other run, by the signal that stopped them
    last: Done  # its last call, which nothing stopped


@pytest.fixture(scope="module")
def runs(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    if os.name == "nt":
        pytest.skip("sends signals that Windows does not have")
    toolkit = Toolkit(tmp_path_factory.mktemp("resume") / "toolkit")
    shutil.copytree(home.toolkit.root / "models" / "117M", toolkit.root / "models" / "117M")
    shutil.copy(home.toolkit.root / "text.npz", toolkit.root)

    def stop(name: str, step: int, flags: str) -> Done:
        with toolkit.start(f"{RUN} --run_name stopped {flags}") as running:
            running.send_when(getattr(signal, name), lambda: f"\n[{step} | " in running.out)
            return running.finish()

    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(toolkit.run, f"{RUN} --run_name whole --seed 5")
        stopped = {}
        for name, step in SIGNALS.items():  # only the first has --seed, which the run records
            stopped[name] = stop(name, step, "" if stopped else "--seed 5")
        last = toolkit.run(f"{RUN} --run_name stopped")
        return Runs(toolkit, whole.result(), stopped, last)


def history(contents: dict[str, bytes | None]) -> list[dict[str, Any]]:
    """Return the history of a run without its times."""
    lines = [json.loads(line) for line in contents["history.jsonl"].splitlines()]
    return [{n: v for n, v in line.items() if n != "tokens_per_second"} for line in lines]


def last_steps(out: str) -> list[int]:
    return [int(step) for step in re.findall(r"^\[(\d+) \| \S+ loss=", out, re.MULTILINE)]


def test_the_whole_run_does_all_its_steps(runs: Runs) -> None:
    assert last_steps(runs.whole.succeeds().out) == list(range(1, STEPS + 1))


def test_each_call_resumes_where_the_one_before_was_stopped(runs: Runs) -> None:
    calls = [*runs.stopped.values(), runs.last.succeeds()]
    for (name, done), following in zip(runs.stopped.items(), calls[1:], strict=True):
        assert done.code == (-signal.SIGKILL if name == "SIGKILL" else 0), done
        last = last_steps(done.out)[-1]
        assert last < STEPS
        saved = last // SAVE_EVERY * SAVE_EVERY if name == "SIGKILL" else last
        assert last_steps(following.out)[0] == saved + 1


def test_a_stopped_run_ends_with_the_same_bits(runs: Runs) -> None:
    whole = runs.toolkit.contents("checkpoint/whole")
    other = runs.toolkit.contents("checkpoint/stopped")
    assert other[f"model-{STEPS}{DATA}"] == whole[f"model-{STEPS}{DATA}"]
    assert other[f"state-{STEPS}{DATA}"] == whole[f"state-{STEPS}{DATA}"]
    assert other[f"state-{STEPS}.json"] == whole[f"state-{STEPS}.json"]
    assert {name for name in other if name.startswith("best/")} == {
        name for name in whole if name.startswith("best/")
    }
    best = [name for name in whole if name.startswith("best/") and name.endswith(DATA)]
    assert [other[name] for name in best] == [whole[name] for name in best] != []
    assert history(other) == history(whole)
    samples = runs.toolkit.contents("samples")
    assert samples["stopped/samples-20"] == samples["whole/samples-20"]


def test_the_config_records_each_call_with_its_seed(runs: Runs) -> None:
    contents = runs.toolkit.contents("checkpoint/stopped")
    calls = json.loads(contents["config.json"])["calls"]
    assert len(calls) == len(runs.stopped) + 1
    assert [call["flags"]["seed"] for call in calls] == [5, None, None, None]
    assert [call["steps_before"] for call in calls] == [
        last_steps(done.out)[0] - 1 for done in (*runs.stopped.values(), runs.last)
    ]
    for call in calls:
        assert call["seed"] == 5
        assert call["flags"]["accumulate_gradients"] == 25
        assert call["versions"].keys() >= {"python", "tensorflow", "numpy"}
        assert len(call["data"]["text.npz"]["sha256"]) == 64
        assert call["data"] == calls[0]["data"]


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_resumed(runs: Runs) -> None:
    folder = runs.toolkit.root / "checkpoint"
    shutil.copytree(folder / "whole", folder / "damaged")
    data = folder / "damaged" / f"model-{STEPS}{DATA}"
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    done = runs.toolkit.run(f"{RUN} --run_name damaged")
    done.says(
        0,
        rf"model-{STEPS}\.data-\S+: .*tensor .*damaged.* from \S+model-20 instead",
    )
    assert last_steps(done.out) == list(range(21, STEPS + 1))
    # The step is saved again, with the same weights.
    whole = runs.toolkit.contents("checkpoint/whole")
    assert data.read_bytes() == whole[f"model-{STEPS}{DATA}"]


def test_a_second_training_in_the_same_run_is_refused(toolkit: Toolkit, no_tensorflow: str) -> None:
    run = toolkit.root / "checkpoint" / "run1"
    with run_lock(run):
        done = toolkit.run(f"{no_tensorflow} {TRAIN}")
        done.says(1, r"\S+run1\b.* run.name")
    assert not run.exists()
