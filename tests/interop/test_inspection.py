"""What info and compare find."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2.checkpoint.folder import ModelFolder
from gpt2.hparams import HParams
from gpt2.interop.inspection import describe, differences, loaders
from gpt2.interop.weights import PortableModel

SMALL = HParams(n_vocab=5, n_ctx=4, n_embd=4, n_head=1, n_layer=1)


def _model(**changes: float) -> PortableModel:
    """A model of ones; a change, by name with double underscores, is of one number."""
    tensors = {name: np.ones(shape, np.float32) for name, shape in SMALL.tensor_shapes().items()}
    for name, value in changes.items():
        tensors[name.replace("__", "/")].flat[-1] = value
    return PortableModel(SMALL, {"a": 0}, [], tensors.__getitem__)


def test_each_difference_is_the_largest_of_its_tensor() -> None:
    found = differences(_model(), _model(model__wte=3.5, model__h0__ln_1__g=0.75))
    assert {each.name: each.largest for each in found if each.largest} == {
        "model/wte": 2.5,
        "model/h0/ln_1/g": 0.25,
    }
    assert len(found) == 16


def test_tensors_of_other_shapes_and_missing_ones_differ_without_end() -> None:
    larger = HParams(n_vocab=6, n_ctx=4, n_embd=4, n_head=1, n_layer=2)
    tensors = {name: np.ones(shape, np.float32) for name, shape in larger.tensor_shapes().items()}
    other = dataclasses.replace(_model(), hparams=larger, read=tensors.__getitem__)
    found = {each.name: each for each in differences(_model(), other) if each.largest}
    assert found["model/wte"].shapes == ((5, 4), (6, 4))
    assert found["model/h1/ln_1/b"].shapes == (None, (4,))
    assert len(found) == 13 and all(math.isinf(each.largest) for each in found.values())


def test_a_checkpoint_of_tensorflow_1_is_described(shared_data: Path, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    folder = tmp_path / "run1"
    shutil.copytree(shared_data / "toy-checkpoint", folder)
    for path in folder.glob("model.ckpt.*"):
        path.rename(folder / path.name.replace("model.ckpt", "model-12"))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model-12"\n')
    found = describe(ModelFolder(folder))
    assert (found["step"], found["released"], found["others"]) == (12, None, [])
    assert found["dtypes"] == ["float32"]
    assert found["bytes"] == (folder / "model-12.data-00000-of-00001").stat().st_size
    assert found["parameters"] * 4 == found["bytes"]
    reader = tf.train.load_checkpoint(str(folder / "model-12"))
    for tensor in found["tensors"]:
        values = reader.get_tensor(tensor["name"])
        assert tensor["shape"] == list(values.shape)
        assert tensor["sha256"] == hashlib.sha256(values.tobytes()).hexdigest()
    assert loaders(found)["openai/gpt-2, nshepperd/gpt-2, gpt-2-simple"] == "as it is"
    without_merges = {**found, "vocabulary": {**found["vocabulary"], "merges": 0}}
    assert loaders(without_merges)["llama.cpp, Ollama, LM Studio"].startswith("no")
