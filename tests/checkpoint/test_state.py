"""The state beside a checkpoint: comes back to the bit, and only for the weights it belongs to."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from checkpoint_helpers import TINY, latest, random_tensors

from gpt2.checkpoint import folder, state
from gpt2.checkpoint.run import RunFolder
from gpt2.checkpoint.state import ResumeState
from gpt2.errors import UserError


def state_of_step(step: int) -> ResumeState:
    random = np.random.default_rng(step)
    tensors = {
        "adam/mean/model/wte": random.standard_normal((11, 4)).astype(np.float32),
        "adam/steps": tf.Variable(step, dtype=tf.int64),
        "loss_scale": np.array(2.0**20, np.float64),
    }
    return ResumeState({"seed": 7, "loss_sum": 1 / 3, "step": step}, tensors)


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def save(run, step, seed=None, with_state=True):
    tensors = random_tensors(TINY, step if seed is None else seed)
    return run.save(step, tensors, TINY, state_of_step(seed or step) if with_state else None)


def read(run, step):
    """Facts and tensors of a step's state, None if there is none."""
    facts = state.read_facts(run.state_of(run.prefix(step)), run.prefix(step))
    return facts and (facts, state.read_tensors(run.state_of(run.prefix(step))))


def assert_is(found, step):
    facts, tensors = found
    expected = state_of_step(step)
    assert facts == expected.facts
    assert tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        array = tensor.numpy() if isinstance(tensor, tf.Variable) else tensor
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def states(run):
    return sorted({path.name.split(".")[0] for path in run.path.glob("state-*")})


def test_a_state_comes_back_with_the_types_and_the_bits_that_it_had(run):
    save(run, 30)
    assert_is(read(run, 30), 30)
    assert sorted(path.name for path in run.path.glob("state*")) == [
        "state-30.data-00000-of-00001",
        "state-30.index",
        "state-30.json",
    ]


def test_an_optimizer_without_a_memory_has_a_state_all_the_same(run):
    run.save(1, random_tensors(TINY, 1), TINY, ResumeState({"seed": 3}, {}))
    assert read(run, 1) == ({"seed": 3}, {})
    assert [path.name for path in run.path.glob("state*")] == ["state-1.json"]


def test_states_are_kept_for_the_newest_two_checkpoints(run):
    for step in range(1, 7):
        save(run, step)
    assert len(folder.listed_checkpoints(run.path)) == 5
    assert states(run) == ["state-5", "state-6"]
    assert read(run, 4) is None
    save(run, 7, with_state=False)
    assert states(run) == ["state-6"]


def test_a_step_saved_again_has_the_state_of_the_second_time(run):
    for step in (1, 2):
        save(run, step)
    save(run, 2, seed=60)
    assert_is(read(run, 2), 60)
    assert states(run) == ["state-1", "state-2"]
    save(run, 2, seed=61, with_state=False)
    assert read(run, 2) is None


def test_a_state_of_other_weights_is_told(run):
    save(run, 1)
    save(run, 2)
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(run.path / f"model-1{ending}", run.path / f"model-2{ending}")
    with pytest.raises(UserError, match=r"state-2\.json belongs to other weights than .*model-2"):
        read(run, 2)
    assert_is(read(run, 1), 1)


def test_a_state_of_another_step_is_told(run):
    save(run, 1)
    save(run, 2)
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(run.path / f"state-1{ending}", run.path / f"state-2{ending}")
    with pytest.raises(UserError, match=r"state-2\.json belongs to other tensors than"):
        read(run, 2)


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "no data", "no index", "torn json", "no facts"]
)
def test_a_damaged_state_is_one_sentence(run, damage):
    save(run, 1)
    data = run.path / "state-1.data-00000-of-00001"
    facts = run.path / "state-1.json"
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:-30])
    elif damage == "flipped":
        content = bytearray(data.read_bytes())
        content[5] ^= 4
        data.write_bytes(content)
    elif damage == "no data":
        data.unlink()
    elif damage == "no index":
        (run.path / "state-1.index").unlink()
    elif damage == "torn json":
        facts.write_bytes(facts.read_bytes()[:20])
    else:
        content = json.loads(facts.read_text())
        facts.write_text(json.dumps(content | {"facts": 5}))
    with pytest.raises(UserError, match="state-1"):
        read(run, 1)


def test_a_state_is_not_taken_for_a_checkpoint(run):
    save(run, 1)
    (run.path / "checkpoint").unlink()
    assert latest(run) == (run.path / "model-1", 1)
    assert folder.find_checkpoint(run.path) == run.path / "model-1"


def test_the_best_has_the_state_of_the_run_if_it_is_still_there(run):
    for place in (run, run.best):
        place.save(3, random_tensors(TINY, 3), TINY, state_of_step(3) if place is run else None)
    best = latest(run.best)[0]
    assert state.read_facts(run.state_of(best), best) == state_of_step(3).facts
