"""Training from the command line: stopped, resumed, started from a checkpoint, failing."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from gpt2.checkpoint.run import RunFolder
from gpt2.commands.train import COMMAND, _last_line, _resume_command
from gpt2.training.progress import TrainingProgress
from tests.commands.toolkit_copy import (
    DATA,
    INDEX,
    MODEL_FILES,
    TRAIN,
    Done,
    Home,
    Story,
    Toolkit,
)
from tests.support.waiting import wait_for

SAVE_EACH = TRAIN.replace("--save_every 7", "--save_every 1")
LOG_LINE = re.compile(r"^\[(\d+) \| \d+\.\d\d\] loss=\d+\.\d\d avg=\d+\.\d\d$", re.MULTILINE)
SAVING = re.compile(r"^Saving checkpoint/run1/model-(\d+)$", re.MULTILINE)


def steps(out: str) -> list[int]:
    return [int(step) for step in LOG_LINE.findall(out)]


def saved(out: str) -> list[int]:
    return [int(step) for step in SAVING.findall(out.replace(os.sep, "/"))]


def test_a_fresh_model_has_the_seven_files_of_a_released_one(home: Home) -> None:
    done = home.new_model.succeeds()
    assert sorted(home.toolkit.contents("models/117M")) == sorted(MODEL_FILES)
    # 300 * 16 + 32 * 16 + 12 * 16 * 16 + 13 * 16 + 2 * 16
    assert "8,624 parameters" in done.out


def test_encoding_counts_the_tokens_at_the_end(home: Home) -> None:
    done = home.encode.succeeds()
    assert re.fullmatch(r"Reading files\nWriting text\.npz\n[\d,]+ tokens\n", done.out)


def test_training_prints_the_lines_of_2019(story: Story) -> None:
    done = story.interrupted
    assert done.out.startswith("Loading dataset...\ndataset has ")
    lines = done.out.replace(os.sep, "/").splitlines()
    loading = lines.index("Loading checkpoint models/117M/model.ckpt")
    assert lines[loading + 1] == "Training..."
    assert "Training all 8,624 parameters" in lines[loading - 2]
    assert steps(done.out) == list(range(1, len(steps(done.out)) + 1))
    at = next(number for number, line in enumerate(lines) if line.startswith("[20 |"))
    assert lines[at + 1 : at + 3] == ["Generating samples...", "======== SAMPLE 1 ========"]


def test_samples_lie_in_files_as_they_were_shown(story: Story) -> None:
    samples = (story.toolkit.root / "samples" / "run1" / "samples-20").read_bytes().decode("utf-8")
    assert samples.startswith("======== SAMPLE 1 ========\n")
    assert len(samples) > 50
    assert samples in story.interrupted.out


def test_ctrl_c_saves_the_last_step_and_exits_with_0(story: Story) -> None:
    done = story.interrupted
    done.says(0, "after this step, then saving.*Ctrl.C again")
    assert "\ninterrupted\n" in done.out
    assert saved(done.out)[-1] == steps(done.out)[-1]
    # The command that resumes: the same one, without the defaults.
    typed = "python src/train.py --dataset text.npz --save_every 7 --sample_every 20"
    assert done.out.splitlines()[-1] == f"Resume with: {typed}"


def test_the_run_holds_the_last_five_checkpoints_and_is_a_model_folder(story: Story) -> None:
    files = story.after_interrupt
    kept = saved(story.interrupted.out)[-5:]
    assert len(kept) == 5
    endings = (DATA, INDEX, ".meta")
    checkpoints = {f"model-{step}{ending}" for step in kept for ending in endings}
    states = {f"state-{step}{ending}" for step in kept[-2:] for ending in (DATA, INDEX, ".json")}
    assert set(files) == checkpoints | states | {
        "config.json",
        "history.jsonl",
        "checkpoint",
        "counter",
        "encoder.json",
        "hparams.json",
        "vocab.bpe",
    }
    assert files["counter"] == b"%d\n" % kept[-1]
    listed = [f'all_model_checkpoint_paths: "model-{step}"\n' for step in kept]
    assert files["checkpoint"].decode() == "".join(
        [f'model_checkpoint_path: "model-{kept[-1]}"\n', *listed]
    )
    model = story.toolkit.contents("models/117M")
    for name in ("encoder.json", "hparams.json", "vocab.bpe"):
        assert files[name] == model[name]
    for step in kept:
        assert files[f"model-{step}{DATA}"] != model[f"model.ckpt{DATA}"]
        assert len(files[f"model-{step}{DATA}"]) == 8624 * 4


def test_the_same_command_resumes_with_the_next_step(story: Story) -> None:
    last = saved(story.interrupted.out)[-1]
    out = story.terminated.out.replace(os.sep, "/")
    assert f"Loading checkpoint checkpoint/run1/model-{last}\n" in out
    assert steps(out) == list(range(last + 1, last + 1 + len(steps(out))))


def test_sigterm_saves_as_ctrl_c_does(story: Story) -> None:
    done = story.terminated
    done.says(0, "after this step, then saving")
    last = steps(done.out)[-1]
    assert saved(done.out)[-1] == last
    assert story.after_terminate["counter"] == b"%d\n" % last
    assert f"model-{last}{INDEX}" in story.after_terminate


def test_a_second_ctrl_c_exits_at_once_and_changes_no_checkpoint(story: Story) -> None:
    changed, stopping = story.left.sentences
    assert "--accumulate_gradients changes from 1 to 50000" in changed
    assert "Ctrl+C again" in stopping and story.left.code == 130
    assert "interrupted" not in story.left.out
    assert steps(story.left.out) == []
    unharmed = story.after_leaving.keys() - {"config.json"}  # which records the call
    assert unharmed == story.after_terminate.keys() - {"config.json"}
    for name in unharmed:
        assert story.after_leaving[name] == story.after_terminate[name], name


@pytest.fixture(scope="session")
def starts(story: Story) -> dict[str, Done]:
    """Two steps of each of four runs that start in different ways, by the name of the run."""
    root = story.toolkit.root
    shutil.copytree(root / "checkpoint" / "run1", root / "checkpoint" / "fresh")
    (root / "short.txt").write_text("Too short.")
    last = saved(story.terminated.out)[-1]
    flags = {
        "folder": "--dataset text.npz --seed 7 --restore_from checkpoint/run1",
        "prefix": f"--dataset text.npz --seed 7 --restore_from checkpoint/run1/model-{last}",
        "index": f"--dataset text.npz --seed 8 --restore_from checkpoint/run1/model-{last}.index",
        "fresh": "--dataset short.txt --restore_from fresh --model_name 117M"
        " --val_every 2 --val_batch_count 3",
    }
    answers = story.toolkit.run_all(
        *(f"python src/train.py --max_steps 2 --run_name {run} {flags[run]}" for run in flags)
    )
    return dict(zip(flags, answers, strict=True))


@pytest.mark.parametrize("run", ["folder", "prefix", "index", "fresh"])
def test_training_starts_at_restore_from_and_ends_at_max_steps(
    story: Story, starts: dict[str, Done], run: str
) -> None:
    if run == "fresh":  # in the folder of a run, whose files are kept
        kept, history = starts[run].sentences
        assert re.search(r"kept in checkpoint.fresh.earlier-1\.", kept)
        assert re.search(r"kept in checkpoint.fresh.history-1\.jsonl\.", history)
        assert starts[run].code == 0
    else:
        starts[run].succeeds()
    out = starts[run].out.replace(os.sep, "/")
    last = saved(story.terminated.out)[-1]
    checkpoint = "models/117M/model.ckpt" if run == "fresh" else f"checkpoint/run1/model-{last}"
    assert f"\nLoading checkpoint {checkpoint}\n" in out
    assert steps(out) == [1, 2]
    sample = f"python src/interactive_conditional_samples.py --model_name {run}"
    assert re.search(
        rf"\nSaving checkpoint/{run}/model-2\n.*\b2 steps.*\n.*{re.escape(sample)}\n$", out
    )


def test_a_fresh_start_loses_nothing_of_the_run_before(
    story: Story, starts: dict[str, Done]
) -> None:
    before = story.toolkit.contents("checkpoint/run1")
    after = story.toolkit.contents("checkpoint/fresh")
    for name, content in before.items():
        if name.startswith(("model-", "state-", "checkpoint")):
            assert after[f"earlier-1/{name}"] == content, name
    assert after["history-1.jsonl"] == before["history.jsonl"]
    assert set(re.findall(rb'"(.*)"', after["checkpoint"])) == {b"model-2"}
    assert [name for name in after if re.fullmatch(r"model-\d+\.index", name)] == ["model-2.index"]
    assert b'"step": 3' not in after["history.jsonl"]


def test_the_same_seed_gives_the_same_weights_to_the_bit(
    story: Story, starts: dict[str, Done]
) -> None:
    folder, prefix, index = (
        story.toolkit.contents(f"checkpoint/{run}")[f"model-2{DATA}"]
        for run in ("folder", "prefix", "index")
    )
    assert folder == prefix
    assert folder != index  # whose seed was another one


def test_the_validation_loss_is_printed_every_val_every_steps(starts: dict[str, Done]) -> None:
    line = r"^Calculating validation loss\.\.\.\n\[(\d+) \| [\d.]+\] validation loss = \d\.\d\d$"
    assert re.findall(line, starts["fresh"].out, re.MULTILINE) == ["0", "2"]
    assert "validation" not in starts["folder"].out


def test_a_dataset_shorter_than_the_context_window_is_trained_on(starts: dict[str, Done]) -> None:
    out = starts["fresh"].out
    tokens = int(re.search(r"dataset has (\d+) tokens", out)[1])
    assert re.search(rf"shorter than the context window .* {tokens - 1} tokens", out)
    assert "shorter" not in starts["folder"].out


def limit_files() -> None:
    """Limit files to less than the size of a checkpoint, as on a disk that is nearly full."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))


def checkpoints(contents: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """Return the files of a run that resuming depends on."""
    wanted = ("checkpoint", "counter", "model-", "state-")
    return {name: content for name, content in contents.items() if name.startswith(wanted)}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows does not limit the size of files")
def test_on_a_full_disk_training_continues_and_saved_checkpoints_stay(
    story: Story, toolkit: Toolkit
) -> None:
    run = toolkit.root / "checkpoint" / "run1"
    shutil.copytree(story.toolkit.root / "checkpoint" / "run1", run)
    before = toolkit.contents("checkpoint/run1")
    step = int(before["counter"]) + 1
    done = toolkit.run(f"{SAVE_EACH} --max_steps {step + 1}", preexec_fn=limit_files)
    assert steps(done.out) == [step, step + 1]
    first, second, last = done.sentences
    for number, sentence in ((step, first), (step + 1, second)):
        assert re.search(
            rf"run1/model-{number} cannot be written: File too large.*disk space.*"
            rf"checkpoint of step {step - 1}",
            sentence.replace(os.sep, "/"),
        )
    # Only at the end is it an error.
    assert "cannot be written" in last and f"step {step - 1}" not in last
    assert done.code == 1
    assert checkpoints(toolkit.contents("checkpoint/run1")) == checkpoints(before)


@pytest.mark.slow
def test_a_loss_that_is_nan_ends_training_and_only_good_checkpoints_are_kept(
    story: Story, toolkit: Toolkit
) -> None:
    run = toolkit.root / "checkpoint" / "run1"
    shutil.copytree(story.toolkit.root / "checkpoint" / "run1", run)
    before = toolkit.contents("checkpoint/run1")
    last = int(before["counter"])
    # Every step is saved, except the one that made the weights NaN.
    breaking = f"{SAVE_EACH} --optimizer sgd --learning_rate 1e30"
    resumed, new = toolkit.run_all(breaking, f"{breaking} --run_name new")
    other, *changed, broken = resumed.sentences
    assert re.search("another optimizer.*optimizer starts", other)
    for flag, sentence in zip(("optimizer", "learning_rate"), changed, strict=True):
        assert re.search(
            rf"--{flag} changes from \S+ to (sgd|1e\+30) at step {last + 1}\.", sentence
        )
    assert re.search(
        rf"loss .*step {last + 2} .*nan.*batch {last + 1}, chunk .*'.*checkpoint.* step {last}\b",
        broken,
    )
    assert resumed.code == 1
    assert steps(resumed.out) == [last + 1]
    assert checkpoints(toolkit.contents("checkpoint/run1")) == checkpoints(before)
    new.says(1, "loss .*step 2 .*nan.*o checkpoint.*lower --learning_rate")
    assert not list((toolkit.root / "checkpoint" / "new").glob("*.index"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a signal that Windows does not have")
def test_training_is_saved_when_the_reader_of_its_output_is_gone(home: Home) -> None:
    line = TRAIN.replace("--save_every 7", "--save_every 100000 --max_steps 100000 --run_name tee")
    process = home.toolkit.start_with(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while not process.stdout.readline().startswith(b"[5 |"):
            assert process.poll() is None
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        assert wait_for(process) == 0
    finally:
        process.kill()
    [index] = (home.toolkit.root / "checkpoint" / "tee").glob(f"model-*{INDEX}")
    assert int(re.search(r"model-(\d+)", index.name)[1]) >= 5


def ignore_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.skipif(os.name == "nt", reason="sends a signal that Windows does not have")
def test_a_closed_terminal_is_one_request_to_stop_however_many_signals_it_sends(
    toolkit: Toolkit,
) -> None:
    program = """
import os, signal, sys, time
sys.path.insert(0, "src")
from gpt2.commands.signals import StopSignal
with StopSignal("requested") as stop:
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGINT):
        os.kill(os.getpid(), number)
        in_vain = number == signal.SIGHUP and "nohup" in sys.argv
        for _ in range(30 if in_vain else 3000):
            if not stop():
                time.sleep(0.01)
        print(stop(), flush=True)
    time.sleep(0.3)
    print("at work", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    (toolkit.root / "program.py").write_text(program)
    assert toolkit.run("python program.py").out == "True\nTrue\nTrue\nat work\n"
    # Under nohup SIGHUP is ignored; then only Ctrl+C is a request.
    done = toolkit.run("python program.py nohup", preexec_fn=ignore_hangups)
    assert done.code == 130
    assert done.out == "False\nFalse\nTrue\nat work\n"


@pytest.mark.skipif(os.name == "nt", reason="sends a signal that Windows does not have")
def test_ctrl_c_ends_the_process_while_tensorflow_is_imported(toolkit: Toolkit) -> None:
    slow = toolkit.root / "slow" / "tensorflow"
    slow.mkdir(parents=True)
    (slow / "__init__.py").write_text("import time; print('importing', flush=True); time.sleep(99)")
    with toolkit.start(f"PYTHONPATH=slow {TRAIN}") as running:
        running.send_when(signal.SIGINT, lambda: "importing" in running.out)
        running.finish().says(130, "^interrupted$")


def test_a_file_named_checkpoint_is_an_error_before_training(toolkit: Toolkit) -> None:
    (toolkit.root / "checkpoint").write_text("a file")
    before = toolkit.contents()
    done = toolkit.run(TRAIN)
    done.says(1, "checkpoint.run1.* cannot be written")
    assert steps(done.out) == []
    assert toolkit.contents() == before


@pytest.mark.parametrize(
    "words",
    [
        "--dataset a.txt",
        "--dataset 'two words.txt' --run_name 'a b' --learning_rate 1e-05 --val_split 0.1"
        " --val_every 5 --epochs 2.5 --only_train_transformer_layers --seed 0 --top_k 0",
        "--dataset=-odd --memory_saving_gradients=yes --header no --delimiter ';' --wandb it",
    ],
)
def test_the_command_that_resumes_has_the_same_flags(words: str) -> None:
    values = COMMAND.parse([*shlex.split(words), "--restore_from", "fresh"], "train.py")
    program, script, *resumed = shlex.split(_resume_command(values))
    assert (program, script) == ("python", "src/train.py")
    again = COMMAND.parse(resumed, "train.py")
    assert vars(again) == {**vars(values), "restore_from": "latest"}


def test_the_best_checkpoint_is_named_only_if_it_exists(tmp_path: Path) -> None:
    progress = TrainingProgress(1, best_step=3, best_loss=2.5)
    assert _last_line("Finished 5 steps.", RunFolder(tmp_path), progress) == "Finished 5 steps."


def test_a_run_that_ends_before_its_first_step_is_not_offered_for_samples(home: Home) -> None:
    toolkit = home.toolkit
    train = toolkit.run(
        "python src/train.py --dataset text.npz --run_name none --max_minutes 1e-30"
    )
    assert train.code == 0
    assert "at step 0" in train.out and "Sample with" not in train.out
    sample = "python src/generate_unconditional_samples.py --model_name none --nsamples 1"
    toolkit.run(sample).says(1, "This run has not saved a checkpoint yet")


@pytest.mark.slow
def test_a_run_without_its_state_says_what_is_unknown(trained: Toolkit, tmp_path: Path) -> None:
    toolkit = Toolkit(tmp_path / "toolkit")
    shutil.copy(trained.root / "text.npz", toolkit.root)
    for run in ("known", "unknown", "full"):
        folder = toolkit.root / "checkpoint" / run
        shutil.copytree(trained.root / "checkpoint" / "short", folder)
        if run != "full":
            (folder / "state-9.json").unlink()
    config = "checkpoint/{}/config.json"
    seed = json.loads((toolkit.root / config.format("known")).read_text())["calls"][0]["seed"]
    (toolkit.root / config.format("unknown")).unlink()
    (toolkit.root / config.format("full")).unlink()
    (toolkit.root / config.format("full")).mkdir()  # it cannot be written, as on a full disk
    train = "python src/train.py --dataset text.npz --max_steps 10 --run_name"
    known, unknown, full = toolkit.run_all(*(f"{train} {r}" for r in ("known", "unknown", "full")))
    assert any(re.search(rf"seed, {seed}, .*config", line) for line in known.sentences), known
    [told] = [line for line in unknown.sentences if "seed" in line]
    new = json.loads((toolkit.root / config.format("unknown")).read_text())["calls"][0]["seed"]
    assert "unknown" in told and str(new) in told
    [refused] = full.sentences
    assert "config.json" in refused and "Training continues" in refused
    for done in (known, unknown, full):
        assert done.code == 0 and steps(done.out) == [10], done
