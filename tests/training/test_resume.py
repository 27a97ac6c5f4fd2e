"""Where a training begins: what it takes over, what it leaves, and what it says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt2 import model
from gpt2.checkpoint import bundle
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.checkpoint.run import RunFolder
from gpt2.checkpoint.state import ResumeState
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.training.progress import TrainingProgress
from gpt2.training.resume import ResumedTraining, find_resume_point
from gpt2.training.settings import TrainerSettings
from gpt2.workspace import Workspace

TINY = HParams(n_vocab=11, n_ctx=6, n_embd=8, n_head=2, n_layer=1)
SETTINGS = TrainerSettings(learning_rate=0.01)
BATCH = np.random.default_rng(0).integers(11, size=(2, 6), dtype=np.int32)


class Place:
    """A workspace with a model and a run, some steps of which are saved."""

    def __init__(self, folder: Path):
        (folder / "models").mkdir()
        self.workspace = Workspace(folder / "models")
        weights = model.initial_weights(TINY, seed=0)
        write_model_folder(folder / "models" / "tiny", TINY, {"a": 0}, [], weights)
        self.run = RunFolder(self.workspace.run_folder("run1"))

    def begin(
        self, settings: TrainerSettings = SETTINGS, where: str = "latest", seed: int = 3
    ) -> ResumedTraining:
        name = None if self.run.path.is_dir() and where == "latest" else "tiny"
        return find_resume_point(self.workspace, self.run, name, where).begin(settings, seed)

    def train(self, steps: int, settings: TrainerSettings = SETTINGS) -> ResumedTraining:
        """Go on with the run and save each step."""
        resumed = self.begin(settings)
        self.run.adopt(resumed.point.model)
        for step in range(resumed.point.done + 1, resumed.point.done + steps + 1):
            resumed.progress.add_loss(resumed.trainer.step(step, [BATCH]).loss)
            state = ResumeState(resumed.progress.facts(), resumed.trainer.state())
            self.run.save(step, resumed.trainer.weights, TINY, state)
        return resumed


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


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
def test_a_run_in_pieces_is_the_whole_run_to_the_bit(tmp_path: Path, settings: dict) -> None:
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
    assert whole.begin().progress == pieces.begin().progress


def test_a_run_of_2019_gives_weights_and_step_and_the_optimizer_starts_anew(place: Place) -> None:
    place.train(2)
    for path in place.run.path.glob("state-*"):
        path.unlink()
    resumed = place.begin()
    assert resumed.point.done == 2
    assert resumed.progress == TrainingProgress(3)
    (note,) = resumed.point.notes
    assert note.endswith("model-2 has no state beside it. The optimizer starts anew.")
    saved = ModelFolder(place.run.path).weights()
    for name, tensor in resumed.trainer.weights.items():
        np.testing.assert_array_equal(np.asarray(tensor), saved[name])


def test_a_state_of_other_weights_is_told_and_left(place: Place) -> None:
    place.train(1)
    bundle.write_bundle(place.run.prefix(1), model.initial_weights(TINY, seed=9))
    resumed = place.begin()
    (note,) = resumed.point.notes
    assert "state-1.json belongs to other weights than" in note
    assert note.endswith("The optimizer starts anew.")
    assert resumed.point.done == 1


@pytest.mark.parametrize("damage", ["tensors", "json", "progress", "optimizer"])
def test_a_state_that_cannot_be_used_is_told_and_the_weights_are_taken(
    place: Place, damage: str
) -> None:
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
    resumed = place.begin(settings)
    (note,) = resumed.point.notes
    assert note.endswith(" The optimizer starts anew.")
    assert resumed.point.done == 1


@pytest.mark.parametrize("damage", ["no data", "no index", "cut", "flipped", "index"])
def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_goes_on(
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
    resumed = place.begin()
    (note,) = resumed.point.notes
    assert "model-3" in note
    assert note.endswith("model-2 instead.")
    assert resumed.point.done == 2
    assert resumed.progress.seed == 3
    # The state of that step has come along.
    steps = resumed.trainer.state()["adam/steps"]
    assert int(steps) == 2


def test_where_all_are_damaged_the_newest_is_named(place: Place) -> None:
    place.train(2)
    for step in (1, 2):
        (place.run.path / f"model-{step}.data-00000-of-00001").write_bytes(b"?")
    with pytest.raises(UserError, match=r"model-2\.data-00000-of-00001 is cut off"):
        place.begin()
    for step in (1, 2):
        (place.run.path / f"model-{step}.data-00000-of-00001").unlink()
    with pytest.raises(UserError, match=r"model-2\.data-00000-of-00001 is missing"):
        place.begin()


def test_a_checkpoint_that_is_named_is_taken_or_refused_but_not_replaced(place: Place) -> None:
    place.train(3)
    named = place.begin(where=str(place.run.prefix(2)))
    assert (named.start.done, named.start.notes) == (2, ())
    (place.run.path / "model-2.data-00000-of-00001").write_bytes(b"?")
    with pytest.raises(UserError, match=r"model-2\.data-00000-of-00001 is cut off"):
        place.begin(where=str(place.run.prefix(2)))


def test_the_best_of_the_run_goes_on_with_its_step_and_that_of_another_with_none(
    place: Place,
) -> None:
    trainer = place.train(2).trainer
    place.run.best.adopt(ModelFolder(place.run.path))
    place.run.best.save(2, trainer.weights, TINY)
    best = place.begin(where=str(place.run.best.path))
    assert (best.start.done, best.start.notes) == (2, ())
    other = find_resume_point(
        place.workspace,
        RunFolder(place.workspace.run_folder("run2")),
        None,
        str(place.run.best.path),
    )
    assert (other.done, other.state, other.notes) == (0, None, ())


def test_a_model_that_is_not_there_is_told_where_the_run_goes_on_without_it(place: Place) -> None:
    place.train(1)
    note = "There is no model 'tyni'; the run goes on with its own."
    assert note in find_resume_point(place.workspace, place.run, "tyni", "latest").notes
    assert find_resume_point(place.workspace, place.run, "tiny", "latest").notes == ()
    with pytest.raises(UserError, match="no model 'tyni'"):
        find_resume_point(place.workspace, place.run, "tyni", "fresh")


def test_fresh_begins_with_the_model_and_nothing_of_the_run(place: Place) -> None:
    place.train(2)
    fresh = place.begin(where="fresh")
    assert (fresh.start.done, fresh.start.notes) == (0, ())
    assert fresh.progress == TrainingProgress(3)
