"""`tune`: a real study, and studies whose trainings are a stand-in that takes no time."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial

from gpt2.checkpoint.folder import ModelFolder
from gpt2.commands import train
from gpt2.errors import UserError
from gpt2.tuning.space import parse_dimension
from gpt2.tuning.study import GRACE, HOST, WAITS, Study, load_optuna
from tests.commands.toolkit_copy import Done, Home, Toolkit

pytestmark = pytest.mark.slow

TUNE = "python src/tune.py --dataset text.npz --model_name 117M --max_steps 20 --val_every 5"
RATES = "--learning_rate 1e-5..1e-1"
STAND_IN = Path(__file__).with_name("stand_in_training.py")


def trials(toolkit: Toolkit, name: str = "study") -> list[FrozenTrial]:
    """Return the trials of a study as Optuna itself reads them."""
    study = optuna.load_study(
        study_name=name, storage=f"sqlite:///{toolkit.root}/checkpoint/{name}.db"
    )
    return study.get_trials()


def states(toolkit: Toolkit) -> list[str]:
    return [trial.state.name for trial in trials(toolkit)]


def starts(toolkit: Toolkit) -> list[str]:
    return (toolkit.root / "starts").read_text().splitlines()


def files_of(toolkit: Toolkit, run: str) -> set[str]:
    return {path.name for path in (toolkit.root / "checkpoint" / run).iterdir()}


# --- a real study ---


class RealStudy(NamedTuple):
    """A study of three real trainings."""

    toolkit: Toolkit
    done: Done
    command: str


@pytest.fixture(scope="module")
def real(home: Home, tmp_path_factory: pytest.TempPathFactory) -> RealStudy:
    toolkit = Toolkit(tmp_path_factory.mktemp("tune") / "toolkit")
    shutil.copytree(home.toolkit.root / "models" / "117M", toolkit.root / "models" / "117M")
    shutil.copy(home.toolkit.root / "text.npz", toolkit.root)
    command = f"{TUNE} --val_batch_count 2 --trials 2 {RATES} --batch_size 1,2"
    return RealStudy(toolkit, toolkit.run(command), command)


def history(toolkit: Toolkit, run: str) -> list[float]:
    lines = (toolkit.root / "checkpoint" / run / "history.jsonl").read_text().splitlines()
    return [entry["val_loss"] for entry in map(json.loads, lines) if "val_loss" in entry]


def test_each_trial_is_a_run_whose_lowest_validation_loss_is_its_result(real: RealStudy) -> None:
    real.done.succeeds()
    found = trials(real.toolkit)
    assert [trial.state.name for trial in found] == ["COMPLETE", "COMPLETE"]
    for trial in found:
        run = f"study-{trial.number}"
        assert trial.value == min(history(real.toolkit, run))
        assert sorted(trial.intermediate_values) == [5, 10, 15, 20]
        config = json.loads((real.toolkit.root / "checkpoint" / run / "config.json").read_text())
        flags = config["calls"][0]["flags"]
        assert {name: flags[name] for name in trial.params} == trial.params


def test_only_the_best_trial_keeps_its_checkpoints(real: RealStudy) -> None:
    best, loser = sorted(trials(real.toolkit), key=lambda trial: trial.value)
    assert {"model-20.index", "best"} <= files_of(real.toolkit, f"study-{best.number}")
    left = files_of(real.toolkit, f"study-{loser.number}")
    assert {"config.json", "history.jsonl"} <= left
    assert not any("model" in name or "state" in name for name in left | {"best"} & left)


def test_the_table_and_the_best_command_are_printed(real: RealStudy) -> None:
    best, loser = sorted(trials(real.toolkit), key=lambda trial: trial.value)
    rows = re.findall(r"^study-(\d) +([\d.]+) +finished", real.done.out, re.MULTILINE)
    assert [(int(number), loss) for number, loss in rows] == [
        (trial.number, f"{trial.value:.4f}") for trial in (best, loser)
    ]
    words = shlex.split(re.search(r"python src/train\.py (.*)", real.done.out)[1])
    values = train.COMMAND.parse(words, "train.py")
    assert {name: getattr(values, name) for name in best.params} == best.params
    assert (values.run_name, values.seed, values.max_steps) == ("study-best", 1, 20)


@pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="needs matplotlib")
def test_the_history_is_plotted(real: RealStudy) -> None:
    picture = (real.toolkit.root / "checkpoint" / "study-history.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_a_study_that_is_complete_only_shows_its_results(real: RealStudy) -> None:
    again = real.toolkit.run(real.command).succeeds()
    assert "Trial " not in again.out
    assert "Best trial: study-" in again.out
    assert len(trials(real.toolkit)) == 2


# --- studies with a stand-in ---


@pytest.fixture
def quick(toolkit: Toolkit) -> Toolkit:
    """A toolkit whose trainings are the stand-in, and which draws no plots."""
    shutil.copy(STAND_IN, toolkit.root / "src" / "gpt2" / "__main__.py")
    # Importing matplotlib takes longer than the rest; the real study tests the plots.
    plots = toolkit.root / "src" / "gpt2" / "tuning" / "plots.py"
    plots.write_text("def save_plots(study, stem):\n    return []\n")
    return toolkit


def test_a_trial_above_the_median_is_pruned(quick: Toolkit) -> None:
    done = quick.run(f"{TUNE} {RATES} --trials 6").succeeds()
    assert states(quick) == ["COMPLETE"] * 4 + ["PRUNED"] * 2
    assert len(re.findall(r"^study-[45] .* pruned", done.out, re.MULTILINE)) == 2


def test_the_search_depends_on_the_seed_only(quick: Toolkit) -> None:
    quick.run(f"{TUNE} {RATES} --trials 3 --study first").succeeds()
    quick.run(f"{TUNE} {RATES} --trials 1 --study second").succeeds()
    quick.run(f"{TUNE} {RATES} --trials 3 --study second").succeeds()
    first, second = (
        [trial.params for trial in trials(quick, name)] for name in ("first", "second")
    )
    assert first == second
    assert len({each["learning_rate"] for each in first}) == 3


@pytest.mark.skipif(os.name == "nt", reason="sends signals that Windows does not have")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_trial_which_the_same_command_resumes(
    quick: Toolkit, number: signal.Signals
) -> None:
    hold = quick.root / "hold"
    hold.touch()
    with quick.start(f"{TUNE} {RATES} --trials 2") as running:
        running.send_when(number, lambda: "[10]" in running.out)
        done = running.finish()
    assert done.code == 130
    assert "the current trial is saved" in done.err
    assert states(quick) == ["RUNNING"]
    hold.unlink()
    done = quick.run(f"{TUNE} {RATES} --trials 2").succeeds()
    assert "Trial 0 (resumed): " in done.out
    assert states(quick) == ["COMPLETE", "COMPLETE"]
    assert starts(quick) == ["study-0 0", "study-0 10", "study-1 0"]


def test_minutes_end_the_call_and_keep_the_trial(quick: Toolkit) -> None:
    (quick.root / "hold").touch()
    done = quick.run(f"{TUNE} {RATES} --minutes 0.02").succeeds()
    assert re.search(r"^study-0 +unfinished", done.out, re.MULTILINE)
    (quick.root / "hold").unlink()
    done = quick.run(f"{TUNE} {RATES} --trials 1").succeeds()
    assert "Trial 0 (resumed)" in done.out
    assert re.search(r"^study-0 .*finished", done.out, re.MULTILINE)


@pytest.mark.skipif(os.name == "nt", reason="locks are not inherited")
def test_a_killed_study_loses_nothing(quick: Toolkit) -> None:
    hold, lock = quick.root / "hold", quick.root / "checkpoint" / "study-0" / "trial.lock"
    hold.touch()
    with quick.start(f"{TUNE} {RATES} --trials 2") as running:
        running.wait_until(lambda: "[10]" in running.out)
        running.process.kill()
        running.process.wait()
    wait_for_lock(lock)  # the training saves and ends by itself
    hold.unlink()
    quick.run(f"{TUNE} {RATES} --trials 2").succeeds()
    assert states(quick) == ["COMPLETE", "COMPLETE"]
    assert starts(quick) == ["study-0 0", "study-0 10", "study-1 0"]


def wait_for_lock(path: Path) -> None:
    import fcntl

    def give_up(*_: object) -> None:
        raise AssertionError("the training of a killed study does not end")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_several_processes_share_a_study(quick: Toolkit) -> None:
    command = f"{TUNE} {RATES} --trials 4 --noprune"
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(quick.run, [command] * 3))
    assert [each.code for each in done] == [0, 0, 0], done
    begun = [line.split()[0] for line in starts(quick)]
    assert sorted(begun) == sorted(set(begun))  # no trial is trained twice
    assert states(quick).count("COMPLETE") == len(begun) == 4


@pytest.mark.filterwarnings("ignore:.*[Hh]eartbeat")
def test_a_study_of_another_machine_that_is_gone_is_run_again(quick: Toolkit) -> None:
    quick.run(f"{TUNE} {RATES} --trials 1").succeeds()
    url = f"sqlite:///{quick.root}/checkpoint/study.db"
    storage = optuna.storages.RDBStorage(url, heartbeat_interval=60)
    study = optuna.load_study(study_name="study", storage=storage)
    lost = study.ask()
    rate = lost.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    lost.set_user_attr(HOST, "elsewhere:/checkpoint")
    storage.record_heartbeat(lost._trial_id)
    with sqlalchemy.create_engine(url).begin() as connection:
        before = datetime.datetime.now() - datetime.timedelta(days=2)
        connection.execute(
            sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = :before"), {"before": before}
        )
    assert GRACE < 2 * 24 * 3600
    quick.run(f"{TUNE} {RATES} --trials 2").succeeds()
    found = trials(quick)
    assert [trial.state.name for trial in found] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert found[2].params["learning_rate"] == rate


def test_all_trials_failing_is_an_error_that_quotes_the_last(quick: Toolkit) -> None:
    (quick.root / "diverge").touch()
    done = quick.run(f"{TUNE} {RATES} --trials 2")
    assert done.code == 1
    assert re.search(r"All 2 trials failed.*Training diverged", done.sentences[-1])
    assert starts(quick) == ["study-0 0", "study-1 0"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_trial_that_is_killed_fails_alone(quick: Toolkit) -> None:
    (quick.root / "die-0").touch()
    done = quick.run(f"{TUNE} {RATES} --trials 2")
    assert done.code == 0
    assert "killed by signal 9" in done.err
    assert states(quick) == ["FAIL", "COMPLETE"]


def test_a_training_that_cannot_start_ends_the_study_with_its_sentence(quick: Toolkit) -> None:
    (quick.root / "refuse").touch()
    quick.run(f"{TUNE} {RATES} --trials 2").says(1, r"^Trial 0 cannot start\. text\.npz: not a")
    (quick.root / "refuse").unlink()
    quick.run(f"{TUNE} {RATES} --trials 2").succeeds()
    assert states(quick) == ["FAIL", "COMPLETE", "COMPLETE"]  # the first one does not count


def test_another_search_space_or_dataset_is_refused_and_named(quick: Toolkit) -> None:
    quick.run(f"{TUNE} {RATES} --trials 1").succeeds()
    for flags, said in {
        "--learning_rate 1e-4..1e-1": r"--learning_rate 1e-05\.\.0\.1, not 0\.0001\.\.0\.1",
        f"{RATES} --dropout 0..0.2": r"--dropout 0, not 0\.\.0\.2",
        f"{RATES} --optimizer adamw": "--optimizer adam, not adamw",
        f"{RATES} --seed 2": "--seed 1, not 2",
    }.items():
        quick.run(f"{TUNE} {flags} --trials 2").says(1, f"another search space: {said}")
    quick.run(f"{TUNE} {RATES} --trials 2 --save_every 10").succeeds()


def test_another_text_or_model_of_the_same_name_is_refused(quick: Toolkit) -> None:
    quick.run(f"{TUNE} {RATES} --trials 1").succeeds()
    for name, path in {
        "dataset": quick.root / "text.npz",
        "model_name": quick.root / "models" / "117M" / "model.ckpt.index",
    }.items():
        before = path.read_bytes()
        path.unlink()  # perhaps a link to a file that tests share
        path.write_bytes(before + b"changed")
        quick.run(f"{TUNE} {RATES} --trials 2").says(1, rf"--{name} \(fingerprint\) \w{{12}}, not")
        path.write_bytes(before)
    quick.run(f"{TUNE} {RATES} --trials 2").succeeds()


def test_runs_that_are_not_of_the_study_are_not_continued(quick: Toolkit) -> None:
    (quick.root / "checkpoint" / "study-0").mkdir(parents=True)
    done = quick.run(f"{TUNE} {RATES} --trials 1")
    done.says(1, r"study-0 is a run of another study.*--study")
    assert not (quick.root / "checkpoint" / "study.db").exists()


def test_losses_of_different_vocabularies_are_compared_per_byte(quick: Toolkit) -> None:
    flags = "--dataset text.txt --val_dataset text.txt --n_vocab 260,280 --learning_rate 1e-3"
    done = quick.run(f"{TUNE.replace('--dataset text.npz', flags)} --trials 2").succeeds()
    text = (quick.root / "text.txt").read_text(encoding="utf-8")
    for trial in trials(quick):
        folder = f"study-vocabulary-{trial.params['n_vocab']}"
        model = ModelFolder(quick.root / "models" / folder)
        assert model.hparams.n_vocab == trial.params["n_vocab"]
        per_byte = len(model.tokenizer().encode(text)) / len(text.encode())
        assert trial.value == pytest.approx((2 - 20 / 1000) * per_byte, rel=1e-3)
    assert "loss per byte" in done.out


# --- wrong command lines ---


WRONG = {
    f"{RATES}": "--trials N or --minutes N",
    "--learning_rate 1e-4 --trials 1": "a list or a range",
    "--learning_rate 1e-3..1e-5 --trials 1": "--learning_rate must be a number, a list .*range",
    "--learning_rate fast --trials 1": "--learning_rate must be a number, a list .*'fast'",
    "--batch_size 1,2.5 --trials 1": "--batch_size must be a whole number, a list .*'1,2.5'",
    "--batch_size 1,1 --trials 1": "--batch_size must be a whole number",
    "--val_every 0 --trials 1": "--val_every must be at least 1",
    "--n_vocab 300,400 --trials 1": "--n_vocab needs --val_dataset",
    "--trials 1 --run_name mine": "there is no flag --run_name",
}
REFUSED = {
    "--batch_size 0..4 --trials 1": "--batch_size must be a whole number at least 1, not 0",
    "--dropout 0..1 --trials 1": "--dropout must be a number .*below 1, not 1",
    "--trials 0": "--trials must be a whole number at least 1",
    "--lr_schedule linear --warmup_steps 0..20 --trials 1": "warmup_steps .20. must be below",
    "--val_every 50 --trials 1": "--val_every 50: a training of 20 steps",
    "--trials 1 --study a/b": "'a/b' is not a valid name",
    "--trials 1 --dataset missing.txt": "missing.txt",
    "--trials 1 --model_name nobody": "no model 'nobody'",
    "--trials 1 --storage nonsense": "--storage 'nonsense': .*cannot be used",
    "--trials 1 --storage nonsense://x": "nonsense://x: .*cannot be used",
}


def with_flags(flags: str) -> str:
    """Return the command with these flags instead of its own."""
    line = TUNE
    for name in re.findall(r"--\w+", flags):
        line = re.sub(rf" {name} \S+", "", line)
    return f"{line} {flags}"


@pytest.fixture
def answers(home: Home, no_tensorflow: str) -> Callable[[list[str]], list[Done]]:
    """Return a function that runs commands where TensorFlow cannot be imported."""

    def run(commands: list[str]) -> list[Done]:
        lines = [f"{no_tensorflow} {with_flags(flags)}" for flags in commands]
        return home.toolkit.run_in_one_process(*lines)

    return run


def test_wrong_command_lines_are_usage_errors(answers: Callable) -> None:
    for done, said in zip(answers(list(WRONG)), WRONG.values(), strict=True):
        done.says(2, f"^tune.py: .*{said}")


def test_bad_values_and_files_are_refused_in_one_sentence(answers: Callable) -> None:
    for done, said in zip(answers(list(REFUSED)), REFUSED.values(), strict=True):
        done.says(1, said)


def test_without_optuna_the_command_to_install_it_is_named(home: Home, tmp_path: Path) -> None:
    (tmp_path / "optuna.py").write_text("raise ImportError('No module named optuna')")
    home.toolkit.run(f"PYTHONPATH={tmp_path} {TUNE} {RATES} --trials 1").says(
        1, "package optuna.*pip install 'optuna"
    )


# --- storage that goes away ---


def open_study(folder: Path, sleep: Callable[[float], object]) -> Study:
    load_optuna()
    space = {"learning_rate": parse_dimension("1e-5..1e-3", float)}
    return Study("study", None, folder, space, {}, sleep=sleep)


def test_storage_that_comes_back_is_used_again(tmp_path: Path) -> None:
    database, aside = tmp_path / "study.db", tmp_path / "aside"
    waits: list[float] = []

    def come_back(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            aside.rename(database)

    study = open_study(tmp_path, come_back)
    with study.next_trial(1) as claimed:
        trial, _ = claimed
        study.report(trial, 5, 3.0)
        database.rename(aside)
        study.finish(trial, 2.5)
    assert waits == list(WAITS[:2])
    assert study.best().value == 2.5


def test_storage_that_stays_away_is_reported_and_the_trial_is_resumed_later(
    tmp_path: Path,
) -> None:
    database, aside = tmp_path / "study.db", tmp_path / "aside"
    study = open_study(tmp_path, lambda seconds: None)
    with study.next_trial(1) as claimed:
        first = claimed[0]
        database.rename(aside)
        with pytest.raises(UserError, match=r"study\.db.*the same command resumes"):
            study.finish(first, 2.5)
    assert not database.exists()  # SQLite would have created an empty one
    aside.rename(database)
    again = open_study(tmp_path, lambda seconds: None)
    with again.next_trial(1) as claimed:
        trial = claimed[0]
        assert (trial.number, trial.resumed, trial.parameters) == (0, True, first.parameters)
        again.finish(trial, 2.5)
    assert [each.state.name for each in again.counted()] == ["COMPLETE"]


def test_a_file_that_is_not_a_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"text" * 1000)
    waits: list[float] = []
    with pytest.raises(UserError, match=r"study\.db.*not a database"):
        open_study(tmp_path, waits.append)
    assert waits == []
