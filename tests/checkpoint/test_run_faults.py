"""A save that is killed, or that the disk refuses, leaves the old checkpoint or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from checkpoint_helpers import TINY, assert_same, latest, random_tensors
from killed_saves import NEW, state_of

from gpt2 import files
from gpt2.checkpoint import bundle, folder, state
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.checkpoint.run import RunFolder
from gpt2.errors import UserError
from tests.support import waiting

pytestmark = pytest.mark.slow

UNNAMED = "unnamed"
# Which steps the run has saved before, the last one being in force, and which one comes.
CASES = {
    "the first": ([], 1),
    "one more than are kept": ([1, 2], 3),
    "the one in force again": ([1, 2], 2),
    "an older one again": ([1, 2], 1),
    "the only one again, no file naming it": ([UNNAMED, 2], 2),
}
each_case = pytest.mark.parametrize(("before", "step"), CASES.values(), ids=CASES.keys())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    write_model_folder(path, TINY, {"a": 0}, [], random_tensors(TINY, 0))
    return ModelFolder(path)


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """A kill is no power cut: what is not yet on the disk outlives it, and flushing takes long."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def saved_run(path, steps):
    run = RunFolder(path, keep=2)
    run.path.mkdir()
    for step in steps:
        if step != UNNAMED:
            run.save(step, random_tensors(TINY, step), TINY, state_of(step))
    if UNNAMED in steps:
        (path / "checkpoint").unlink()
    return run


def in_force(run, before, step):
    """Whether "new" or "old" tensors are in force, one of the two bit for bit."""
    current = latest(run)
    if current is None:
        assert not before
        return "old"
    prefix, found = current
    tensors = dict(bundle.Tensors(prefix, TINY))
    # A state that there is belongs to the weights, and there always is one.
    state_prefix = run.state_of(prefix)
    facts = state.read_facts(state_prefix, prefix)
    assert state.read_tensors(state_prefix)["adam/steps"] == facts["seed"]
    assert_same(tensors, random_tensors(TINY, facts["seed"]))
    if tensors["model/wte"][0, 0] == random_tensors(TINY, NEW)["model/wte"][0, 0]:
        assert found == step
        assert_same(tensors, random_tensors(TINY, NEW))
        return "new"
    assert found == before[-1]
    assert_same(tensors, random_tensors(TINY, before[-1]))
    return "old"


# --- killed ---


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder that `killed_saves.py` leaves, and the seed of the random times."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    before, after = tmp_path_factory.mktemp("before"), tmp_path_factory.mktemp("killed")
    seed = int.from_bytes(os.urandom(4), "little")
    arguments = [after, seed]
    for case, (steps, step) in CASES.items():
        arguments += [saved_run(before / case, steps).path, step]
    here = Path(__file__).parent
    done = waiting.run(
        [sys.executable, here / "killed_saves.py", *arguments],
        env=os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{Path(files.__file__).parents[1]}"},
    )
    assert done.returncode == 0, done.stderr
    return after, seed


@pytest.mark.parametrize("case", CASES)
def test_a_kill_at_any_point_leaves_the_old_checkpoint_or_the_new_one(killed, model, case):
    before, step = CASES[case]
    copies = killed[0] / case
    outcomes = []
    for number in range(len(list(copies.iterdir()))):
        run = RunFolder(copies / str(number), keep=2)
        outcomes.append(in_force(run, before, step))
        if (run.path / "counter").exists():
            assert int((run.path / "counter").read_text()) in (*before[-1:], step)

        # The training goes on.
        run.adopt(model)
        assert not list(run.path.glob(f"*{files.PARTIAL}*"))
        assert in_force(run, before, step) == outcomes[-1]
        for later in (step, step + 1, step + 2):
            run.save(later, random_tensors(TINY, later), TINY)
            tensors = dict(bundle.Tensors(latest(run)[0], TINY))
            assert_same(tensors, random_tensors(TINY, later))
        assert folder.listed_checkpoints(run.path) == [f"model-{step + 1}", f"model-{step + 2}"]
        left = {path.name.split(".")[0] for path in run.path.glob("[ms]*-*")}
        known = {f"{kind}-{number}" for kind in ("model", "state") for number in range(1, step + 3)}
        assert left <= known - {f"model-{number}" for number in range(1, step + 1)}, left
    # First always the old one, from some point on always the new one.
    assert outcomes == sorted(outcomes, reverse=True)
    assert outcomes.count("old") > 10
    assert outcomes.count("new") > 1


def test_a_kill_at_any_time_leaves_a_whole_checkpoint(killed):
    folder, seed = killed
    print("seed", seed)
    for number in range(10):
        run = RunFolder(folder / str(number))
        if latest(run) is not None:
            prefix, step = latest(run)
            tensors = dict(bundle.Tensors(prefix, TINY))
            facts = state.read_facts(run.state_of(prefix), prefix)
            assert_same(tensors, random_tensors(TINY, facts["seed"]))
            first, again = random_tensors(TINY, step), random_tensors(TINY, step + 1000)
            is_first = tensors["model/wte"][0, 0] == first["model/wte"][0, 0]
            assert_same(tensors, first if is_first else again)


# --- refused ---


def fail_at(monkeypatch, fatal, error):
    """From now on the call numbered `fatal` among those that need space on the disk fails."""
    calls = [0]

    def refusing(change):
        def call(*arguments, **named):
            calls[0] += 1
            if calls[0] == fatal:
                raise error
            return change(*arguments, **named)

        return call

    needing = (os, "replace"), (os, "fsync"), (Path, "write_bytes"), (Path, "write_text")
    for place, name in needing:
        monkeypatch.setattr(place, name, refusing(getattr(place, name)))
    return calls


@each_case
def test_a_full_or_broken_disk_at_any_point_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path, monkeypatch, before, step
):
    outcomes = []
    for fatal in range(1, 100):
        run = saved_run(tmp_path / str(fatal), before)
        number = (errno.ENOSPC, errno.EIO)[fatal % 2]
        error = OSError(number, os.strerror(number))
        with monkeypatch.context() as patch:
            calls = fail_at(patch, fatal, error)
            try:
                run.save(step, random_tensors(TINY, NEW), TINY, state_of(NEW))
            except UserError as refusal:
                assert f"cannot be written: {os.strerror(number)}. Check" in str(refusal)
        if calls[0] < fatal:
            break
        outcomes.append(in_force(run, before, step))
        # No file is left that is not a listed checkpoint's.
        listed = [run.path / name for name in folder.checkpoint_names(run.path)]
        ours = {path.name for prefix in listed for path in bundle.parts(prefix)}
        ours |= {path.name for it in listed for path in state.parts(run.state_of(it))}
        stray = {path.name for path in run.path.iterdir()} - ours - {"checkpoint", "counter"}
        if outcomes[-1] == "old":
            assert not stray
        assert not list(run.path.glob(f"*{files.PARTIAL}*"))
        # With space again, the same save succeeds.
        run.save(step, random_tensors(TINY, NEW), TINY, state_of(NEW))
        assert in_force(run, before, step) == "new"
    assert outcomes == sorted(outcomes, reverse=True)
    assert outcomes.count("old") > 10
    assert fatal < 99


@each_case
def test_tensorflow_out_of_space_leaves_the_run_as_it_was(tmp_path, monkeypatch, before, step):
    run = saved_run(tmp_path / "run", before)
    content = {path.name: path.read_bytes() for path in run.path.iterdir()}

    def refuse(prefix, **others):
        Path(os.fsdecode(prefix) + ".data-00000-of-00001.tempstate12").write_bytes(b"half")
        raise tf.errors.ResourceExhaustedError(None, None, "{{f}} /x/y; No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tf.raw_ops, "SaveV2", refuse)
        with pytest.raises(UserError, match="cannot be written: No space left on device"):
            run.save(step, random_tensors(TINY, NEW), TINY)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == content


@pytest.mark.parametrize("name", ["counter", "checkpoint"])
def test_a_folder_where_a_file_should_be_leaves_the_old_checkpoint(tmp_path, name):
    run = saved_run(tmp_path / "run", [1, 2])
    if name == "counter":
        (run.path / "counter").unlink()
        (run.path / "counter").mkdir()
        with pytest.raises(UserError, match="counter cannot be written: there is a folder"):
            run.save(3, random_tensors(TINY, NEW), TINY)
        assert in_force(run, [1, 2], 3) == "old"
        assert not list(run.path.glob("model-3*"))
    else:
        (run.path / "checkpoint").unlink()
        (run.path / "checkpoint").mkdir()
        with pytest.raises(UserError, match="checkpoint cannot be written: there is a folder"):
            run.save(3, random_tensors(TINY, NEW), TINY)
        assert {path.name.split(".")[0] for path in run.path.glob("model-*")} == {
            "model-1",
            "model-2",
        }


def test_a_second_ctrl_c_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    for fatal in range(1, 100):
        run = saved_run(tmp_path / str(fatal), [1, 2])
        with monkeypatch.context() as patch:
            calls = fail_at(patch, fatal, KeyboardInterrupt())
            with contextlib.suppress(KeyboardInterrupt):
                run.save(2, random_tensors(TINY, NEW), TINY, state_of(NEW))
        if calls[0] < fatal:
            break
        in_force(run, [1, 2], 2)
        assert not list(run.path.glob(f"*{files.PARTIAL}*"))
    assert 10 < fatal < 99
