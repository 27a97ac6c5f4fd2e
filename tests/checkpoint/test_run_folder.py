"""The folder of a run: what `save` leaves, what is found again, what `adopt` copies and refuses."""

from __future__ import annotations

import json
import os

import pytest
import tensorflow as tf
from checkpoint_helpers import TINY, assert_same, copy_folder, last_step, latest, random_tensors

from gpt2.checkpoint import bundle, folder
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.checkpoint.run import RunFolder
from gpt2.errors import UserError
from gpt2.hparams import HParams

ENDINGS = (".data-00000-of-00001", ".index", ".meta")


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "checkpoint" / "run1")


@pytest.fixture
def model(tmp_path):
    """A model folder of the tiny size, its vocabulary a stand-in."""
    path = tmp_path / "tiny"
    vocabulary = {"a": 0, "b": 1, "ab": 2}
    write_model_folder(path, TINY, vocabulary, [("a", "b")], random_tensors(TINY, 0))
    return ModelFolder(path)


def save(run, step, seed=None, hparams=TINY):
    return run.save(step, random_tensors(hparams, step if seed is None else seed), hparams)


def saved(run):
    """The tensors of the checkpoint in force."""
    return dict(bundle.Tensors(latest(run)[0], TINY))


def steps_on_disk(run):
    names = [path.name for path in run.path.glob("model-*")]
    steps = {int(name.split(".")[0].removeprefix("model-")) for name in names}
    assert sorted(names) == sorted(f"model-{step}{end}" for step in steps for end in ENDINGS)
    return sorted(steps)


# --- save and latest ---


def test_a_run_begins_with_nothing(run):
    assert latest(run) is None
    assert last_step(run) == 0
    assert not run.path.exists()


def test_the_layout_is_that_of_2019(run):
    prefix = save(run, 1000)
    assert prefix == run.prefix(1000) == run.path / "model-1000"
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoint",
        "counter",
        *(f"model-1000{ending}" for ending in ENDINGS),
    ]
    assert (run.path / "counter").read_bytes() == b"1000\n"
    assert tf.train.latest_checkpoint(str(run.path)) == str(prefix)
    assert latest(run) == (prefix, 1000)
    assert last_step(run) == 1000
    assert_same(saved(run), random_tensors(TINY, 1000))


def test_five_are_kept_and_listed_the_oldest_first(run):
    for step in range(100, 900, 100):
        save(run, step)
    assert steps_on_disk(run) == [400, 500, 600, 700, 800]
    found = tf.train.get_checkpoint_state(str(run.path))
    assert found.model_checkpoint_path == str(run.path / "model-800")
    assert found.all_model_checkpoint_paths == [
        str(run.path / f"model-{step}") for step in (400, 500, 600, 700, 800)
    ]


def test_another_number_can_be_kept(tmp_path):
    run = RunFolder(tmp_path / "run", keep=1)
    for step in (1, 2, 3):
        save(run, step)
    assert steps_on_disk(run) == [3]


def test_a_later_process_counts_the_checkpoints_of_an_earlier_one(run):
    for step in range(1, 6):
        save(RunFolder(run.path), step)
    save(RunFolder(run.path), 6)
    assert steps_on_disk(run) == [2, 3, 4, 5, 6]


def test_checkpoints_that_are_not_listed_are_left_alone(run):
    run.path.mkdir(parents=True)
    bundle.write_bundle(run.path / "model-3", random_tensors(TINY, 3))
    bundle.write_bundle(run.path / "model-4", random_tensors(TINY, 4))
    for step in range(10, 17):
        save(run, step)
    assert steps_on_disk(run) == [3, 4, 12, 13, 14, 15, 16]


def test_a_model_put_into_the_run_by_hand_is_never_deleted(run):
    run.path.mkdir(parents=True)
    bundle.write_bundle(run.path / "model.ckpt", random_tensors(TINY, 0))
    folder.write_checkpoint_state(run.path, ["model.ckpt"])
    assert latest(run) == (run.path / "model.ckpt", 0)
    for step in range(1, 8):
        save(run, step)
    assert all((run.path / f"model.ckpt{ending}").is_file() for ending in ENDINGS)
    assert last_step(run) == 7


def test_a_fresh_training_counts_from_one_and_pushes_the_former_out(run):
    for step in (800, 900, 1000):
        save(run, step)
    save(run, 100)
    assert last_step(run) == 100
    assert steps_on_disk(run) == [100, 800, 900, 1000]
    for step in (200, 300, 400):
        save(run, step)
    assert steps_on_disk(run) == [100, 200, 300, 400, 1000]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_step_saved_again_replaces_the_first(run, step):
    for former in (1, 2, 3):
        save(run, former)
    save(run, step, seed=50)
    assert last_step(run) == step
    assert_same(saved(run), random_tensors(TINY, 50))
    assert steps_on_disk(run) == [1, 2, 3]
    others = [f"model-{other}" for other in (1, 2, 3) if other != step]
    assert folder.listed_checkpoints(run.path) == [*others, f"model-{step}"]


def test_a_step_is_saved_again_where_files_cannot_have_two_names(run, monkeypatch):
    def refuse(source, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    save(run, 1, seed=60)
    save(run, 1, seed=61)
    assert_same(saved(run), random_tensors(TINY, 61))
    assert steps_on_disk(run) == [1]


def test_a_step_is_saved_again_where_a_kill_left_a_second_name_for_it(run):
    save(run, 1, seed=62)
    for ending in ENDINGS:
        os.link(run.path / f"model-1{ending}", run.path / f"model-1-previous{ending}")
    save(run, 1, seed=63)
    assert_same(saved(run), random_tensors(TINY, 63))
    assert steps_on_disk(run) == [1]


@pytest.mark.skipif(os.name == "nt", reason="a folder cannot be flushed on Windows")
@pytest.mark.parametrize("step", [1, 2])
def test_each_file_is_flushed_before_it_gets_its_name_and_its_folder_after(run, monkeypatch, step):
    save(run, 1)
    flushed, named = [], []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor):
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def recording_replace(source, target):
        assert os.stat(source).st_ino in flushed
        flushed.clear()
        named.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    save(run, step, seed=80)
    assert flushed == [os.stat(run.path).st_ino]
    checkpoint = [f"model-{step}{end}" for end in (".data-00000-of-00001", ".meta", ".index")]
    set_aside = ["checkpoint", "unfinished", "checkpoint"] if step == 1 else ["unfinished"]
    assert named == [*set_aside, *checkpoint, "counter", "checkpoint"]


def test_only_the_tensors_of_the_model_can_be_saved(run):
    tensors = random_tensors(TINY, 1)
    with pytest.raises(ValueError, match="not those of a model"):
        run.save(1, tensors | {"global_step": tensors["model/wte"]}, TINY)
    assert not run.path.exists()


# --- the step ---


def test_the_step_is_that_of_the_checkpoint_in_force_whatever_the_counter_says(run):
    save(run, 500)
    (run.path / "counter").write_text("600\n")
    assert last_step(run) == 500
    (run.path / "counter").write_text("")
    assert last_step(run) == 500
    assert run.step_of(run.path / "model-400") == 400


@pytest.mark.parametrize(("counter", "step"), [("47\n", 47), ("0", 0), (None, 0)])
def test_a_checkpoint_without_a_step_in_its_name_takes_that_of_the_counter(run, counter, step):
    run.path.mkdir(parents=True)
    bundle.write_bundle(run.path / "model.ckpt", random_tensors(TINY, 0))
    if counter is not None:
        (run.path / "counter").write_text(counter)
    assert last_step(run) == step


@pytest.mark.parametrize("counter", ["", "many\n", "-3", "1.5", "9" * 5000])
def test_a_counter_that_is_needed_and_holds_no_number_is_one_sentence(run, counter):
    run.path.mkdir(parents=True)
    bundle.write_bundle(run.path / "model.ckpt", random_tensors(TINY, 0))
    (run.path / "counter").write_text(counter)
    with pytest.raises(UserError, match="counter must hold the number of the last step"):
        latest(run)


def test_a_run_written_by_a_tf1_saver_goes_on(run):
    run.path.mkdir(parents=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, array in random_tensors(TINY, 70).items():
            tf.compat.v1.get_variable(name, initializer=array)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(max_to_keep=5)
        for step in (1, 2, 3):
            saver.save(session, str(run.path / "model"), global_step=step)
    assert last_step(run) == 3
    assert_same(saved(run), random_tensors(TINY, 70))
    for step in (4, 5, 6):
        save(run, step)
    assert steps_on_disk(run) == [2, 3, 4, 5, 6]


# --- adopt ---


def test_an_adopted_run_is_a_model_folder(run, model):
    run.adopt(model)
    save(run, 1)
    itself = ModelFolder(run.path)
    assert itself.hparams == TINY
    assert_same(itself.weights(), random_tensors(TINY, 1))
    assert itself.tokenizer().encode("ab") == [2]
    for name in ("hparams.json", "encoder.json", "vocab.bpe"):
        assert (run.path / name).read_bytes() == (model.path / name).read_bytes()


def test_adopting_again_and_adopting_itself_change_nothing(run, model):
    run.adopt(model)
    before = {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    run.adopt(model)
    run.adopt(ModelFolder(run.path))
    assert {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()} == before


def test_the_same_model_in_other_bytes_is_the_same_model(run, model):
    run.adopt(model)
    hparams = model.path / "hparams.json"
    hparams.write_text(json.dumps(json.loads(hparams.read_text())))
    encoder = model.path / "encoder.json"
    encoder.write_text(json.dumps(json.loads(encoder.read_text()), indent=1))
    merges = model.path / "vocab.bpe"
    merges.write_bytes(merges.read_bytes().replace(b"\n", b"\r\n"))
    run.adopt(model)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hparams.json", '{"n_vocab": 11, "n_ctx": 6, "n_embd": 4, "n_head": 2, "n_layer": 1}'),
        ("encoder.json", '{"a": 0, "b": 2, "ab": 1}'),
        ("vocab.bpe", "#version: 0.2\nb a\n"),
    ],
)
def test_a_run_of_another_model_is_refused_and_left_as_it_was(run, model, name, content):
    run.adopt(model)
    (run.path / "vocab.bpe").unlink()
    if name == "vocab.bpe":
        run.adopt(model)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    (model.path / name).write_text(content)
    with pytest.raises(UserError, match=rf"run1 belongs to a model with another {name} than .*"):
        run.adopt(ModelFolder(model.path))
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_run_of_2019_takes_the_files_of_its_model_and_of_no_other(run, model, tmp_path):
    save(run, 1)  # as in 2019: no hparams.json, no vocabulary
    other = ModelFolder(copy_folder(model.path, tmp_path / "other"))
    HParams(11, 5, 4, 2, 2).save(other.path / "hparams.json")
    with pytest.raises(UserError, match=r"n_layer 1, .*other.hparams\.json says n_layer 2"):
        run.adopt(other)
    assert not (run.path / "hparams.json").exists()
    run.adopt(model)
    assert (run.path / "hparams.json").exists()


def test_adopting_an_incomplete_model_names_the_file(run, model):
    (model.path / "vocab.bpe").unlink()
    with pytest.raises(UserError, match=r"tiny.vocab\.bpe is missing\. Copy"):
        run.adopt(model)
    assert not run.path.exists()


def test_a_run_where_a_file_lies_is_one_sentence(run, model):
    run.path.parent.mkdir()
    run.path.write_text("a file")
    with pytest.raises(UserError, match="run1 cannot be written: "):
        run.adopt(model)
    with pytest.raises(UserError, match="run1 cannot be written: "):
        save(run, 1)
    assert run.path.read_text() == "a file"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes wherever it likes"
)
def test_a_folder_without_permission_is_one_sentence(run):
    save(run, 1)
    run.path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="cannot be written: Permission denied"):
            save(run, 2)
    finally:
        run.path.chmod(0o700)
    assert steps_on_disk(run) == [1]


def test_leftovers_of_a_killed_writer_go_and_nothing_else(run, model):
    for step in (1, 2):
        save(run, step)
    precious = {path.name for path in run.path.iterdir()} | {"events.out.tfevents.1", "notes.txt"}
    leftovers = (
        "model-3.0123456789ab.partial.data-00000-of-00001.tempstate1234",
        "model-3.0123456789ab.partial.index",
        "checkpoint.0123456789ab.partial",
        *(f"model-1-previous{ending}" for ending in ENDINGS),
    )
    for name in (*precious, *leftovers):
        (run.path / name).touch()
    run.adopt(model)
    left = {path.name for path in run.path.iterdir()}
    assert left == precious | {"hparams.json", "encoder.json", "vocab.bpe"}
