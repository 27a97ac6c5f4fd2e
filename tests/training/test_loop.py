"""What the loop does when, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.checkpoint import bundle, state
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.checkpoint.run import RunFolder
from gpt2.data.datasets import TokenStream
from gpt2.data.samplers import StreamSampler, make_validation_sampler
from gpt2.errors import UserError
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer, train_vocabulary
from gpt2.training import events, loop
from gpt2.training.loggers import TensorBoardLogger
from gpt2.training.loop import batch_in_words
from gpt2.training.progress import TrainingProgress
from gpt2.training.run_log import HISTORY, HistoryLogger
from gpt2.training.settings import LoopSettings, TrainerSettings
from gpt2.training.trainer import StepResult, Trainer

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 20


class Training:
    """A small training in a folder of its own."""

    def __init__(self, folder: Path, **trainer_settings: object):
        vocabulary, merges = train_vocabulary([TEXT], 300)
        self.tokenizer = Tokenizer(vocabulary, merges)
        self.hparams = HParams(len(vocabulary), n_ctx=16, n_embd=8, n_head=2, n_layer=1)
        weights = model.initial_weights(self.hparams, seed=0)
        write_model_folder(folder / "model", self.hparams, vocabulary, merges, weights)
        self.run = RunFolder(folder / "run")
        self.run.adopt(ModelFolder(folder / "model"))
        self.samples = folder / "samples"
        self.trainer = Trainer(
            weights,
            self.hparams,
            TrainerSettings(**trainer_settings),
            seed=0,
        )
        tokens = np.array(self.tokenizer.encode(TEXT), np.uint16)
        self.sampler = StreamSampler([tokens], self.hparams.n_ctx, seed=0)
        self.validation = make_validation_sampler(TokenStream([tokens]), self.hparams.n_ctx, seed=1)

    def train(self, done: int = 0, stop=lambda: False, **settings: object) -> list[events.Event]:
        """One call's part of the run, going on from what was saved of it."""
        progress = TrainingProgress(0)
        if done and (facts := state.read_facts(self.state(done), self.run.prefix(done))):
            progress = TrainingProgress.from_facts(facts)
        path = self.run.path
        loggers = [HistoryLogger(path / HISTORY, done, progress.validated), TensorBoardLogger(path)]
        training = loop.Loop(
            self.trainer,
            self.sampler,
            self.validation,
            self.tokenizer,
            self.run,
            self.samples,
            LoopSettings(sample_length=4, **settings),
            progress,
            done=done,
            loggers=loggers,
        )
        return list(training.train(stop))

    def state(self, step: int) -> Path:
        return self.run.state_of(self.run.prefix(step))

    def history(self) -> list[dict[str, float]]:
        lines = (self.run.path / HISTORY).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


def names(happened: list[events.Event]) -> list[str]:
    return [
        f"{type(event).__name__} {event.step}" if hasattr(event, "step") else type(event).__name__
        for event in happened
    ]


def test_things_happen_in_their_steps_and_the_end_is_saved(tmp_path: Path) -> None:
    training = Training(tmp_path)
    happened = training.train(
        max_steps=5, save_every=2, sample_every=3, val_every=4, val_batch_count=2
    )
    assert names(happened) == [
        "Validating",
        "Validated 0",
        "Step 1",
        "Step 2",
        "Saving",
        "Step 3",
        "Generating",
        "Sampled",
        "Step 4",
        "Validating",
        "Validated 4",
        "Saving",
        "Step 5",
        "Saving",
        "Finished 5",
    ]
    assert [event.prefix.name for event in happened if isinstance(event, events.Saving)] == [
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
    assert names(training.train(done=7, max_steps=8)) == ["Step 8", "Saving", "Finished 8"]
    assert names(training.train(done=8, max_steps=8)) == ["Finished 8"]


def test_asked_to_stop_it_saves_once_and_ends(tmp_path: Path) -> None:
    training = Training(tmp_path)
    answers = iter([False, False, False, True])  # before step 1, after steps 1 and 2
    happened = training.train(stop=lambda: next(answers, True))
    assert names(happened) == ["Step 1", "Step 2", "Step 3", "Interrupted", "Saving"]
    assert training.run.last_step == 3


def test_asked_to_stop_while_sampling_it_gives_the_samples_up(tmp_path: Path) -> None:
    training = Training(tmp_path)
    asked = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 3  # before the step, before sampling, after one token

    happened = training.train(stop=stop, sample_every=1)
    assert names(happened) == ["Step 1", "Generating", "Interrupted", "Saving"]
    assert not training.samples.exists()


def test_the_average_is_weighted_as_in_2019(tmp_path: Path) -> None:
    happened = Training(tmp_path).train(max_steps=3)
    first, second, third = [event for event in happened if isinstance(event, events.StepFinished)]
    assert first.average == pytest.approx(first.loss)
    assert third.average == pytest.approx(
        (0.99**2 * first.loss + 0.99 * second.loss + third.loss) / (0.99**2 + 0.99 + 1)
    )


def test_samples_have_banners_and_one_prompt_token_from_the_data(tmp_path: Path) -> None:
    training = Training(tmp_path)
    happened = training.train(
        max_steps=2, sample_every=2, sample_num=3, batch_size=2, sampling=SamplingSettings()
    )
    sampled = next(event for event in happened if isinstance(event, events.Sampled))
    assert sampled.path == training.samples / "samples-2"
    assert sampled.path.read_text(encoding="utf-8") == sampled.text
    banners = [line for line in sampled.text.split("\n") if line.startswith("======== SAMPLE")]
    assert banners == [f"======== SAMPLE {number} ========" for number in (1, 2, 3)]
    prompt = training.tokenizer.decode([training.sampler.token(2)])
    assert sampled.text.startswith(f"======== SAMPLE 1 ========\n{prompt}")


def test_a_loss_that_is_no_number_ends_it_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.train(max_steps=2)
    training.trainer.weights["model/ln_f/g"].assign(np.full(8, np.nan, np.float32))
    with pytest.raises(UserError, match=r"loss of step 3 is nan.*of step 2, is kept") as raised:
        training.train(done=2)
    text = training.tokenizer.decode(training.sampler.batch(2, 1)[0, :12].tolist())
    place = training.sampler.describe(2, 1)[0]
    assert f"(batch 2, {place}, the text {text!r}...)" in str(raised.value)
    assert training.run.last_step == 2


def test_curves_are_readable_by_tensorflow(tmp_path: Path) -> None:
    training = Training(tmp_path, learning_rate=0.5)
    happened = training.train(max_steps=2, val_every=2, val_batch_count=1)
    (file,) = training.run.path.glob("events.out.tfevents.*")
    values = [
        (event.step, value.tag, value.simple_value)
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    losses = [
        (event.step, "loss" if isinstance(event, events.StepFinished) else "val_loss", event.loss)
        for event in happened
        if isinstance(event, events.StepFinished | events.Validated)
    ]
    found = [value for value in values if value[1] in ("loss", "val_loss")]
    assert [value[:2] for value in found] == [loss[:2] for loss in losses]
    np.testing.assert_allclose([v[2] for v in found], [v[2] for v in losses], rtol=1e-6)
    assert {value for value in values if value[1] == "learning_rate"} == {
        (1, "learning_rate", 0.5),
        (2, "learning_rate", 0.5),
    }
    tags = {"loss", "average", "learning_rate", "gradient_norm", "tokens_per_second"}
    assert {value[1] for value in values} == tags | {"val_loss", "val_perplexity"}


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


# --- knowing when to stop ---


class Losses:
    """Stands for the validation: the losses that a list tells, whatever the weights are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, training: Training, losses: list[float]):
        told = iter(losses)
        of_weights = training.trainer.loss
        validation = training.validation.batch(0, 2)

        def loss(batch: np.ndarray) -> float:
            return next(told) if np.array_equal(batch, validation) else of_weights(batch)

        monkeypatch.setattr(training.trainer, "loss", loss)


VALIDATING = {"val_every": 1, "val_batch_count": 1, "held_out": True}


def test_patience_ends_the_run_and_the_best_is_a_model_folder(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path, learning_rate=0.1)
    Losses(monkeypatch, training, [1.0, 5.0, 4.0, 4.5, 4.2, 3.0])  # the first before any step
    happened = training.train(patience=2, **VALIDATING)
    assert names(happened)[-1] == "Finished 4"
    assert "not fallen for 2 validations; the best is that of step 2" in happened[-1].reason
    best = training.run.best
    assert best.latest() == (best.path / "model-2", 2)
    assert sorted(path.name for path in best.path.glob("model-*.index")) == ["model-2.index"]
    assert ModelFolder(best.path).tokenizer().encode("worst")
    # It is of step 2, not of the end.
    kept, last = ModelFolder(best.path).weights(), ModelFolder(training.run.path).weights()
    assert (kept["model/wte"] != last["model/wte"]).any()
    # The patience is at its end for the next call, too.
    assert names(training.train(done=4, patience=2, **VALIDATING)) == ["Finished 4"]


def test_patience_and_the_best_are_remembered_over_an_interruption(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    Losses(monkeypatch, training, [9.0, 4.0, 4.5, 4.4, 4.3, 4.2])
    training.train(max_steps=2, patience=3, **VALIDATING)
    happened = training.train(done=2, patience=3, **VALIDATING)
    assert names(happened)[-1] == "Finished 4"
    assert training.run.best.last_step == 1


def test_on_another_validation_text_the_best_is_looked_for_anew(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    Losses(monkeypatch, training, [9.0, 1.0, 1.1])
    training.train(max_steps=2, **VALIDATING)
    assert training.run.best.last_step == 1
    other = np.array(training.tokenizer.encode(TEXT[5:]), np.uint16)
    training.validation = make_validation_sampler(
        TokenStream([other]), training.hparams.n_ctx, seed=1
    )
    Losses(monkeypatch, training, [6.0, 5.0, 5.5])
    happened = training.train(done=2, max_steps=4, patience=2, **VALIDATING)
    assert "other text than before" in happened[0].sentence
    assert [event.loss for event in happened if isinstance(event, events.Validated)] == [6, 5, 5.5]
    assert training.run.best.last_step == 3
    # On the same text as before there is nothing to say.
    Losses(monkeypatch, training, [5.01])
    happened = training.train(done=4, max_steps=9, patience=2, **VALIDATING)
    assert "Warned" not in names(happened)
    assert "the best is that of step 3" in happened[-1].reason


def test_a_validation_that_an_interruption_left_out_is_made_up_for(tmp_path: Path) -> None:
    training = Training(tmp_path)
    answers = iter([False, False, True])  # before validating, before the step, after it
    happened = training.train(stop=lambda: next(answers, True), **VALIDATING)
    assert names(happened)[-3:] == ["Step 1", "Interrupted", "Saving"]
    assert names(training.train(done=1, max_steps=1, **VALIDATING))[:2] == [
        "Validating",
        "Validated 1",
    ]


def test_it_is_said_once_when_training_and_validation_loss_part(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path, learning_rate=0.05)
    Losses(monkeypatch, training, [9.0, 4.0, 4.01, 4.2, 4.3, 3.9, 4.2])
    happened = training.train(max_steps=6, **VALIDATING)
    warned = [at for at, event in enumerate(happened) if isinstance(event, events.Warned)]
    # Not at 4.01, which may be chance; again after a new best.
    assert [happened[at - 1].loss for at in warned] == [4.2, 4.2]
    assert "lower at step 1 (4.00)" in happened[warned[0]].sentence
    assert "lower at step 5 (3.90)" in happened[warned[1]].sentence


def test_without_held_out_text_no_best_is_kept(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.train(max_steps=1, **VALIDATING | {"held_out": False})
    assert not training.run.best.path.exists()


def test_epochs_are_counted_in_steps_of_the_whole_batch(tmp_path: Path) -> None:
    training = Training(tmp_path)
    epoch = training.sampler.steps_per_epoch(20)
    happened = training.train(epochs=1.5, batch_size=5, accumulate_gradients=4)
    assert names(happened)[-1] == f"Finished {math.ceil(1.5 * epoch)}"
    assert LoopSettings(epochs=2, max_steps=7).last_step(3) == 6
    assert LoopSettings(epochs=2, max_steps=5).last_step(3) == 5
    assert LoopSettings().last_step(3) is None


class Clock:
    """Stands for the module `time` in the loop: each look at it is a second later."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def test_minutes_end_this_call_whatever_the_step(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "time", Clock())
    training = Training(tmp_path)
    happened = training.train(max_minutes=0.5)
    assert 3 < happened[-1].step < 30
    assert happened[-1].reason.startswith("0.5 minutes are over")
    assert training.run.last_step == happened[-1].step
    # The next call has minutes of its own.
    assert training.train(done=happened[-1].step, max_minutes=0.5)[-1].step > happened[-1].step


# --- faults ---


class FullDisk:
    """Refuses saves of the run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, saves: float, with_state: bool = False):
        """Refuse the first `saves`, or only those that come with a state."""
        save = RunFolder.save

        def refusing(run: RunFolder, step: int, weights, hparams, state=None) -> Path:
            self.saves -= 1
            if self.saves >= 0 and (state or not with_state):
                raise UserError(f"{run.prefix(step)} cannot be written: No space left on device.")
            return save(run, step, weights, hparams, state)

        self.saves = saves
        monkeypatch.setattr(RunFolder, "save", refusing)


def test_training_goes_on_when_a_save_fails_and_tries_again(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    training.train(max_steps=1)
    FullDisk(monkeypatch, saves=1)
    happened = training.train(done=1, max_steps=5, save_every=2)
    assert names(happened) == [
        *("Step 2", "Saving", "Warned", "Step 3", "Step 4", "Saving"),
        *("Step 5", "Saving", "Finished 5"),
    ]
    assert "No space left on device. Training goes on, and the checkpoint of step 1 is kept" in (
        happened[2].sentence
    )


def test_a_failed_save_is_tried_again_after_some_minutes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "time", Clock())
    FullDisk(monkeypatch, saves=1)
    happened = Training(tmp_path).train(max_steps=199, save_every=100, sample_every=1000)
    first, again, last = [
        int(event.prefix.name.removeprefix("model-"))
        for event in happened
        if isinstance(event, events.Saving)
    ]
    assert (first, last) == (100, 199)
    assert 100 < again < 199


def test_a_save_that_fails_at_the_end_is_an_error(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    FullDisk(monkeypatch, saves=math.inf)
    with pytest.raises(UserError, match="model-2 cannot be written: No space left"):
        training.train(max_steps=2)


def test_at_the_end_weights_are_saved_where_only_the_state_does_not_fit(
    tmp_path, monkeypatch
) -> None:
    training = Training(tmp_path)
    FullDisk(monkeypatch, saves=math.inf, with_state=True)
    happened = training.train(max_steps=2)
    assert names(happened)[-3:] == ["Saving", "Warned", "Finished 2"]
    assert "The weights are saved, but not the optimizer's state" in happened[-2].sentence
    assert training.run.last_step == 2
    assert not list(training.run.path.glob("state-*"))


def test_samples_and_curves_that_cannot_be_written_lose_no_steps(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    training.samples.write_text("a file")
    (training.run.path / HISTORY).mkdir()
    happened = training.train(max_steps=3, sample_every=2)
    assert names(happened) == [
        *("Step 1", "Warned", "Step 2", "Generating", "Sampled", "Warned"),
        *("Step 3", "Saving", "Finished 3"),
    ]
    assert "history.jsonl cannot be written" in happened[1].sentence
    assert "samples cannot be written" in happened[5].sentence


def test_a_gradient_that_is_no_number_ends_it_and_names_the_batch(tmp_path: Path) -> None:
    training = Training(tmp_path)
    step = training.trainer.step

    def broken(number: int, batches: list[np.ndarray]) -> StepResult:
        result = step(number, batches)
        return dataclasses.replace(result, gradient_norm=math.inf) if number == 3 else result

    training.trainer.step = broken
    with pytest.raises(
        UserError, match=r"gradient of step 3 is inf \(batch 4, chunk 0, .* the text ['\"]"
    ):
        training.train(save_every=2, accumulate_gradients=2)
    assert training.run.last_step == 2


def test_the_broken_one_of_several_batches_is_named(tmp_path: Path) -> None:
    training = Training(tmp_path)
    tokens = training.sampler.batch(7, 3)[2, :12].tolist()
    # By its turn, and not by its tokens: the text repeats itself, and other examples have the same.
    losses = iter([3.0] * 5 + [math.nan] + [3.0] * 3)

    def loss(example: np.ndarray) -> float:
        return next(losses)

    words = batch_in_words(loss, training.sampler, range(6, 9), 3, training.tokenizer)
    place = training.sampler.describe(7, 3)[2]
    assert words == f"batch 7, {place}, the text {training.tokenizer.decode(tokens)!r}..."


def test_tokens_that_the_vocabulary_does_not_have_are_told_with_their_place(tmp_path: Path) -> None:
    training = Training(tmp_path)
    chunk = np.full(40, 3, np.uint16)
    chunk[20:] = 900
    training.sampler = StreamSampler([chunk], training.hparams.n_ctx, seed=0)
    end = training.hparams.n_vocab - 1
    with pytest.raises(UserError, match=f"damaged: .* token 900 in chunk 0, .* ends at {end};"):
        training.train(batch_size=9)


@pytest.mark.parametrize(
    "error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")]
)
def test_too_little_memory_is_one_sentence_with_the_flags_that_help(tmp_path, error) -> None:
    training = Training(tmp_path)

    def step(number: int, batches: list[np.ndarray]) -> StepResult:
        raise error

    training.trainer.step = step
    with pytest.raises(UserError, match=r"not enough memory.*--batch_size.*--lora_rank"):
        training.train()
