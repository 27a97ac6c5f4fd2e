"""The training loop: the order of events, and the files it writes."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.checkpoint import bundle, state
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.new_model import write_model_folder
from gpt2.checkpoint.run import RunFolder
from gpt2.data.datasets import DocumentSet, TokenStream, documents_in
from gpt2.data.samplers import Batch, DocumentSampler, StreamSampler, make_validation_sampler
from gpt2.errors import UserError
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer, train_vocabulary
from gpt2.training import events, loop
from gpt2.training.best import BestCheckpoint
from gpt2.training.loggers import TensorBoardLogger
from gpt2.training.loop import find_bad_example
from gpt2.training.progress import TrainingProgress
from gpt2.training.run_log import HISTORY, HistoryLogger
from gpt2.training.settings import LoopSettings, TrainerSettings
from gpt2.training.trainer import StepResult, Trainer
from tests.checkpoint.checkpoint_helpers import last_step

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
        """Train as one call does, resuming from the saved progress after `done` steps."""
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


def test_events_come_in_order_and_the_last_step_is_saved(tmp_path: Path) -> None:
    training = Training(tmp_path)
    happened = training.train(
        max_steps=5, save_every=2, sample_every=3, val_every=4, val_batch_count=2
    )
    assert names(happened) == [
        "Validating",
        "Validated 0",
        "StepFinished 1",
        "StepFinished 2",
        "Saving",
        "StepFinished 3",
        "Generating",
        "Sampled",
        "StepFinished 4",
        "Validating",
        "Validated 4",
        "Saving",
        "StepFinished 5",
        "Saving",
        "Finished 5",
    ]
    assert [event.prefix.name for event in happened if isinstance(event, events.Saving)] == [
        "model-2",
        "model-4",
        "model-5",
    ]
    assert last_step(training.run) == 5
    saved = dict(bundle.Tensors(training.run.prefix(5), training.hparams))
    for name, variable in training.trainer.weights.items():
        np.testing.assert_array_equal(saved[name], variable.numpy())


def test_the_step_count_continues_and_a_finished_run_trains_nothing(tmp_path: Path) -> None:
    training = Training(tmp_path)
    assert names(training.train(done=7, max_steps=8)) == ["StepFinished 8", "Saving", "Finished 8"]
    assert names(training.train(done=8, max_steps=8)) == ["Finished 8"]


def test_stopping_saves_once_and_ends(tmp_path: Path) -> None:
    training = Training(tmp_path)
    answers = iter([False, False, False, True])  # before step 1, after steps 1 and 2
    happened = training.train(stop=lambda: next(answers, True))
    assert names(happened) == [
        "StepFinished 1",
        "StepFinished 2",
        "StepFinished 3",
        "Interrupted",
        "Saving",
    ]
    assert last_step(training.run) == 3


def test_stopping_while_sampling_discards_the_samples(tmp_path: Path) -> None:
    training = Training(tmp_path)
    asked = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 3  # before the step, before sampling, after one token

    happened = training.train(stop=stop, sample_every=1)
    assert names(happened) == ["StepFinished 1", "Generating", "Interrupted", "Saving"]
    assert not training.samples.exists()


def test_samples_that_were_interrupted_are_made_when_the_run_goes_on(tmp_path: Path) -> None:
    training = Training(tmp_path)
    asked = []
    training.train(stop=lambda: asked.append(None) or len(asked) > 3, sample_every=1)
    happened = training.train(done=1, sample_every=1, max_steps=2)
    assert names(happened)[:3] == ["Generating", "Sampled", "StepFinished 2"]
    whole = Training(tmp_path / "whole")
    whole.train(sample_every=1, max_steps=2)
    for number in (1, 2):
        name = f"samples-{number}"
        assert (training.samples / name).read_text() == (whole.samples / name).read_text()
    assert "Generating" not in names(training.train(done=2, sample_every=1, max_steps=2))


def test_the_average_loss_is_weighted_as_in_2019(tmp_path: Path) -> None:
    happened = Training(tmp_path).train(max_steps=3)
    first, second, third = [event for event in happened if isinstance(event, events.StepFinished)]
    assert first.average == pytest.approx(first.loss)
    assert third.average == pytest.approx(
        (0.99**2 * first.loss + 0.99 * second.loss + third.loss) / (0.99**2 + 0.99 + 1)
    )


def test_samples_have_banners_and_a_prompt_of_one_dataset_token(tmp_path: Path) -> None:
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


def test_a_nan_loss_ends_training_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.train(max_steps=2)
    training.trainer.weights["model/ln_f/g"].assign(np.full(8, np.nan, np.float32))
    with pytest.raises(UserError, match=r"loss of step 3 is nan.*checkpoint.* step 2\b") as raised:
        training.train(done=2)
    text = training.tokenizer.decode(training.sampler.batch(2, 1).inputs[0, :12].tolist())
    place = training.sampler.describe(2, 1)[0]
    for fact in ("batch 2", place, repr(text), "--learning_rate"):
        assert fact in str(raised.value)
    assert last_step(training.run) == 2


def test_tensorflow_reads_the_logged_metrics(tmp_path: Path) -> None:
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
def test_invalid_loop_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        LoopSettings(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"optimizer": "adamant"}, {"noise": 1.5}, {"learning_rate": 0.0}]
)
def test_invalid_trainer_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        TrainerSettings(**wrong)


def test_top_k_above_the_vocabulary_size_is_refused_before_training(
    tmp_path: Path,
) -> None:
    training = Training(tmp_path)
    with pytest.raises(UserError, match=r"top_k.*301"):
        LoopSettings(sampling=SamplingSettings(top_k=301)).check_model(training.hparams)


# --- validation and end reasons ---


class Losses:
    """Replaces the validation losses by those of a list."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, training: Training, losses: list[float]):
        given = iter(losses)
        monkeypatch.setattr(training.trainer, "shared_loss", lambda batch: next(given))


VALIDATING = {"val_every": 1, "val_batch_count": 1, "held_out": True}


def test_early_stopping_ends_the_run_and_the_best_is_a_model_folder(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path, learning_rate=0.1)
    Losses(monkeypatch, training, [1.0, 5.0, 4.0, 4.5, 4.2, 3.0])  # the first before any step
    happened = training.train(patience=2, **VALIDATING)
    assert names(happened)[-1] == "Finished 4"
    assert re.search(r"Early stopping.* 2 validations.* 4\.00 at step 2\b", happened[-1].reason)
    best = training.run.best
    assert last_step(best) == 2
    assert sorted(path.name for path in best.path.glob("model-*.index")) == ["model-2.index"]
    assert ModelFolder(best.path).tokenizer().encode("worst")
    # These are the weights of step 2, not the last ones.
    kept, last = ModelFolder(best.path).weights(), ModelFolder(training.run.path).weights()
    assert (kept["model/wte"] != last["model/wte"]).any()
    # The next call stops early, too.
    assert names(training.train(done=4, patience=2, **VALIDATING)) == ["Finished 4"]


def test_patience_and_the_best_survive_an_interruption(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    Losses(monkeypatch, training, [9.0, 4.0, 4.5, 4.4, 4.3, 4.2])
    training.train(max_steps=2, patience=3, **VALIDATING)
    happened = training.train(done=2, patience=3, **VALIDATING)
    assert names(happened)[-1] == "Finished 4"
    assert last_step(training.run.best) == 1


def test_another_validation_set_restarts_the_search_for_the_best(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    Losses(monkeypatch, training, [9.0, 1.0, 1.1])
    training.train(max_steps=2, **VALIDATING)
    assert last_step(training.run.best) == 1
    other = np.array(training.tokenizer.encode(TEXT[5:]), np.uint16)
    training.validation = make_validation_sampler(
        TokenStream([other]), training.hparams.n_ctx, seed=1
    )
    Losses(monkeypatch, training, [6.0, 5.0, 5.5])
    happened = training.train(done=2, max_steps=4, patience=2, **VALIDATING)
    assert re.search(r"validation set has changed.*step 2\b", happened[0].sentence)
    assert [event.loss for event in happened if isinstance(event, events.Validated)] == [6, 5, 5.5]
    assert last_step(training.run.best) == 3
    # The same validation set gives no notice.
    Losses(monkeypatch, training, [5.01])
    happened = training.train(done=4, max_steps=9, patience=2, **VALIDATING)
    assert "Warned" not in names(happened)
    assert "5.00 at step 3" in happened[-1].reason


def test_a_validation_skipped_by_an_interruption_is_done_when_resuming(tmp_path: Path) -> None:
    training = Training(tmp_path)
    answers = iter([False, False, True])  # before validating, before the step, after it
    happened = training.train(stop=lambda: next(answers, True), **VALIDATING)
    assert names(happened)[-3:] == ["StepFinished 1", "Interrupted", "Saving"]
    assert names(training.train(done=1, max_steps=1, **VALIDATING))[:2] == [
        "Validating",
        "Validated 1",
    ]


def test_overfitting_is_reported_once_per_best_step(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path, learning_rate=0.05)
    Losses(monkeypatch, training, [9.0, 4.0, 4.01, 4.2, 4.3, 3.9, 4.2])
    happened = training.train(max_steps=6, **VALIDATING)
    warned = [at for at, event in enumerate(happened) if isinstance(event, events.Warned)]
    # Not at 4.01, which may be noise; again after a new best.
    assert [happened[at - 1].loss for at in warned] == [4.2, 4.2]
    for at, fact in zip(warned, ("step 1 (4.00)", "step 5 (3.90)"), strict=True):
        assert happened[at].sentence.startswith("Overfitting")
        assert fact in happened[at].sentence
        assert str(training.run.best.path) in happened[at].sentence


def test_without_held_out_text_no_best_checkpoint_is_kept(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.train(max_steps=1, **VALIDATING | {"held_out": False})
    assert not training.run.best.path.exists()


def test_epochs_count_steps_of_all_accumulated_batches(tmp_path: Path) -> None:
    training = Training(tmp_path)
    epoch = training.sampler.steps_per_epoch(20)
    happened = training.train(epochs=1.5, batch_size=5, accumulate_gradients=4)
    assert names(happened)[-1] == f"Finished {math.ceil(1.5 * epoch)}"
    assert LoopSettings(epochs=2, max_steps=7).last_step(3) == 6
    assert LoopSettings(epochs=2, max_steps=5).last_step(3) == 5
    assert LoopSettings().last_step(3) is None


class Clock:
    """Replaces the module `time` in the loop: each call is a second later."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def test_max_minutes_ends_the_call_at_any_step(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "time", Clock())
    training = Training(tmp_path)
    happened = training.train(max_minutes=0.5)
    assert 3 < happened[-1].step < 30
    assert re.search(rf"0\.5 minutes.* step {happened[-1].step}\b", happened[-1].reason)
    assert last_step(training.run) == happened[-1].step
    # The limit counts from the start of each call.
    assert training.train(done=happened[-1].step, max_minutes=0.5)[-1].step > happened[-1].step


# --- faults ---


class FullDisk:
    """Lets saves of the run fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, saves: float, with_state: bool = False):
        """Let the first `saves` fail, all of them or only those with an optimizer state."""
        save = RunFolder.save

        def refusing(run: RunFolder, step: int, weights, hparams, state=None) -> Path:
            self.saves -= 1
            if self.saves >= 0 and (state or not with_state):
                raise UserError(f"{run.prefix(step)} cannot be written: No space left on device.")
            return save(run, step, weights, hparams, state)

        self.saves = saves
        monkeypatch.setattr(RunFolder, "save", refusing)


def test_training_continues_after_a_failed_save_and_retries_it(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    training.train(max_steps=1)
    FullDisk(monkeypatch, saves=1)
    happened = training.train(done=1, max_steps=5, save_every=2)
    assert names(happened) == [
        *("StepFinished 2", "Saving", "Warned", "StepFinished 3", "StepFinished 4", "Saving"),
        *("StepFinished 5", "Saving", "Finished 5"),
    ]
    assert re.search(r"No space left.* checkpoint of step 1 is kept", happened[2].sentence)


def test_a_failed_save_is_retried_after_some_minutes(tmp_path, monkeypatch) -> None:
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


def test_a_failed_last_save_is_an_error(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    FullDisk(monkeypatch, saves=math.inf)
    with pytest.raises(UserError, match="model-2 cannot be written: No space left"):
        training.train(max_steps=2)


def test_the_last_save_keeps_the_weights_if_only_the_state_does_not_fit(
    tmp_path, monkeypatch
) -> None:
    training = Training(tmp_path)
    FullDisk(monkeypatch, saves=math.inf, with_state=True)
    happened = training.train(max_steps=2)
    assert names(happened)[-3:] == ["Saving", "Warned", "Finished 2"]
    assert re.search("weights are saved.* not the optimizer", happened[-2].sentence)
    assert last_step(training.run) == 2
    assert not list(training.run.path.glob("state-*"))


def test_samples_and_metrics_that_cannot_be_written_lose_no_steps(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    training.samples.write_text("a file")
    (training.run.path / HISTORY).mkdir()
    happened = training.train(max_steps=3, sample_every=2)
    assert names(happened) == [
        *("StepFinished 1", "Warned", "StepFinished 2", "Generating", "Sampled", "Warned"),
        *("StepFinished 3", "Saving", "Finished 3"),
    ]
    for at, path in ((1, training.run.path / HISTORY), (5, training.samples)):
        assert str(path) in happened[at].sentence


def test_an_infinite_gradient_ends_training_and_names_the_batch(tmp_path: Path) -> None:
    training = Training(tmp_path)
    step = training.trainer.step

    def broken(number: int, batches: list[Batch]) -> StepResult:
        result = step(number, batches)
        return dataclasses.replace(result, gradient_norm=math.inf) if number == 3 else result

    training.trainer.step = broken
    with pytest.raises(
        UserError, match=r"gradient norm of step 3 is inf \(batch 4, chunk 0, .*['\"]"
    ):
        training.train(save_every=2, accumulate_gradients=2)
    assert last_step(training.run) == 2


def test_the_bad_example_of_several_batches_is_found(tmp_path: Path) -> None:
    training = Training(tmp_path)
    tokens = training.sampler.batch(7, 3).inputs[2, :12].tolist()
    # The losses go by turn, since the text repeats itself and other examples have the same tokens.
    losses = iter([3.0] * 5 + [math.nan] + [3.0] * 3)

    def loss(example: Batch) -> float:
        return next(losses)

    found = find_bad_example(loss, training.sampler, range(18, 27, 3), 3, training.tokenizer)
    place = training.sampler.describe(7, 3)[2]
    for fact in ("batch 7", place, repr(training.tokenizer.decode(tokens))):
        assert fact in found


def packed_sampler(training: Training, bad: int = 0) -> DocumentSampler:
    """Lines in packed rows of the context window, the fourth of which has a token of this id."""
    tokens = np.tile(np.array([5, 6, 7, 8, 0], np.uint16), 40)
    tokens[16] = bad or tokens[16]
    documents = documents_in([tokens], endoftext=0)
    return DocumentSampler(documents, training.hparams.n_ctx, seed=0, packing=True)


def test_a_bad_example_within_a_packed_row_is_found(tmp_path: Path) -> None:
    training = Training(tmp_path)
    sampler = packed_sampler(training, bad=9)

    def loss(example: Batch) -> float:
        assert example.inputs.shape == (1, 5)
        return math.nan if 9 in example.inputs else 3.0

    numbers = range(sampler.steps_per_epoch(2))
    found = find_bad_example(loss, sampler, numbers, 2, training.tokenizer)
    assert "document 3 " in found and repr(training.tokenizer.decode([0, 5, 9, 7, 8])) in found


def test_a_corrupted_token_within_a_packed_row_is_reported_with_its_place(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.sampler = packed_sampler(training, bad=900)
    with pytest.raises(UserError, match=r"token 900 in document 3 "):
        training.train(batch_size=14, max_steps=1)


def test_the_packed_validation_loss_is_the_mean_over_all_targets(tmp_path: Path) -> None:
    training = Training(tmp_path)
    sampler = training.validation = packed_sampler(training)
    count = sampler.steps_per_epoch(3)
    batches = [sampler.batch(number, 3) for number in range(count)]
    losses = [training.trainer.loss(batch) for batch in batches]
    happened = training.train(
        max_steps=1, val_every=1, val_batch_count=count, val_batch_size=3, batch_size=2
    )
    found = next(event.loss for event in happened if isinstance(event, events.Validated))
    counts = [batch.target_count for batch in batches]
    assert found == pytest.approx(np.average(losses, weights=counts), rel=1e-6)


def test_tokens_outside_the_vocabulary_are_reported_with_their_place(tmp_path: Path) -> None:
    training = Training(tmp_path)
    chunk = np.full(40, 3, np.uint16)
    chunk[20:] = 900
    training.sampler = StreamSampler([chunk], training.hparams.n_ctx, seed=0)
    end = training.hparams.n_vocab - 1
    with pytest.raises(UserError, match=rf"token 900 in chunk 0, .*\b{end}\b"):
        training.train(batch_size=9)


@pytest.mark.parametrize(
    "error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")]
)
def test_running_out_of_memory_names_the_flags_that_help(tmp_path, error) -> None:
    training = Training(tmp_path)

    def step(number: int, batches: list[Batch]) -> StepResult:
        raise error

    training.trainer.step = step
    with pytest.raises(UserError, match=r"not enough memory.*--batch_size.*--lora_rank"):
        training.train()


# --- one loss whatever the batches, examples seen, and the best ---


def line_set(training: Training, lengths: list[int]) -> DocumentSampler:
    """Return a validation set of lines of these lengths, which batches pad."""
    tokens = np.array(training.tokenizer.encode(TEXT), np.uint16)
    ends = np.cumsum(lengths)
    places = np.array([(0, end - n, end) for n, end in zip(lengths, ends, strict=True)])
    source, none = np.zeros(len(lengths), np.int32), np.zeros(0, np.int32)
    lines = DocumentSet([tokens], places, [""], source, [none], None)
    return DocumentSampler(lines, training.hparams.n_ctx, seed=1)


@pytest.mark.slow
def test_the_validation_loss_is_the_mean_over_all_targets(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.validation = line_set(training, [2, 3, 12, 2, 16, 2, 5])
    rows = [training.validation.batch(number, 1) for number in range(7)]
    counts = [np.count_nonzero(row.targets >= 0) for row in rows]
    losses = [training.trainer.loss(row) for row in rows]
    expected = np.dot(losses, counts) / sum(counts)
    assert abs(expected - np.mean(losses)) > 1e-4  # else this would prove nothing
    fingerprints = set()
    for size, batches in ((1, 7), (2, 4), (3, 3), (7, 1), (40, 40)):
        other = Training(tmp_path / str(size))
        other.validation = line_set(other, [2, 3, 12, 2, 16, 2, 5])
        run = {"val_every": 1, "val_batch_size": size, "val_batch_count": batches}
        happened = other.train(held_out=True, max_steps=1, **run)
        loss = next(event.loss for event in happened if isinstance(event, events.Validated))
        assert loss == pytest.approx(expected, rel=1e-5)
        facts = state.read_facts(other.state(1), other.run.prefix(1))
        fingerprints.add(facts["validated_on"])
    assert len(fingerprints) == 1


def test_another_validation_batch_shape_continues_the_search_for_the_best(tmp_path: Path) -> None:
    training = Training(tmp_path, learning_rate=0.01)
    training.validation = line_set(training, [2, 3, 12, 2, 16, 2, 5])
    shape = {"val_every": 1, "held_out": True, "patience": 1, "sample_every": 1000}
    training.train(max_steps=2, val_batch_size=7, **shape)
    happened = training.train(done=2, max_steps=6, val_batch_size=1, **shape)
    assert "Warned" not in names(happened)
    assert names(happened)[-1] == "Finished 6"
    assert last_step(training.run.best) == 6


def test_epochs_end_by_the_examples_seen_whatever_the_batch_size(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.sampler = line_set(training, [3] * 40)
    seen = []
    batch = training.sampler.batch

    def noted(number: int, size: int) -> np.ndarray:
        seen.extend(range(number * size, (number + 1) * size))
        return batch(number, size)

    training.train(max_steps=10)
    training.sampler.batch = noted
    happened = training.train(done=10, epochs=1, batch_size=4)
    assert names(happened)[-1] == "Finished 18"  # 10 + 8 * 4 = 42
    assert set(range(10, 42)) <= set(seen) <= set(range(10, 46))  # a save looks at the next batch
    facts = state.read_facts(training.state(18), training.run.prefix(18))
    assert (facts["examples"], facts["tokens"]) == (42, 84)
    assert training.train(done=18, epochs=1, batch_size=4)[-1].step == 18


def best_of(training: Training) -> tuple[int, float]:
    found = BestCheckpoint(training.run).read()
    assert found and found.step == last_step(training.run.best)
    return found.step, found.loss


def test_worse_weights_never_replace_the_best(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    Losses(monkeypatch, training, [9.0, 3.0, 2.0])
    training.train(max_steps=2, save_every=1, **VALIDATING)
    assert best_of(training) == (2, 2.0)
    saved = (training.run.best.path / "model-2.index").read_bytes()
    # From an older step, without a state, and as a new beginning.
    for path in training.run.path.glob("state-2*"):
        path.unlink()
    for done in (1, 2, 0):
        Losses(monkeypatch, training, [2.5, 2.4, 2.3] if done else [9.0, 2.5, 2.4, 2.3])
        happened = training.train(done=done, max_steps=done + 2, **VALIDATING)
        assert "Warned" not in names(happened)
        assert best_of(training) == (2, 2.0)
        assert (training.run.best.path / "model-2.index").read_bytes() == saved
    Losses(monkeypatch, training, [9.0, 1.9])
    training.train(max_steps=1, **VALIDATING)
    assert best_of(training) == (1, 1.9)
    assert not list(training.run.path.glob("best-*"))


def test_a_best_of_another_set_or_of_unknown_loss_is_kept_aside(tmp_path, monkeypatch) -> None:
    training = Training(tmp_path)
    Losses(monkeypatch, training, [9.0, 2.0])
    training.train(max_steps=1, **VALIDATING)
    (training.run.best.path / "validation.json").write_text("[]")
    Losses(monkeypatch, training, [9.0, 5.0])
    training.train(max_steps=1, **VALIDATING)
    other = np.array(training.tokenizer.encode(TEXT[5:]), np.uint16)
    training.validation = make_validation_sampler(
        TokenStream([other]), training.hparams.n_ctx, seed=1
    )
    Losses(monkeypatch, training, [9.0, 8.0])
    training.train(max_steps=1, **VALIDATING)
    assert best_of(training) == (1, 8.0)
    for name in ("best-1", "best-2"):
        assert ModelFolder(training.run.path / name).weights()


def test_overfitting_is_not_reported_while_the_training_loss_rises() -> None:
    progress = TrainingProgress(0)

    def train_and_validate(losses: list[float], val_loss: float) -> bool:
        for loss in losses:
            progress.add_loss(loss)
        if val_loss < progress.best_loss:
            progress.set_best(1, val_loss)
        overfits = progress.overfits(val_loss)
        progress.validated_recent = progress.recent
        return overfits

    assert not train_and_validate([9.0] * 50 + [4.0] * 50, 4.0)
    assert not train_and_validate([4.5] * 50, 5.0)  # the slow average still falls here
    assert train_and_validate([3.0] * 50, 5.0)
    assert not train_and_validate([3.5] * 50, 5.0)  # below that of the best, and rising
    assert train_and_validate([3.2] * 50, 5.0)
