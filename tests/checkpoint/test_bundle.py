"""The TF1 bundle: what TensorFlow 1 wrote is read, what is written here TensorFlow 1 code reads."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from checkpoint_helpers import SMALL, assert_same, copy_folder, random_tensors

from gpt2 import files
from gpt2.checkpoint import bundle
from gpt2.errors import UserError
from gpt2.hparams import HParams

TOY = HParams(n_vocab=356, n_ctx=20, n_embd=15, n_head=5, n_layer=3)
DATA = "model.ckpt.data-00000-of-00001"
INDEX = "model.ckpt.index"


@pytest.fixture
def toy(shared_data, tmp_path):
    """A copy of the checkpoint that TensorFlow 1.12 wrote."""
    return copy_folder(shared_data / "toy-checkpoint", tmp_path / "toy")


@contextlib.contextmanager
def tf1_variables(tensors):
    """A TensorFlow 1 session whose variables hold these arrays."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, initializer=array)
            for name, array in tensors.items()
        }
        session.run(tf.compat.v1.global_variables_initializer())
        yield session, variables


def tf1_save(prefix, tensors):
    with tf1_variables(tensors) as (session, _):
        tf.compat.v1.train.Saver().save(session, str(prefix), write_meta_graph=False)


# --- reading ---


def test_a_checkpoint_of_tensorflow_1_is_read_as_its_data_file_has_it(toy):
    tensors = dict(bundle.Tensors(toy / "model.ckpt", TOY))
    assert list(tensors) == sorted(TOY.tensor_shapes())
    assert {name: array.shape for name, array in tensors.items()} == TOY.tensor_shapes()
    # TensorFlow 1 laid the tensors down one after the other, in the order of the names.
    in_file = np.fromfile(toy / DATA, "<f4")
    np.testing.assert_array_equal(np.concatenate([a.ravel() for a in tensors.values()]), in_file)


def test_the_released_117m_index_is_that_of_the_default_hparams(shared_data):
    prefix = shared_data / "openai-117M-index" / "model.ckpt"
    bundle.check_index(prefix, HParams())
    index = bundle.read_index(prefix)
    assert {name: entry.shape for name, entry in index.items()} == HParams().tensor_shapes()
    assert len(index) == 148
    assert {entry.dtype for entry in index.values()} == {"float32"}
    assert sum(entry.size for entry in index.values()) == 497_759_232
    assert index["model/h0/attn/c_attn/w"].shape == (1, 768, 2304)


def test_what_a_tf1_saver_writes_is_read(tmp_path):
    tensors = random_tensors(SMALL, 1)
    tf1_save(tmp_path / "model-7", tensors)
    assert_same(dict(bundle.Tensors(tmp_path / "model-7", SMALL)), tensors)


def test_a_checkpoint_in_several_data_files_is_read(tmp_path):
    tensors = random_tensors(SMALL, 2)
    for shard, part in enumerate((list(tensors)[::2], list(tensors)[1::2])):
        tf.raw_ops.SaveV2(
            prefix=str(tmp_path / f"part{shard}"),
            tensor_names=part,
            shape_and_slices=[""] * len(part),
            tensors=[tensors[name] for name in part],
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "part0"), str(tmp_path / "part1")],
        destination_prefix=str(tmp_path / "model"),
    )
    assert [path.name[-5:] for path in bundle.data_files(tmp_path / "model")] == ["00002"] * 2
    assert_same(dict(bundle.Tensors(tmp_path / "model", SMALL)), tensors)


def test_other_tensors_beside_the_model_are_ignored(tmp_path):
    tensors = random_tensors(SMALL, 3)
    extra = {
        "global_step": np.int64(70),
        "beta1_power": np.float32(0.9),
        "model/wte/Adam": np.zeros((13, 4), np.float32),
        "model/wte/Adam_1": np.zeros((13, 4), np.float32),
    }
    tf1_save(tmp_path / "model", tensors | extra)
    assert_same(dict(bundle.Tensors(tmp_path / "model", SMALL)), tensors)


# --- refusing ---


def test_a_damaged_tensor_is_named(toy):
    whole = (toy / DATA).read_bytes()
    start = 0
    for name, shape in TOY.tensor_shapes().items():
        damaged = bytearray(whole)
        damaged[start + 1] ^= 0x10
        (toy / DATA).write_bytes(damaged)
        with pytest.raises(UserError, match=rf"the tensor {name} is damaged"):
            dict(bundle.Tensors(toy / "model.ckpt", TOY))
        start += 4 * int(np.prod(shape))
    assert start == len(whole) == 57420


@pytest.mark.parametrize(
    ("length", "tensor"),
    [
        (0, "model/h0/attn/c_attn/b"),  # [45]: bytes 0 to 180
        (179, "model/h0/attn/c_attn/b"),
        (180, "model/h0/attn/c_attn/w"),
        (57419, "model/wte"),
    ],
)
def test_cut_off_data_are_found_before_a_tensor_is_loaded(toy, length, tensor):
    os.truncate(toy / DATA, length)
    with pytest.raises(
        UserError, match=rf"{DATA} is cut off after {length:,} of .*tensor {tensor}\."
    ):
        bundle.check_against(toy / "model.ckpt", TOY)


def test_a_damaged_or_cut_index_is_refused_or_makes_no_difference(toy):
    seed = 20190214
    print("seed", seed)
    random = np.random.default_rng(seed)
    expected = dict(bundle.Tensors(toy / "model.ckpt", TOY))
    whole = (toy / INDEX).read_bytes()
    refused = 0
    cut = [whole[:length] for length in range(0, len(whole), 13)]
    for place in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[place] ^= int(random.integers(1, 256))
        cut.append(bytes(flipped))
    for content in cut:
        (toy / INDEX).write_bytes(content)
        try:
            found = dict(bundle.Tensors(toy / "model.ckpt", TOY))
        except UserError:
            refused += 1
        else:
            assert_same(found, expected)
    assert refused > 0.95 * len(cut)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["model/h10/mlp/c_fc/w", "model/ln_f/g", "model/wte"])
def test_weights_that_are_not_finite_are_named_by_their_tensor(tmp_path, name, value):
    tensors = random_tensors(SMALL, 20)
    tensors[name].reshape(-1)[-1] = value
    bundle.write_bundle(tmp_path / "model-3", tensors)
    bundle.check_against(tmp_path / "model-3", SMALL)  # no tensor is loaded
    with pytest.raises(UserError, match=rf"model-3: tensor {name} contains NaN or infinite"):
        dict(bundle.Tensors(tmp_path / "model-3", SMALL))


def test_large_finite_weights_are_read(tmp_path):
    tensors = random_tensors(SMALL, 21)
    tensors["model/wte"][:] = 3e38  # whose sum and squares overflow
    bundle.write_bundle(tmp_path / "model-3", tensors)
    assert_same(dict(bundle.Tensors(tmp_path / "model-3", SMALL)), tensors)


def test_a_page_saved_as_an_index_is_refused(toy):
    (toy / INDEX).write_text("<?xml version='1.0'?><Error><Code>NoSuchBucket</Code></Error>")
    with pytest.raises(UserError, match=rf"{INDEX}: not a TensorFlow checkpoint index"):
        bundle.check_index(toy / "model.ckpt", TOY)


@pytest.mark.parametrize("name", [INDEX, DATA])
def test_a_missing_file_is_named(toy, name):
    (toy / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        bundle.Tensors(toy / "model.ckpt", TOY)


def test_another_size_is_named_by_its_hparams(shared_data, toy):
    prefix = shared_data / "openai-117M-index" / "model.ckpt"
    with pytest.raises(UserError) as raised:
        bundle.check_against(prefix, HParams(n_embd=1024, n_head=16, n_layer=24))
    assert str(raised.value).startswith(
        f"{prefix}: 124M checkpoint with n_layer 12, n_embd 768, "
        f"but {prefix.parent / 'hparams.json'} says n_layer 24, n_embd 1024."
    )
    with pytest.raises(UserError) as raised:
        bundle.check_against(toy / "model.ckpt", HParams(), toy / "other.json")
    assert str(raised.value).startswith(
        f"{toy / 'model.ckpt'}: checkpoint with n_layer 3, n_embd 15, n_vocab 356, n_ctx 20, but "
        f"{toy / 'other.json'} says n_layer 12, n_embd 768, n_vocab 50257, n_ctx 1024."
    )


@pytest.mark.parametrize(
    ("changed", "found", "expected"),
    [
        ({"n_vocab": 357}, "n_vocab 356", "n_vocab 357"),
        ({"n_ctx": 21}, "n_ctx 20", "n_ctx 21"),
        ({"n_layer": 1}, "n_layer 3", "n_layer 1"),
        ({"n_layer": 2**31 - 1}, "n_layer 3", "n_layer 2147483647"),
        ({"n_embd": 2**31 - 1}, "n_embd 15", "n_embd 2147483647"),
    ],
)
def test_only_the_sizes_that_differ_are_named_whatever_hparams_claim(toy, changed, found, expected):
    sizes = {"n_vocab": 356, "n_ctx": 20, "n_embd": 15, "n_head": 5, "n_layer": 3} | changed
    with pytest.raises(UserError) as raised:
        bundle.Tensors(toy / "model.ckpt", HParams(**sizes))
    assert f"checkpoint with {found}, but " in str(raised.value)
    assert f" says {expected}." in str(raised.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model/wte": None}, "missing tensor model/wte;"),
        ({"model/h3/ln_1/g": None}, "missing tensor model/h3/ln_1/g;"),
        ({"model/wpe": np.zeros(3, np.float32)}, r"model/wpe has shape \[3\]"),
        (
            {"model/h1/mlp/c_fc/w": np.zeros((4, 16), np.float32)},
            r"model/h1/mlp/c_fc/w has shape \[4, 16\]; expected \[1, 4, 16\] ",
        ),
        ({"model/ln_f/b": np.zeros(4)}, "model/ln_f/b is float64; expected float32"),
        ({"model/lm_head/w": np.zeros((4, 13), np.float32)}, "model/lm_head/w, which GPT-2 does"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, change, sentence):
    tensors = random_tensors(SMALL, 4) | change
    tf1_save(tmp_path / "m", {name: array for name, array in tensors.items() if array is not None})
    with pytest.raises(UserError, match=sentence):
        bundle.check_index(tmp_path / "m", SMALL)


def test_a_layer_left_out_in_the_middle_is_named(tmp_path):
    tensors = {
        name.replace("/h10/", "/h11/"): array for name, array in random_tensors(SMALL, 5).items()
    }
    tf1_save(tmp_path / "m", tensors)
    with pytest.raises(UserError, match=r"missing tensor model/h10/attn/c_attn/b"):
        bundle.check_index(tmp_path / "m", SMALL)


def test_a_tensor_in_several_slices_is_refused(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, shape in SMALL.tensor_shapes().items():
            cut = tf.compat.v1.fixed_size_partitioner(2) if name == "model/wpe" else None
            tf.compat.v1.get_variable(
                name, shape, initializer=tf.compat.v1.zeros_initializer(), partitioner=cut
            )
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "m"), write_meta_graph=False)
    with pytest.raises(UserError, match="model/wpe is stored in several slices"):
        bundle.check_index(tmp_path / "m", SMALL)


def test_a_checkpoint_of_objects_is_refused(tmp_path):
    module = tf.Module()
    module.wte = tf.Variable(tf.zeros([13, 4]))
    prefix = tf.train.Checkpoint(module).write(str(tmp_path / "objects"))
    assert prefix == str(tmp_path / "objects")
    with pytest.raises(
        UserError, match=r"objects: not an OpenAI-format GPT-2 checkpoint .*model/wte"
    ):
        bundle.check_index(tmp_path / "objects", SMALL)


@pytest.mark.parametrize("character", ["[", "{", *("" if os.name == "nt" else "\\*?")])
def test_a_path_that_looks_like_a_glob_pattern_is_a_path(tmp_path, character):
    tensors = random_tensors(SMALL, 6)
    folder = tmp_path / f"my {character}run]"
    folder.mkdir()
    bundle.write_bundle(folder / "model", tensors)
    assert_same(dict(bundle.Tensors(folder / "model", SMALL)), tensors)


# --- writing ---


@pytest.mark.parametrize("folder", ["plain", "Grüße, ein Ordner"])
def test_what_is_written_comes_back(tmp_path, folder):
    tensors = random_tensors(SMALL, 7)
    prefix = tmp_path / folder / "model-12"
    prefix.parent.mkdir()
    variables = {name: tf.Variable(array) for name, array in reversed(tensors.items())}
    bundle.write_bundle(prefix, variables)
    assert_same(dict(bundle.Tensors(prefix, SMALL)), tensors)


def test_a_checkpoint_holds_the_tensors_in_the_order_of_the_names_and_nothing_else(tmp_path):
    tensors = random_tensors(SMALL, 8)
    bundle.write_bundle(tmp_path / "model-12", dict(reversed(tensors.items())))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model-12.data-00000-of-00001",
        "model-12.index",
        "model-12.meta",
    ]
    reader = tf.train.load_checkpoint(str(tmp_path / "model-12"))
    shapes = reader.get_variable_to_shape_map()
    assert len(shapes) == 4 + 12 * 11
    assert {name: tuple(shape) for name, shape in shapes.items()} == SMALL.tensor_shapes()
    assert set(reader.get_variable_to_dtype_map().values()) == {tf.float32}
    in_file = (tmp_path / "model-12.data-00000-of-00001").read_bytes()
    assert in_file == b"".join(tensors[name].astype("<f4").tobytes() for name in sorted(tensors))


def test_the_same_tensors_make_the_index_that_tensorflow_1_made(toy, tmp_path):
    prefix = tmp_path / "model.ckpt"
    bundle.write_bundle(prefix, dict(bundle.Tensors(toy / "model.ckpt", TOY)))
    assert (tmp_path / INDEX).read_bytes() == (toy / INDEX).read_bytes()
    assert (tmp_path / DATA).read_bytes() == (toy / DATA).read_bytes()


def test_a_tf1_saver_restores_what_is_written(tmp_path):
    tensors = random_tensors(SMALL, 9)
    bundle.write_bundle(tmp_path / "model-3", tensors)
    zeros = {name: np.zeros_like(array) for name, array in tensors.items()}
    with tf1_variables(zeros) as (session, variables):
        tf.compat.v1.train.Saver().restore(session, str(tmp_path / "model-3"))
        assert_same(session.run(variables), tensors)


def test_import_meta_graph_restores_what_is_written(tmp_path):
    for seed, name in ((10, "model-1"), (11, "model-2")):  # the second from the stored graph
        tensors = random_tensors(SMALL, seed)
        prefix = str(tmp_path / name)
        bundle.write_bundle(tmp_path / name, tensors)
        with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
            saver = tf.compat.v1.train.import_meta_graph(prefix + ".meta")
            saver.restore(session, prefix)
            restored = {
                name: session.run(graph.get_tensor_by_name(f"{name}:0")) for name in tensors
            }
            assert_same(restored, tensors)
            trainable = tf.compat.v1.trainable_variables()
            assert sorted(variable.op.name for variable in trainable) == sorted(tensors)
    assert tf.executing_eagerly()


def test_rewriting_replaces_all_of_a_checkpoint(tmp_path):
    bundle.write_bundle(tmp_path / "model", random_tensors(HParams(5, 3, 4, 2, 1), 12))
    stale = tmp_path / "model.data-00000-of-00002"
    stale.write_bytes(b"of an older program")
    tensors = random_tensors(SMALL, 13)
    bundle.write_bundle(tmp_path / "model", tensors)
    assert_same(dict(bundle.Tensors(tmp_path / "model", SMALL)), tensors)
    assert not stale.exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_unwritable_places_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for folder in ("file", "nowhere/at/all"):
        with pytest.raises(UserError, match=r"model-1 cannot be written: .*Check the folder"):
            bundle.write_bundle(tmp_path / folder / "model-1", random_tensors(SMALL, 14))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@contextlib.contextmanager
def largest_file(size: int):
    """Within, the system refuses to let any file of this process grow beyond `size` bytes."""
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_cuts_short_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    old, new = random_tensors(SMALL, 15), random_tensors(SMALL, 16)
    prefix = tmp_path / "model"
    bundle.write_bundle(prefix, old)
    sizes = {path.suffix[:5]: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes[".inde"] < sizes[".data"] < sizes[".meta"]
    for size in (0, sizes[".inde"] - 1, sizes[".data"] - 1, sizes[".meta"] - 1):
        with largest_file(size), pytest.raises(UserError, match=r"model cannot be written: File"):
            bundle.write_bundle(prefix, new)
        assert len(list(tmp_path.iterdir())) == 3
        assert_same(dict(bundle.Tensors(prefix, SMALL)), old)
    bundle.write_bundle(prefix, new)
    assert_same(dict(bundle.Tensors(prefix, SMALL)), new)


def test_a_disk_found_full_on_flushing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    old = random_tensors(SMALL, 18)
    bundle.write_bundle(tmp_path / "model", old)

    def refuse(descriptor):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(UserError, match=r"model cannot be written: Disk quota exceeded"):
            bundle.write_bundle(tmp_path / "model", random_tensors(SMALL, 19))
    assert len(list(tmp_path.iterdir())) == 3
    assert_same(dict(bundle.Tensors(tmp_path / "model", SMALL)), old)


def test_staged_files_are_known_as_leftovers_by_their_name(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with bundle.staged(folder / "model-1", random_tensors(SMALL, 17)):
        killed = copy_folder(folder, tmp_path / "killed")
    assert not list(folder.iterdir())
    assert len(list(killed.iterdir())) == 3
    files.remove_leftovers(killed)
    assert not list(killed.iterdir())


@pytest.mark.parametrize("layers", [1, 13, 60])
def test_a_streamed_checkpoint_is_the_same_as_tensorflows_byte_for_byte(
    tmp_path: Path, layers: int
) -> None:
    hparams = HParams(n_vocab=300, n_ctx=8, n_embd=8, n_head=2, n_layer=layers)
    shapes = hparams.tensor_shapes()
    tensors = {name: np.random.default_rng(7).normal(size=shape) for name, shape in shapes.items()}
    bundle.write_bundle(tmp_path / "tensorflow", tensors)
    bundle.write_streamed(tmp_path / "streamed", shapes, tensors.__getitem__)
    bundle.write_meta(tmp_path / "streamed", shapes)
    for ending in (bundle.INDEX, bundle.DATA, bundle.META):
        one, other = (tmp_path / (name + ending) for name in ("tensorflow", "streamed"))
        assert one.read_bytes() == other.read_bytes()


def test_tensors_are_read_one_by_one(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = bundle._load
    monkeypatch.setattr(bundle, "_load", lambda *words: read.append(words[2]) or original(*words))
    tensors = bundle.Tensors(toy / "model.ckpt", TOY)
    assert list(tensors) == list(TOY.tensor_shapes()) and len(tensors) == len(read) + len(tensors)
    assert tensors["model/wpe"] is tensors["model/wpe"] and read == ["model/wpe"]
    with pytest.raises(KeyError):
        tensors["model/wpe/adam"]
