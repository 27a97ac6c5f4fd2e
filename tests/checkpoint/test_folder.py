"""Which checkpoint of a folder is meant, and which file a model's folder lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from checkpoint_helpers import TINY, assert_same, copy_folder, random_tensors
from google.protobuf import text_format

from gpt2.checkpoint import bundle, folder
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import train_vocabulary


def touch(directory, *names):
    """Files of checkpoints of these names, empty: finding looks at names only."""
    for name in names:
        for ending in (bundle.DATA, bundle.INDEX):
            (directory / (name + ending)).touch()


def state(directory, text):
    (directory / "checkpoint").write_text(text, encoding="utf-8")


# --- the file `checkpoint` ---


def test_the_file_of_a_released_model_names_its_checkpoint(shared_data):
    directory = shared_data / "toy-checkpoint"
    assert folder.listed_checkpoints(directory) == ["model.ckpt"]
    assert folder.latest_checkpoint(directory) == directory / "model.ckpt"
    assert folder.find_checkpoint(directory) == directory / "model.ckpt"


def test_tensorflow_reads_the_names_written_here(tmp_path):
    names = ["model-400", 'a "quoted" one', "Grüße \\ 5", "model-500"]
    folder.write_checkpoint_state(tmp_path, names)
    found = tf.train.get_checkpoint_state(str(tmp_path))
    assert found.model_checkpoint_path == str(tmp_path / "model-500")
    assert found.all_model_checkpoint_paths == [str(tmp_path / name) for name in names]


def test_the_text_written_is_tensorflow_1s(tmp_path):
    folder.write_checkpoint_state(tmp_path, ["model-400", "model-500"])
    assert (tmp_path / "checkpoint").read_bytes() == (
        b'model_checkpoint_path: "model-500"\n'
        b'all_model_checkpoint_paths: "model-400"\n'
        b'all_model_checkpoint_paths: "model-500"\n'
    )


@pytest.mark.parametrize("as_utf8", [False, True])
def test_names_written_by_tensorflow_are_read(tmp_path, as_utf8):
    names = ['a "quoted" one', "Grüße 5", "model-500", "model's"]
    written = tf.compat.v1.train.generate_checkpoint_state_proto(
        str(tmp_path), names[-1], names, all_model_checkpoint_timestamps=[1.5, 2.5, 3.5, 4.5]
    )
    state(tmp_path, text_format.MessageToString(written, as_utf8=as_utf8))
    assert folder.listed_checkpoints(tmp_path) == names


def test_the_newest_comes_last_wherever_it_is_listed(tmp_path):
    state(
        tmp_path,
        'model_checkpoint_path: "b"\n'
        'all_model_checkpoint_paths: "b"\n'
        'all_model_checkpoint_paths: "a"\n'
        'all_model_checkpoint_paths: "a"\n',
    )
    assert folder.listed_checkpoints(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    "path",
    [
        "/home/someone/gpt-2/checkpoint/run1/model-5",
        "../elsewhere/model-5",
        "../../../../etc/model-5",
        "C:\\\\Users\\\\someone\\\\run1\\\\model-5",
        "/home/J\\303\\266rg/run1/model-5",
    ],
)
def test_a_path_from_another_machine_means_the_checkpoint_beside_the_file(tmp_path, path):
    state(tmp_path, f'model_checkpoint_path: "{path}"\n')
    touch(tmp_path, "model-5")
    assert folder.latest_checkpoint(tmp_path) == tmp_path / "model-5"


def test_a_path_that_leads_out_of_the_folder_is_not_followed(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    touch(other, "model-5")
    for path in ("../other/model-5", str(other / "model-5")):
        state(run, f'model_checkpoint_path: "{path}"\n')
        with pytest.raises(UserError, match=r"run.model-5\.index is missing"):
            folder.latest_checkpoint(run)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "model_checkpoint_path:", 'model_checkpoint_path: ""', "<?xml version='1.0'?>"]
    + [
        f'model_checkpoint_path: "{path}"'
        for path in ("/", "..", ".", "x" * 5000, "\x00", "a\x1b[2J", "\\9")
    ],
)
def test_a_file_that_names_no_checkpoint_is_one_sentence(tmp_path, text):
    state(tmp_path, text)
    touch(tmp_path, "model-5", "model-6")
    with pytest.raises(UserError, match=r"names no checkpoint|index is missing|binary data"):
        folder.latest_checkpoint(tmp_path)


def test_a_file_that_is_not_text_is_one_sentence(tmp_path):
    (tmp_path / "checkpoint").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-16 text"):
        folder.latest_checkpoint(tmp_path)


# --- finding ---


def test_a_folder_without_the_file_means_its_only_checkpoint(tmp_path):
    assert folder.latest_checkpoint(tmp_path) is None
    (tmp_path / "model-7.index").touch()
    (tmp_path / "model-9.0123456789ab.partial.index").touch()
    assert folder.latest_checkpoint(tmp_path) is None
    touch(tmp_path, "model-5")
    assert folder.latest_checkpoint(tmp_path) == tmp_path / "model-5"
    touch(tmp_path, "model-6")
    with pytest.raises(UserError, match=r"several checkpoints \(model-5, model-6\) and no file"):
        folder.latest_checkpoint(tmp_path)


def test_a_newest_checkpoint_that_lacks_a_file_is_told_with_those_that_are_whole(tmp_path):
    touch(tmp_path, "model-5", "model-50", "model-500")
    folder.write_checkpoint_state(tmp_path, ["model-5", "model-50", "model-500"])
    (tmp_path / "model-500.data-00000-of-00001").unlink()
    (tmp_path / "model-50.index").unlink()
    with pytest.raises(UserError) as raised:
        folder.latest_checkpoint(tmp_path)
    assert str(raised.value).startswith(
        f"{tmp_path / 'model-500.data-00000-of-00001'} is missing. "
    )
    assert str(raised.value).endswith("'checkpoint' beside it: model-5")


def test_a_folder_a_prefix_and_each_file_stand_for_a_checkpoint(tmp_path):
    touch(tmp_path, "model-5", "model-6")
    folder.write_checkpoint_state(tmp_path, ["model-5", "model-6"])
    assert folder.find_checkpoint(tmp_path) == tmp_path / "model-6"
    for ending in ("", ".index", ".meta", ".data-00000-of-00001"):
        assert folder.find_checkpoint(tmp_path / f"model-5{ending}") == tmp_path / "model-5"


def test_what_is_no_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in the folder"):
        folder.find_checkpoint(tmp_path)
    (tmp_path / "model-5.index").touch()
    with pytest.raises(UserError, match=r"model-5\.data-00000-of-00001 is missing"):
        folder.find_checkpoint(tmp_path / "model-5")
    for name in ("model", "model-5.index.index", "model-5\x00"):
        with pytest.raises(UserError, match=r"not a checkpoint \(there is no "):
            folder.find_checkpoint(tmp_path / name)


# --- model folders ---


def test_the_toy_models_folder_gives_its_parts(shared_data):
    model = ModelFolder(shared_data / "toy-checkpoint")
    assert model.hparams == HParams(n_vocab=356, n_ctx=20, n_embd=15, n_head=5, n_layer=3)
    assert model.checkpoint == model.path / "model.ckpt"
    assert len(model.weights()) == 40
    assert model.tokenizer().encode(" more power") == [517, 1176]


@pytest.mark.parametrize("name", ["hparams.json", "encoder.json", "vocab.bpe", "checkpoint"])
@pytest.mark.parametrize(
    ("directory", "remedy"),
    [
        ("345M", "Download the model with: python download_model.py 345M"),
        ("124M", "Download the model with: python download_model.py 124M"),
        ("mine", None),
    ],
)
def test_a_missing_file_is_named_with_what_brings_it(
    shared_data, tmp_path, name, directory, remedy
):
    model = ModelFolder(copy_folder(shared_data / "toy-checkpoint", tmp_path / directory))
    (model.path / name).unlink()
    if name == "checkpoint":
        (model.path / "model.ckpt.index").unlink()
    remedy = remedy or (
        "Copy it from the original model folder"
        if name == "checkpoint"
        else "Copy hparams.json, encoder.json and vocab.bpe from the folder of the model that"
    )
    with pytest.raises(UserError) as raised:
        model.tokenizer()
        model.weights()
    assert str(raised.value).startswith(f"{model.path / name} is missing. {remedy}")


def test_a_missing_data_file_is_named_with_what_brings_it(shared_data):
    with pytest.raises(UserError, match=r"model\.ckpt\.data-00000-of-00001 is missing"):
        ModelFolder(shared_data / "openai-117M-index").weights()


def test_hparams_of_another_model_are_told_by_the_path_of_their_file(shared_data, tmp_path):
    model = ModelFolder(copy_folder(shared_data / "toy-checkpoint", tmp_path / "mine"))
    HParams(356, 20, 15, 5, 4).save(model.path / "hparams.json")
    with pytest.raises(UserError, match=r"mine.hparams\.json says n_layer 4"):
        model.weights()


# --- new models ---


def test_a_new_model_is_a_model_folder(tmp_path):
    vocabulary, merges = train_vocabulary(["low lower lowest, new newer newest " * 9], 270)
    hparams = HParams(len(vocabulary), 8, 4, 2, 2)
    weights = random_tensors(hparams, 3)
    write_model_folder(tmp_path / "models" / "new", hparams, vocabulary, merges, weights)
    model = ModelFolder(tmp_path / "models" / "new")
    assert model.hparams == hparams
    assert_same(model.weights(), weights)
    assert model.tokenizer().decode(model.tokenizer().encode("newest")) == "newest"
    assert sorted(path.name for path in model.path.iterdir()) == [
        "checkpoint",
        "encoder.json",
        "hparams.json",
        "model.ckpt.data-00000-of-00001",
        "model.ckpt.index",
        "model.ckpt.meta",
        "vocab.bpe",
    ]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["new"]


def test_a_new_model_never_takes_the_place_of_another(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "precious").touch()
    with pytest.raises(UserError, match="new cannot be written: "):
        write_model_folder(tmp_path / "new", TINY, {"a": 0}, [], random_tensors(TINY, 3))
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "precious"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_files_saved_with_a_byte_order_mark_are_read(tmp_path, encoding):
    vocabulary, merges = train_vocabulary(["low lower lowest, new newer newest " * 9], 270)
    hparams = HParams(len(vocabulary), 8, 4, 2, 1)
    path = tmp_path / "new"
    write_model_folder(path, hparams, vocabulary, merges, random_tensors(hparams, 4))
    for name in ("hparams.json", "encoder.json", "vocab.bpe", "checkpoint"):
        text = (path / name).read_text(encoding="utf-8").replace("\n", "\r\n")
        (path / name).write_bytes(text.encode(encoding))
    model = ModelFolder(path)
    assert model.hparams == hparams
    assert model.checkpoint == path / "model.ckpt"
    assert model.tokenizer().merges == merges
    assert model.tokenizer().vocabulary == vocabulary


# --- without TensorFlow ---


def test_finding_a_checkpoint_does_not_import_tensorflow(tmp_path):
    touch(tmp_path, "model-5")
    program = (
        "import sys, pathlib\n"
        "from gpt2.checkpoint import bundle, folder, run\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "assert folder.latest_checkpoint(path) == path / 'model-5'\n"
        "assert run.RunFolder(path).step_of(path / 'model-5') == 5\n"
        "assert folder.ModelFolder(path).checkpoint == path / 'model-5'\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(folder.__file__).parents[2])},
    )


def test_weights_are_those_of_the_newest_checkpoint(tmp_path):
    for step in (1, 2):
        bundle.write_bundle(tmp_path / f"model-{step}", random_tensors(TINY, step))
    folder.write_checkpoint_state(tmp_path, ["model-2", "model-1"])
    TINY.save(tmp_path / "hparams.json")
    assert_same(ModelFolder(tmp_path).weights(), random_tensors(TINY, 1))
