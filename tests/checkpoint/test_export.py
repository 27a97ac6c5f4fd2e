"""Export: all or nothing, and nothing but a model is ever replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2.checkpoint.export import export_model
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.data import templates
from gpt2.data.templates import SavedTemplate
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import train_vocabulary

HPARAMS = HParams(n_vocab=257, n_ctx=4, n_embd=2, n_head=1, n_layer=1)


def write_model(path: Path, value: float) -> ModelFolder:
    """Write a model whose tensors all hold a value."""
    vocabulary, merges = train_vocabulary([], 257, workers=1)
    shapes = HPARAMS.tensor_shapes().items()
    weights = {name: np.full(shape, value, np.float32) for name, shape in shapes}
    write_model_folder(path, HPARAMS, vocabulary, merges, weights)
    return ModelFolder(path)


def value_of(path: Path) -> float:
    return float(ModelFolder(path).weights()["model/wpe"][0, 0])


def test_an_export_has_the_weights_the_vocabulary_and_the_template(tmp_path: Path) -> None:
    model = write_model(tmp_path / "run", 0.5)
    templates.save(model.path, SavedTemplate("Q: {q} A: {a}", False))
    export_model(model, tmp_path / "models" / "new")
    exported = ModelFolder(tmp_path / "models" / "new")
    assert value_of(exported.path) == 0.5
    assert exported.hparams == HPARAMS
    assert exported.tokenizer().vocabulary == model.tokenizer().vocabulary
    assert templates.load(exported.path) == templates.load(model.path)


def test_a_model_is_replaced_only_if_asked_and_other_folders_never(tmp_path: Path) -> None:
    model, target = write_model(tmp_path / "run", 0.5), tmp_path / "old"
    write_model(target, 0.25)
    with pytest.raises(UserError, match=r"old already exists.*--overwrite"):
        export_model(model, target)
    assert value_of(target) == 0.25
    export_model(model, target, overwrite=True)
    assert value_of(target) == 0.5
    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "love.txt").write_text("dear")
    with pytest.raises(UserError, match="not a model"):
        export_model(model, letters, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letters", "old", "run"]
    assert (letters / "love.txt").read_text() == "dear"


@pytest.mark.parametrize("call", range(6))
def test_an_error_leaves_the_old_model_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    model, target = write_model(tmp_path / "run", 0.5), tmp_path / "old"
    write_model(target, 0.25)
    calls = iter(range(100))
    copy = shutil.copyfile

    def failing(source: Path, destination: Path) -> Path:
        if next(calls) == call:
            raise OSError(28, "No space left on device", str(destination))
        return copy(source, destination)

    monkeypatch.setattr(shutil, "copyfile", failing)
    with pytest.raises(UserError, match="No space left"):
        export_model(model, target, overwrite=True)
    assert value_of(target) == 0.25
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "run"]
