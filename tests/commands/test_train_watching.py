"""The output of a training on a terminal, and its metrics at Weights & Biases."""

from __future__ import annotations

import json
import os
import re
import struct
import threading
from typing import NamedTuple

import pytest

from tests.commands.toolkit_copy import Done, Home
from tests.support.waiting import wait_for

# A stand-in for the package, which writes each call as a line of JSON.
WANDB = """
import json

class Run:
    def init(self, **known):
        self.file = open("wandb.jsonl", "w")
        self.write("init", {name: known[name] for name in ("project", "name")})
        return self

    def write(self, *call):
        self.file.write(json.dumps(call) + chr(10))

    def log(self, values, step):
        self.write("log", step, values)

    def finish(self):
        self.write("finish")
        self.file.close()

init = Run().init
Html = str
"""


class Watched(NamedTuple):
    """A training whose standard error is a terminal."""

    done: Done
    terminal: str
    calls: list[list]  # of the stand-in for wandb


@pytest.fixture(scope="module")
def watched(home: Home) -> Watched:
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    root = home.toolkit.root
    (root / "stand_in").mkdir()
    (root / "stand_in" / "wandb.py").write_text(WANDB)
    ours, theirs = pty.openpty()
    fcntl = pytest.importorskip("fcntl")
    termios = pytest.importorskip("termios")
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 1 << 16):
                parts.append(part)
        except OSError:  # raised by Linux when the other end is closed
            pass

    # Standard output is a file, so that only standard error is the terminal.
    with open(root / "watched.txt", "w") as out:
        running = home.toolkit.start_with(
            "PYTHONPATH=stand_in python src/train.py --dataset text.npz --run_name watched"
            " --max_steps 4 --val_every 2 --val_split 0.2 --val_batch_count 2 --wandb poems"
            " --sample_every 3 --sample_length 3 --seed 1",
            stdout=out,
            stderr=theirs,
        )
    os.close(theirs)
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    code = wait_for(running)
    thread.join()
    os.close(ours)
    calls = [json.loads(line) for line in (root / "wandb.jsonl").read_text().splitlines()]
    done = Done(code, (root / "watched.txt").read_text(encoding="utf-8"), "")
    return Watched(done, b"".join(parts).decode("utf-8"), calls)


@pytest.mark.slow
def test_the_lines_of_2019_are_the_same_with_a_bar_on_the_terminal(watched: Watched) -> None:
    assert watched.done.code == 0, watched
    lines = re.findall(
        r"^\[(\d+) \| \d+\.\d\d\] loss=\d+\.\d\d avg=\d+\.\d\d$", watched.done.out, re.M
    )
    assert lines == ["1", "2", "3", "4"]
    assert "tokens/s" not in watched.done.out


def test_the_status_line_shows_steps_time_left_losses_speed_and_memory(watched: Watched) -> None:
    # such as 3/4 [00:01<00:00, 2.10step/s, loss=5.01 avg=5.10, 1,024 tokens/s, 0.6 GB]
    numbers = r"loss=\d\.\d\d avg=\d\.\d\d, [\d,]+ tokens/s(, \d\.\d GB)?"
    bar = rf"\d/4 \[\d\d:\d\d<[\d:?]+, +[\d.?]+(step/s|s/step), {numbers}\]"
    assert re.search(bar, watched.terminal), watched.terminal


def test_wandb_receives_the_metrics_of_the_history(home: Home, watched: Watched) -> None:
    assert watched.calls[0] == ["init", {"project": "poems", "name": "watched"}]
    assert watched.calls[-1] == ["finish"]
    history = home.toolkit.root / "checkpoint" / "watched" / "history.jsonl"
    expected = [json.loads(line) for line in history.read_text().splitlines()]
    logged = [{"step": call[1], **call[2]} for call in watched.calls[1:-1]]
    assert [entry for entry in logged if "samples" not in entry] == expected
    (samples,) = [entry for entry in logged if "samples" in entry]
    assert samples["step"] == 3
    assert "======== SAMPLE 1 ========" in samples["samples"]


def test_the_sizes_of_the_training_are_printed_before_the_first_step(watched: Watched) -> None:
    out = watched.done.out
    tokens, held_out = (
        int(re.search(pattern, out)[1])
        for pattern in (r"dataset has (\d+) tokens", r"validation set has (\d+) tokens")
    )
    assert held_out / (tokens + held_out) == pytest.approx(0.2, abs=0.01)
    assert re.search(r"^One epoch: [\d,]+ steps of 1 x 32 tokens$", out, re.M)
    assert re.search(r"^Training all 8,624 parameters.* \d+\.\d GB$", out, re.M)
    assert out.index("One epoch") < out.index("Training...") < out.index("[1 |")


def test_the_last_lines_name_the_best_checkpoint_and_the_command_that_samples(
    watched: Watched,
) -> None:
    best, sample = watched.done.out.splitlines()[-2:]
    assert re.search(r"\b4 steps.*checkpoint.watched.best.*validation loss \d\.\d\d", best)
    assert sample.endswith(" src/interactive_conditional_samples.py --model_name watched/best")


def test_a_missing_wandb_is_an_error_before_tensorflow_is_imported(
    home: Home, no_tensorflow: str
) -> None:
    hides = home.toolkit.root / "hides"
    hides.mkdir()
    (hides / "wandb.py").write_text("raise ImportError('not installed')")
    path = no_tensorflow + os.pathsep + str(hides)
    done = home.toolkit.run(f"{path} python src/train.py --dataset text.npz --wandb poems")
    done.says(1, r"wandb .*not installed.*: pip install wandb")


def test_a_notice_says_that_val_dataset_without_val_every_is_ignored(
    home: Home, no_tensorflow: str
) -> None:
    line = "python src/train.py --dataset text.npz --run_name unused --val_dataset text.npz"
    done = home.toolkit.run(f"{no_tensorflow} {line}")
    assert re.search("--val_dataset .*without --val_every", done.sentences[0])


def test_a_run_of_another_model_is_an_error_before_tensorflow_is_imported(
    home: Home, no_tensorflow: str
) -> None:
    run = home.toolkit.root / "checkpoint" / "other"
    run.mkdir(parents=True)
    hparams = (home.toolkit.root / "models" / "117M" / "hparams.json").read_text()
    other = hparams.replace('"n_ctx": 32', '"n_ctx": 33')
    assert other != hparams
    (run / "hparams.json").write_text(other)
    line = "python src/train.py --dataset text.npz --run_name other --model_name 117M"
    done = home.toolkit.run(f"{no_tensorflow} {line}")
    done.says(1, r"other\b.* hparams\.json .*117M")
    assert [path.name for path in run.iterdir() if path.name != "lock"] == ["hparams.json"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--batch_size 0", "batch_size"),
        ("--epochs 0", "--epochs must be .*above 0, not 0"),
        ("--max_minutes -1", "--max_minutes must be .*above 0, not -1"),
        ("--max_minutes nan", "--max_minutes must be .*above 0, not nan"),
        ("--patience 0 --val_every 5 --val_split 0.1", "patience"),
        ("--patience 3", "patience .*val_every"),
        ("--patience 3 --val_every 5", "patience .*val_split.*val_dataset"),
        ("--val_split 0.1", "--val_split needs --val_every"),
        ("--val_split 1 --val_every 5", "--val_split must be .*above 0 and below 1, not 1"),
        ("--val_split 0.1 --val_every 5 --val_dataset text.npz", "--val_split .*--val_dataset"),
        ("--lr_schedule cosine", "lr_schedule cosine .*max_steps"),
        ("--train_layers 5", "train_layers.* layer 5\\b.* 0 to 0"),
    ],
)
def test_flags_that_contradict_each_other_or_the_model_are_an_error(
    home: Home, no_tensorflow: str, flags: str, sentence: str
) -> None:
    line = f"{no_tensorflow} python src/train.py --dataset text.npz --run_name senseless {flags}"
    home.toolkit.run(line).says(1, sentence)
    assert not (home.toolkit.root / "checkpoint" / "senseless").exists()


@pytest.mark.slow
def test_a_resumed_run_names_changed_flags_and_both_learning_rates(home: Home) -> None:
    train = "python src/train.py --dataset text.npz --run_name changed"
    line = f"{train} --lr_schedule cosine --lora_rank 2"
    home.toolkit.run(f"{line} --learning_rate 1e-3 --max_steps 2").succeeds()
    done = home.toolkit.run(
        f"{line} --learning_rate 1e-3 --max_steps 4 --batch_size 2 --lora_alpha 16"
    )
    assert done.code == 0, done
    size, alpha, rate = done.sentences
    assert "--batch_size changes from 1 to 2 at step 3" in size
    assert re.search(r"--lora_alpha 16: .* 32, which stays", alpha)
    assert re.search(r"0\.0005 at step 2 to 0\.0005 at step 3.* to step 4.* to step 2\.", rate)
    run = home.toolkit.root / "checkpoint" / "changed"
    first, second = json.loads((run / "config.json").read_text())["calls"]
    assert first["flags"]["lora_alpha"] == second["flags"]["lora_alpha"] == 32
    facts = json.loads((run / "state-4.json").read_text())["facts"]
    assert facts["examples"] == 2 * 1 + 2 * 2
    # The same flags again: there is nothing to say.
    same = f"{line} --learning_rate 1e-3 --max_steps 4 --batch_size 2 --lora_alpha 32"
    home.toolkit.run(same).succeeds()
