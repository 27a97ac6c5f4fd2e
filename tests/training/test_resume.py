"""Where a training starts: which checkpoint, which state, and which notices."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from gpt2 import model
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.checkpoint.run import RunFolder
from gpt2.checkpoint.state import ResumeState
from gpt2.data.samplers import Batch
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.training import run_log
from gpt2.training.best import BestCheckpoint, BestValidation
from gpt2.training.progress import TrainingProgress
from gpt2.training.resume import (
    NEW_OPTIMIZER,
    ResumedTraining,
    ResumePoint,
    find_resume_point,
)
from gpt2.training.settings import TrainerSettings

TINY = HParams(n_vocab=11, n_ctx=6, n_embd=8, n_head=2, n_layer=1)
SETTINGS = TrainerSettings(learning_rate=0.01)
BATCH = Batch.of_rows(np.random.default_rng(0).integers(11, size=(2, 6), dtype=np.int32))


class Place:
    """A workspace with a model and a run."""

    def __init__(self, folder: Path):
        self.models = folder / "models"
        self.models.mkdir()
        weights = model.initial_weights(TINY, seed=0)
        write_model_folder(folder / "models" / "tiny", TINY, {"a": 0}, [], weights)
        self.run = RunFolder(folder / "checkpoint" / "run1")

    def find(self, model_name: str | None, where: str, run: RunFolder | None = None) -> ResumePoint:
        return find_resume_point(run or self.run, model_name, str(self.models), where)

    def resume(
        self, settings: TrainerSettings = SETTINGS, where: str = "latest", seed: int = 3
    ) -> ResumedTraining:
        name = None if self.run.path.is_dir() and where == "latest" else "tiny"
        return self.find(name, where).resume(settings, seed)

    def train(self, steps: int, settings: TrainerSettings = SETTINGS) -> ResumedTraining:
        """Resume the run and save each step."""
        resumed = self.resume(settings)
        self.run.adopt(resumed.point.model)
        for step in range(resumed.point.done + 1, resumed.point.done + steps + 1):
            resumed.progress.add_loss(resumed.trainer.step(step, [BATCH]).loss)
            state = ResumeState(resumed.progress.facts(), resumed.trainer.state())
            self.run.save(step, resumed.trainer.weights, TINY, state)
        return resumed


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adafactor", "lr_schedule": "cosine", "schedule_steps": 8},
        {"optimizer": "adam", "lora_rank": 2, "dropout": 0.2},
        {"optimizer": "sgd", "noise": 0.3, "train_layers": "0"},
    ],
    ids=str,
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, settings: dict) -> None:
    settings = TrainerSettings(learning_rate=0.01, **settings)
    (tmp_path / "whole").mkdir()
    (tmp_path / "pieces").mkdir()
    whole = Place(tmp_path / "whole")
    whole.train(5, settings)
    pieces = Place(tmp_path / "pieces")
    for steps in (2, 1, 2):
        resumed = pieces.train(steps, settings)
        assert resumed.point.notes == ()
    for name in ("model-5", "state-5"):
        expected, found = (bundle.read_all(place.run.path / name) for place in (whole, pieces))
        assert expected.keys() == found.keys()
        for tensor, array in expected.items():
            np.testing.assert_array_equal(found[tensor], array, err_msg=tensor)
    assert whole.resume().progress == pieces.resume().progress


def test_a_run_of_2019_resumes_with_a_new_optimizer_state(
    place: Place,
) -> None:
    place.train(2)
    for path in place.run.path.glob("state-*"):
        path.unlink()
    resumed = place.resume()
    assert resumed.point.done == 2
    assert resumed.progress == TrainingProgress(3)
    (note,) = resumed.point.notes
    assert re.search(r"model-2\b.*no optimizer state", note)
    saved = ModelFolder(place.run.path).weights()
    for name, tensor in resumed.trainer.weights.items():
        np.testing.assert_array_equal(np.asarray(tensor), saved[name])


def test_a_state_of_other_weights_is_reported_and_not_used(place: Place) -> None:
    place.train(1)
    bundle.write_bundle(place.run.prefix(1), model.initial_weights(TINY, seed=9))
    resumed = place.resume()
    (note,) = resumed.point.notes
    assert "state-1.json" in note
    assert note.endswith(NEW_OPTIMIZER)
    assert resumed.point.done == 1


@pytest.mark.parametrize("damage", ["tensors", "json", "progress", "optimizer"])
def test_an_unusable_state_is_reported_and_the_weights_are_used(place: Place, damage: str) -> None:
    place.train(1)
    settings = SETTINGS
    if damage == "tensors":
        (place.run.path / "state-1.data-00000-of-00001").write_bytes(b"?")
    elif damage == "json":
        (place.run.path / "state-1.json").write_text("?")
    elif damage == "progress":
        path = place.run.path / "state-1.json"
        path.write_text(path.read_text().replace('"misses": 0', '"misses": "many"'))
    else:
        settings = TrainerSettings(optimizer="adafactor")
    resumed = place.resume(settings)
    (note,) = resumed.point.notes
    assert note.endswith(f" {NEW_OPTIMIZER}")
    assert resumed.point.done == 1


@pytest.mark.parametrize("damage", ["no data", "no index", "cut", "flipped", "index"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(
    place: Place, damage: str
) -> None:
    place.train(3)
    data = place.run.path / "model-3.data-00000-of-00001"
    index = place.run.path / "model-3.index"
    content = bytearray(data.read_bytes())
    if damage == "no data":
        data.unlink()
    elif damage == "no index":
        index.unlink()
    elif damage == "cut":
        data.write_bytes(content[:-100])
    elif damage == "flipped":
        content[300] ^= 1
        data.write_bytes(content)
    else:
        index.write_bytes(index.read_bytes()[:-20])
    resumed = place.resume()
    (note,) = resumed.point.notes
    assert re.search(r"model-3\b.*model-2\b", note)
    assert resumed.point.done == 2
    assert resumed.progress.seed == 3
    # The optimizer state is that of step 2, too.
    steps = resumed.trainer.state()["adam/steps"]
    assert int(steps) == 2


def test_if_all_are_damaged_the_error_names_the_newest(place: Place) -> None:
    place.train(2)
    for step in (1, 2):
        (place.run.path / f"model-{step}.data-00000-of-00001").write_bytes(b"?")
    with pytest.raises(UserError, match=r"model-2\.data-00000-of-00001 is cut off"):
        place.resume()
    for step in (1, 2):
        (place.run.path / f"model-{step}.data-00000-of-00001").unlink()
    with pytest.raises(UserError, match=r"model-2\.data-00000-of-00001 is missing"):
        place.resume()


def test_a_given_checkpoint_is_used_or_refused_but_never_replaced(place: Place) -> None:
    place.train(3)
    named = place.resume(where=str(place.run.prefix(2)))
    assert (named.point.done, named.point.notes) == (2, ())
    (place.run.path / "model-2.data-00000-of-00001").write_bytes(b"?")
    with pytest.raises(UserError, match=r"model-2\.data-00000-of-00001 is cut off"):
        place.resume(where=str(place.run.prefix(2)))


def test_the_step_count_continues_from_the_best_of_the_run_but_not_of_another(
    place: Place,
) -> None:
    trainer = place.train(2).trainer
    place.run.best.adopt(ModelFolder(place.run.path))
    place.run.best.save(2, trainer.weights, TINY)
    best = place.resume(where=str(place.run.best.path))
    assert (best.point.done, best.point.notes) == (2, ())
    other = place.find(None, str(place.run.best.path), RunFolder(place.run.path.with_name("run2")))
    assert (other.done, other.state, other.notes) == (0, None, ())


def test_a_missing_model_is_reported_if_the_run_resumes_without_it(place: Place) -> None:
    place.train(1)
    (note,) = place.find("tyni", "latest").notes
    assert "no model 'tyni'" in note and str(place.run.path) in note
    assert place.find("tiny", "latest").notes == ()
    with pytest.raises(UserError, match=r"no model 'tyni'.*tiny"):
        place.find("tyni", "fresh")


def test_fresh_starts_from_the_model_and_uses_nothing_of_the_run(place: Place) -> None:
    place.train(2)
    fresh = place.resume(where="fresh")
    assert (fresh.point.done, fresh.point.notes) == (0, ())
    assert fresh.progress == TrainingProgress(3)


def test_checkpoints_are_found_by_name(place: Place) -> None:
    trainer = place.train(2).trainer
    place.run.best.adopt(ModelFolder(place.run.path))
    place.run.best.save(2, trainer.weights, TINY)
    other = RunFolder(place.run.path.with_name("run2"))
    for name, step, checkpoint in (
        ("run1", 2, place.run.prefix(2)),
        ("run1/model-1", 1, place.run.prefix(1)),
        ("run1/best", 2, place.run.best.prefix(2)),
    ):
        own = place.find(None, name)
        assert (own.checkpoint, own.done, own.notes) == (checkpoint, step, ())
        assert place.find(None, name, other).done == 0
    assert place.find(None, "tiny").model.hparams == TINY
    for missing in ("run1/model-7", "run9"):
        with pytest.raises(UserError, match=rf"restore_from.*{Path(missing).name}"):
            place.find(None, missing)


def test_a_model_of_the_same_name_as_a_run_is_used_with_a_notice(place: Place) -> None:
    (place.run.path.parent / "tiny").mkdir(parents=True)
    point = place.find("tiny", "latest")
    assert point.checkpoint.parent == place.models / "tiny"
    (note,) = point.notes
    assert str(place.run.path.parent / "tiny") in note


def test_a_run_of_2019_resumes_with_a_model_that_has_no_checkpoint(place: Place) -> None:
    place.train(1)
    (place.run.path / "hparams.json").unlink()
    for path in (place.models / "tiny").glob("model.ckpt*"):
        path.unlink()
    (place.models / "tiny" / "checkpoint").unlink()
    point = place.find("tiny", "latest")
    assert (point.checkpoint, point.done) == (place.run.prefix(1), 1)
    with pytest.raises(UserError, match="tiny"):
        place.find("tiny", "fresh")


def test_a_checkpoint_with_nan_is_passed_over_with_a_notice(place: Place) -> None:
    trainer = place.train(2).trainer
    trainer.weights["model/ln_f/g"].assign(np.full(8, np.nan, np.float32))
    place.run.save(3, trainer.weights, TINY)
    resumed = place.resume()
    assert resumed.point.done == 2
    assert re.search(r"model-3.*NaN.*model-2\b", resumed.point.notes[-1])


def test_an_optimizer_state_with_nan_is_not_used(place: Place) -> None:
    resumed = place.train(1)
    tensors = {n: np.full_like(np.asarray(t), np.nan) for n, t in resumed.trainer.state().items()}
    tensors["adam/steps"] = np.array(1, np.int64)
    state = ResumeState(resumed.progress.facts(), tensors)
    place.run.save(2, resumed.trainer.weights, TINY, state)
    (note,) = place.resume().point.notes
    assert "NaN" in note and note.endswith(NEW_OPTIMIZER)


def test_without_a_state_the_best_loss_is_read_beside_the_best(place: Place) -> None:
    resumed = place.train(2)
    best = BestCheckpoint(place.run)
    best.save(BestValidation(2, 1.5, 99, 1.25), resumed.trainer, None)
    for path in place.run.path.glob("state-*"):
        path.unlink()
    found = place.resume()
    assert re.search(r"1\.50 at step 2.*Unknown", found.point.notes[-1])
    progress = found.progress
    assert (progress.best_step, progress.best_loss, progress.validated_on) == (2, 1.5, 99)
    assert progress.best_average == 1.25
    (place.run.best.path / "validation.json").unlink()
    found = place.resume()
    assert "unknown" in found.point.notes[-1] and "best-1" in found.point.notes[-1]
    assert found.progress.best_step is None


def test_the_lora_scale_of_the_run_stays(place: Place) -> None:
    place.train(1, TrainerSettings(lora_rank=3, lora_alpha=32))
    trainer = place.resume(TrainerSettings(lora_rank=3, lora_alpha=16)).trainer
    assert trainer.lora_alpha == 32


def test_checkpoints_after_a_step_are_kept_in_a_model_folder(place: Place) -> None:
    place.train(3)
    weights = (place.run.path / "model-3.index").read_bytes()
    earlier = place.run.keep_after(2)
    assert (earlier / "model-3.index").read_bytes() == weights
    assert ModelFolder(earlier).weights()
    assert place.run.checkpoints() == [place.run.prefix(2), place.run.prefix(1)]
    assert place.resume().point.notes == ()
    assert place.run.keep_after(2) is None
    again = place.run.keep_after(0)
    assert again.name == "earlier-2" and ModelFolder(again).weights()
    assert place.run.checkpoints() == [] and not list(place.run.path.glob("*.index"))
    assert place.find(None, f"{place.run.path.name}/earlier-1").done == 0


def test_a_missing_model_is_refused_unless_the_run_was_trained_from_it(place: Place) -> None:
    place.train(3)
    run_log.add_call(place.run.path, flags={"model_name": "117M"})
    for name in ("117M", "124M"):  # two names of one model, which the run does not need
        point = place.find(name, "latest")
        assert point.done == 3 and any(repr(name) in note for note in point.notes)
    with pytest.raises(UserError, match=r"no model 'poems'.*from '117M'.*--run_name"):
        place.find("poems", "latest")
