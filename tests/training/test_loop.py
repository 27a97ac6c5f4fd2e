"""What the loop does when, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.checkpoint import bundle
from gpt2.checkpoint.run import RunFolder
from gpt2.data.sampler import Sampler
from gpt2.errors import UserError
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer, train_vocabulary
from gpt2.training import loop
from gpt2.training.settings import LoopSettings, TrainerSettings
from gpt2.training.trainer import Trainer

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 20


class Training:
    """A small training in a folder of its own."""

    def __init__(self, folder: Path, **trainer_settings: object):
        vocabulary, merges = train_vocabulary([TEXT], 300)
        self.tokenizer = Tokenizer(vocabulary, merges)
        self.hparams = HParams(len(vocabulary), n_ctx=16, n_embd=8, n_head=2, n_layer=1)
        self.run = RunFolder(folder / "run")
        self.samples = folder / "samples"
        self.trainer = Trainer(
            model.fresh_weights(self.hparams, seed=0),
            self.hparams,
            TrainerSettings(**trainer_settings),
            seed=0,
        )
        tokens = np.array(self.tokenizer.encode(TEXT), np.uint16)
        self.sampler = Sampler([tokens], self.hparams.n_ctx, seed=0)

    def events(self, done: int = 0, stop=lambda: False, **settings: object) -> list[loop.Event]:
        return list(
            loop.train(
                self.trainer,
                self.sampler,
                self.sampler,
                self.tokenizer,
                self.run,
                self.samples,
                LoopSettings(sample_length=4, **settings),
                seed=0,
                done=done,
                stop=stop,
            )
        )


def names(events: list[loop.Event]) -> list[str]:
    return [
        f"{type(event).__name__} {event.step}" if hasattr(event, "step") else type(event).__name__
        for event in events
    ]


def test_things_happen_in_their_steps_and_the_end_is_saved(tmp_path: Path) -> None:
    training = Training(tmp_path)
    events = training.events(
        max_steps=5, save_every=2, sample_every=3, val_every=4, val_batch_count=2
    )
    assert names(events) == [
        "Validating",
        "Validated 0",
        "Step 1",
        "Step 2",
        "Saving",
        "Step 3",
        "Generating",
        "Sampled",
        "Step 4",
        "Saving",
        "Validating",
        "Validated 4",
        "Step 5",
        "Saving",
        "Finished 5",
    ]
    assert [event.prefix.name for event in events if isinstance(event, loop.Saving)] == [
        "model-2",
        "model-4",
        "model-5",
    ]
    assert training.run.latest() == (training.run.path / "model-5", 5)
    saved = dict(bundle.read_tensors(training.run.prefix(5), training.hparams))
    for name, variable in training.trainer.weights.items():
        np.testing.assert_array_equal(saved[name], variable.numpy())


def test_steps_are_counted_on_and_a_run_that_is_done_does_nothing(tmp_path: Path) -> None:
    training = Training(tmp_path)
    assert names(training.events(done=7, max_steps=8)) == ["Step 8", "Saving", "Finished 8"]
    assert names(training.events(done=8, max_steps=8)) == ["Finished 8"]


def test_asked_to_stop_it_saves_once_and_ends(tmp_path: Path) -> None:
    training = Training(tmp_path)
    answers = iter([False, False, False, True])  # before step 1, after steps 1 and 2
    events = training.events(stop=lambda: next(answers, True))
    assert names(events) == ["Step 1", "Step 2", "Step 3", "Interrupted", "Saving"]
    assert training.run.last_step == 3


def test_asked_to_stop_while_sampling_it_gives_the_samples_up(tmp_path: Path) -> None:
    training = Training(tmp_path)
    asked = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 3  # before the step, before sampling, after one token

    events = training.events(stop=stop, sample_every=1)
    assert names(events) == ["Step 1", "Generating", "Interrupted", "Saving"]
    assert not training.samples.exists()


def test_the_average_is_weighted_as_in_2019(tmp_path: Path) -> None:
    events = Training(tmp_path).events(max_steps=3)
    first, second, third = [event for event in events if isinstance(event, loop.Step)]
    assert first.average == pytest.approx(first.loss)
    assert third.average == pytest.approx(
        (0.99**2 * first.loss + 0.99 * second.loss + third.loss) / (0.99**2 + 0.99 + 1)
    )


def test_samples_have_banners_and_one_prompt_token_from_the_data(tmp_path: Path) -> None:
    training = Training(tmp_path)
    events = training.events(
        max_steps=2, sample_every=2, sample_num=3, batch_size=2, sampling=SamplingSettings()
    )
    sampled = next(event for event in events if isinstance(event, loop.Sampled))
    assert sampled.path == training.samples / "samples-2"
    assert sampled.path.read_text(encoding="utf-8") == sampled.text
    banners = [line for line in sampled.text.split("\n") if line.startswith("======== SAMPLE")]
    assert banners == [f"======== SAMPLE {number} ========" for number in (1, 2, 3)]
    prompt = training.tokenizer.decode([training.sampler.token(2)])
    assert sampled.text.startswith(f"======== SAMPLE 1 ========\n{prompt}")


def test_same_seed_same_training_whatever_came_before(tmp_path: Path) -> None:
    whole = Training(tmp_path / "whole", optimizer="sgd")
    halves = Training(tmp_path / "halves", optimizer="sgd")
    whole.events(max_steps=6)
    halves.events(max_steps=3)
    halves.events(done=3, max_steps=6)
    for name, variable in whole.trainer.weights.items():
        np.testing.assert_array_equal(variable.numpy(), halves.trainer.weights[name].numpy())


def test_a_loss_that_is_no_number_ends_it_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.events(max_steps=2)
    training.trainer.weights["model/ln_f/g"].assign(np.full(8, np.nan, np.float32))
    with pytest.raises(UserError, match=r"loss of step 3 is nan.*of step 2, is kept"):
        training.events(done=2)
    assert training.run.last_step == 2


def test_curves_are_readable_by_tensorflow(tmp_path: Path) -> None:
    training = Training(tmp_path, learning_rate=0.5)
    events = training.events(max_steps=2, val_every=2, val_batch_count=1)
    (file,) = training.run.path.glob("events.out.tfevents.*")
    values = [
        (event.step, value.tag, value.simple_value)
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    losses = [
        (event.step, "loss" if isinstance(event, loop.Step) else "val_loss", event.loss)
        for event in events
        if isinstance(event, loop.Step | loop.Validated)
    ]
    found = [value for value in values if value[1] != "learning_rate"]
    assert [value[:2] for value in found] == [loss[:2] for loss in losses]
    np.testing.assert_allclose([v[2] for v in found], [v[2] for v in losses], rtol=1e-6)
    assert {value for value in values if value[1] == "learning_rate"} == {
        (1, "learning_rate", 0.5),
        (2, "learning_rate", 0.5),
    }


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"save_every": 0}, {"max_steps": 0}, {"val_every": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        LoopSettings(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"optimizer": "adamant"}, {"noise": 1.5}, {"learning_rate": 0.0}]
)
def test_trainer_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        TrainerSettings(**wrong)


def test_samples_that_the_vocabulary_cannot_give_are_refused_before_training(
    tmp_path: Path,
) -> None:
    training = Training(tmp_path)
    with pytest.raises(UserError, match="top_k is 301"):
        LoopSettings(sampling=SamplingSettings(top_k=301)).check_model(training.hparams)
