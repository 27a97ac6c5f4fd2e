"""Checkpoints as other programs of 2019 and 2020 wrote them, saved by TensorFlow itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.interop.tf1 import open_tf1
from gpt2.tokenizer import Tokenizer

SMALL = HParams(n_vocab=5, n_ctx=4, n_embd=64, n_head=1, n_layer=2)
Tensors = dict[str, np.ndarray | tf.Tensor]


def weights() -> dict[str, np.ndarray]:
    """Weights that bfloat16 and float16 hold exactly."""
    random = np.random.default_rng(3)
    return {
        name: (random.integers(-64, 65, shape) / 64).astype(np.float32)
        for name, shape in SMALL.tensor_shapes().items()
    }


def save(folder: Path, tensors: Mapping[str, object], name: str = "model-7") -> Path:
    """Save a checkpoint and what nshepperd's program writes beside it."""
    folder.mkdir(exist_ok=True)
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(folder / name),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.convert_to_tensor(tensors[each]) for each in names],
    )
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    return folder


def openai(tensors: Tensors) -> Tensors:
    return tensors


def connorjl(tensors: Tensors) -> Tensors:
    """In bfloat16, with the step and the slots of Adam with weight decay."""
    found: Tensors = {name: tf.cast(value, tf.bfloat16) for name, value in tensors.items()}
    for name, value in tensors.items():
        found |= {f"{name}/adam_m": value, f"{name}/adam_v": value}
    return found | {"global_step": np.int64(7)}


def adafactor(tensors: Tensors) -> Tensors:
    """Factored second moments, whose shapes are not the weights'."""
    slots = {f"{name}/vr": np.ones(3, np.float32) for name in tensors}
    return tensors | slots | {"global_step": np.int64(7)}


def tf1_adam(tensors: Tensors) -> Tensors:
    slots = {f"{name}/Adam{part}": v for name, v in tensors.items() for part in ("", "_1")}
    return tensors | slots | {"beta1_power": np.float32(0.9), "beta2_power": np.float32(0.99)}


def tpu(tensors: Tensors) -> Tensors:
    return {name: tf.cast(value, tf.float16) for name, value in tensors.items()}


def without_scope(tensors: Tensors) -> Tensors:
    return {name.removeprefix("model/"): value for name, value in tensors.items()}


def another_scope(tensors: Tensors) -> Tensors:
    return {f"tower/gpt/{name}": value for name, value in without_scope(tensors).items()}


def two_dimensions(tensors: Tensors) -> Tensors:
    return {name: v[0] if np.ndim(v) == 3 else v for name, v in tensors.items()}


FAMILIES = {
    openai: 0,
    connorjl: 2 * 28 + 1,
    adafactor: 28 + 1,
    tf1_adam: 2 * 28 + 2,
    tpu: 0,
    without_scope: 0,
    another_scope: 0,
    two_dimensions: 0,
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_every_family_gives_the_same_weights(
    tmp_path: Path, family: Callable[[Tensors], Tensors]
) -> None:
    expected = weights()
    found = open_tf1(save(tmp_path / "run", family(dict(expected))))
    assert found.hparams == SMALL
    assert len(found.left_out) == FAMILIES[family]
    for name, values in expected.items():
        read = found.read(name)
        assert (read.dtype, read.shape) == (np.float32, values.shape)
        assert np.array_equal(read, values)


def test_a_checkpoint_is_given_by_its_folder_prefix_or_index(tmp_path: Path) -> None:
    run = save(tmp_path / "run", weights())
    for path in (run, run / "model-7", run / "model-7.index"):
        assert open_tf1(path).prefix == run / "model-7"


def test_heads_come_from_the_file_the_flag_or_the_usual_head_size(tmp_path: Path) -> None:
    run = save(tmp_path / "run", weights())
    assumed = open_tf1(run)
    assert assumed.hparams.n_head == 1 and "n_head 1 assumed" in assumed.heads
    assert open_tf1(run, n_head=4).hparams.n_head == 4
    (run / "hparams.json").write_text(json.dumps({**vars(SMALL), "n_head": 2}))
    from_file = open_tf1(run)
    assert from_file.hparams.n_head == 2 and from_file.heads == ""
    assert open_tf1(run, n_head=4).hparams.n_head == 4


def test_the_checkpoint_of_another_program_of_2019_is_read(shared_data: Path) -> None:
    """Saved by TensorFlow 1; TensorFlow's own reader is the reference."""
    found = open_tf1(shared_data / "toy-checkpoint")
    reader = tf.train.load_checkpoint(str(shared_data / "toy-checkpoint" / "model.ckpt"))
    assert found.left_out == []
    for name in found.hparams.tensor_shapes():
        assert np.array_equal(found.read(name), reader.get_tensor(name))


def test_the_vocabulary_may_be_smaller_than_the_embedding_but_not_larger(tmp_path: Path) -> None:
    found = open_tf1(save(tmp_path / "run", weights()))
    small = Tokenizer({"a": 0, "b": 1}, [])
    assert found.with_vocabulary(small).vocabulary == {"a": 0, "b": 1}
    with pytest.raises(UserError, match=r"'b' with id 5.*5 embeddings"):
        found.with_vocabulary(Tokenizer({"a": 0, "b": 5}, []))


def _without(name: str) -> Tensors:
    return {key: value for key, value in weights().items() if key != name}


ODD = HParams(n_vocab=5, n_ctx=4, n_embd=6, n_head=1, n_layer=1)
REFUSED: dict[str, tuple[Mapping[str, object], str]] = {
    "bert": ({"bert/embeddings/word_embeddings": np.ones((3, 2))}, "a BERT checkpoint"),
    "grover": ({"newslm/embeddings/word_embed": np.ones((3, 2))}, "Grover, as gpt2-ml trains"),
    "tf2": (
        {"m/.ATTRIBUTES/VARIABLE_VALUE": np.ones(2), "_CHECKPOINTABLE_OBJECT_GRAPH": b"x"},
        "object-based checkpoint of TensorFlow 2",
    ),
    "something": ({"dense/kernel": np.ones((3, 2))}, r"not a GPT-2 .*dense/kernel"),
    "a missing tensor": (_without("model/h1/ln_2/g"), "missing tensor model/h1/ln_2/g"),
    "another shape": (
        weights() | {"model/h0/mlp/c_fc/w": np.ones((1, 64, 128), np.float32)},
        r"model/h0/mlp/c_fc/w has shape \[1, 64, 128\]; expected \[1, 64, 256\]",
    ),
    "embeddings of two sizes": (
        weights() | {"model/wpe": np.ones((4, 32), np.float32)},
        r"model/wte has shape \[5, 64\] and model/wpe \[4, 32\]",
    ),
    "one tensor more": (
        weights() | {"model/h0/attn/rel_pos": np.ones(3, np.float32)},
        "unexpected tensor model/h0/attn/rel_pos",
    ),
    "integers": (
        weights() | {"model/h0/ln_1/b": np.ones(64, np.int32)},
        "model/h0/ln_1/b is int32",
    ),
    "heads that cannot be assumed": (
        {name: np.ones(shape, np.float32) for name, shape in ODD.tensor_shapes().items()},
        r"n_embd \(6\) is not a multiple of 64.*n_head",
    ),
    "two models": (
        {f"{scope}{each}": np.ones((3, 64)) for scope in "ab" for each in ("/wte", "/wpe")},
        "several models .a/, b/",
    ),
    "infinite": (
        weights() | {"model/ln_f/b": np.full(64, np.nan, np.float32)},
        "model/ln_f/b contains NaN",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_kind_of_checkpoint_is_refused_by_name(tmp_path: Path, name: str) -> None:
    tensors, sentence = REFUSED[name]
    run = save(tmp_path / "run", tensors)
    with pytest.raises(UserError, match=sentence) as error:
        found = open_tf1(run)
        for tensor in found.hparams.tensor_shapes():
            found.read(tensor)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", ["n_vocab", "n_ctx", "n_embd", "n_layer"])
def test_sizes_that_disagree_with_hparams_json_are_named(tmp_path: Path, size: str) -> None:
    run = save(tmp_path / "run", weights())
    (run / "hparams.json").write_text(json.dumps({**vars(SMALL), size: 3}))
    found = getattr(SMALL, size)
    with pytest.raises(UserError, match=rf"{found}.* but {re.escape(str(run))}.* says 3"):
        open_tf1(run)


def test_a_damaged_tensor_is_found_by_its_checksum(tmp_path: Path) -> None:
    run = save(tmp_path / "run", connorjl(dict(weights())))
    data = run / "model-7.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[-2600] ^= 1  # in model/wte, which two slots of 1280 bytes follow
    data.write_bytes(content)
    with pytest.raises(UserError, match=r"model/wte is damaged"):
        open_tf1(run).read("model/wte")


def test_a_partitioned_variable_is_refused(tmp_path: Path) -> None:
    tensors = _without("model/wte")
    names = [*tensors, "model/wte"]
    prefix = tmp_path / "model-7"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(tensors) + ["5 64 0,3:0,64"],
        tensors=[*map(tf.convert_to_tensor, tensors.values()), tf.ones([3, 64])],
    )
    with pytest.raises(UserError, match=r"model/wte is stored in several slices"):
        open_tf1(prefix).read("model/wte")
