"""Closed and full standard streams, hostile names, and a current folder that is gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2.commands.main import VERBS
from gpt2.commands.terminal import notice, print_table, print_values, shown
from tests.commands.toolkit_copy import INDEX, SIZES, Done, Home, Toolkit
from tests.support import waiting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="uses descriptors and names of Unix"),
]

HOSTILE = "e\x1b]0;x\x07\x9b\u202e"  # sets the title of a terminal, and turns text around
UNDECODABLE = os.fsdecode(b"a\xff")
NAMES = ("stdin", "stdout", "stderr")
SAMPLE = "--model_name 117M --length 3 --nsamples 2"
# What each command leaves, and whether its result is standard output.
COMMANDS = {
    "encode text.txt out.npz": ("out.npz", False),
    f"new-model new --dataset text.txt {SIZES}": ("models/new/model.ckpt.index", False),
    "train --dataset text.npz --max_steps 2 --sample_every 2 --sample_length 3": (
        f"checkpoint/run1/model-2{INDEX}",
        False,
    ),
    f"unconditional {SAMPLE}": ("", True),
    f"interactive {SAMPLE}": ("", True),
    f"conditional --prompts prompts.txt {SAMPLE}": ("", True),
    f"conditional --prompts prompts.txt --out out.jsonl {SAMPLE}": ("out.jsonl", False),
    "train --help": ("", False),
    "--version": ("", False),
}


def run(toolkit: Toolkit, line: str, modes: dict[str, str | None], folder: Path) -> Done:
    """Run a command with some of its standard streams closed (None) or replaced."""
    shell = []
    for number, name in enumerate(NAMES):
        arrow = "<" if number == 0 else f"{number}>"
        path = modes.get(name, folder / "prompts.txt" if number == 0 else folder / name)
        shell.append(f"{arrow}&-" if path is None else f'{arrow}"{path}"')
    for name in NAMES[1:]:
        (folder / name).write_text("")
    command = f'"{sys.executable}" -m gpt2 {line} {" ".join(shell)}'
    environment = os.environ | {"PYTHONPATH": str(toolkit.root / "src")}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    code = waiting.wait_for(
        subprocess.Popen(f"exec {command}", shell=True, cwd=folder, env=environment)
    )
    texts = ((folder / name).read_text(errors="replace") for name in NAMES[1:])
    return Done(code, *texts)


@pytest.fixture
def folder(toolkit: Toolkit) -> Path:
    (toolkit.root / "prompts.txt").write_text("The\n")
    return toolkit.root


@pytest.mark.parametrize("line", COMMANDS)
def test_a_stream_that_is_closed_or_full_costs_no_work_and_shows_no_traceback(
    toolkit: Toolkit, folder: Path, line: str
) -> None:
    written, result = COMMANDS[line]
    full = run(toolkit, line, {"stdout": "/dev/full"}, folder)
    if "out.jsonl" in line:
        full.succeeds()  # nothing is printed there
    else:
        full.says(1, r"^Standard output: .*No space left on device")
    assert not written or (folder / written).exists()
    _remove(folder, written)
    no_input: dict[str, str | None] = {} if "interactive" in line else {"stdin": None}
    closed = run(toolkit, line, {**no_input, "stdout": None}, folder)
    if result:
        closed.says(1, "^Standard output: .*closed")
    else:
        closed.succeeds()
    assert not written or (folder / written).exists()
    _remove(folder, written)
    blind = run(toolkit, line, {**no_input, "stderr": "/dev/full" if result else None}, folder)
    assert (blind.code, blind.err) == (0, "") and (blind.out or "out.jsonl" in line)
    assert not written or (folder / written).exists()


def _remove(folder: Path, written: str) -> None:
    shutil.rmtree(folder / "samples", ignore_errors=True)  # earlier samples would be mentioned
    if written:
        path = folder / written
        place = path.parent if path.suffix == ".index" else path
        shutil.rmtree(place) if place.is_dir() else place.unlink()


# One line of each command that ends before TensorFlow is imported, and its exit code.
QUICK = {
    "demo --seed x": 2,
    "download 117M --verify --models_dir gone": 1,
    "encode gone.txt out.npz": 1,
    "tokenize The --model_name gone": 1,
    "new-model new --dataset gone.txt": 1,
    "train --dataset gone.txt": 1,
    "tune --dataset gone.txt": 2,
    "interactive --model_name gone": 1,
    "unconditional --model_name gone": 1,
    "conditional --prompts gone.txt": 1,
    "serve --model_name gone": 1,
    "evaluate perplexity --dataset gone.txt": 1,
    "convert info gone": 1,
    "plot training gone": 1,
    "stories --check gone.txt": 1,
}


@pytest.mark.parametrize("closed", NAMES)
def test_a_closed_stream_changes_no_exit_code_and_shows_no_traceback(
    home: Home, tmp_path: Path, closed: str
) -> None:
    (tmp_path / "prompts.txt").write_text("The\n")
    assert [line.split()[0] for line in QUICK] == list(VERBS)
    for line, code in {**QUICK, "train --help": 0}.items():
        done = run(home.toolkit, line, {closed: None}, tmp_path)
        assert done.code == code, done
        assert done.err.count("\n") == (code > 0 and closed != "stderr"), done


def test_without_any_stream_work_is_done_and_exit_codes_are_kept(
    toolkit: Toolkit, folder: Path
) -> None:
    assert run(toolkit, "encode text.txt out.npz", dict.fromkeys(NAMES), folder).code == 0
    assert (folder / "out.npz").exists()
    assert run(toolkit, "train --x", dict.fromkeys(NAMES), folder).code == 2
    assert run(toolkit, "train --dataset gone", dict.fromkeys(NAMES), folder).code == 1


def test_without_a_console_there_are_no_streams(toolkit: Toolkit) -> None:
    program = """
import sys
sys.stdin = sys.stdout = sys.stderr = None  # as in pythonw
sys.argv[1:] = ["encode", "text.txt", "out.npz"]
from gpt2.commands.main import main
main()
"""
    assert toolkit.run(f"PYTHONPATH=src python -c '{program}'").succeeds().out == ""
    assert (toolkit.root / "out.npz").exists()


def test_a_current_folder_that_is_gone_is_one_sentence(toolkit: Toolkit, folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    program = f'"{sys.executable}" "{toolkit.root}/src/train.py" --dataset x'
    done = waiting.run(["sh", "-c", f"rmdir ../gone && {program}"], cwd=gone)
    Done(done.returncode, done.stdout, done.stderr).says(1, "^The current folder: .*deleted")


def test_names_that_are_not_utf8_are_recorded_as_valid_json(toolkit: Toolkit) -> None:
    text = toolkit.root / f"{UNDECODABLE}.txt"
    text.write_text("One text.\nAnother text.\n")
    flags = "--max_steps 1 --control_code_from filename"
    toolkit.run(f"python src/train.py --dataset '{text.name}' --run_name r {flags}").succeeds()
    content = (toolkit.root / "checkpoint" / "r" / "config.json").read_text("utf-8")
    assert json.loads(content)["calls"][0]["flags"]["dataset"] == text.name
    toolkit.run(f"python src/encode.py '{text.name}' '{UNDECODABLE}.npz'").succeeds()
    assert (toolkit.root / f"{UNDECODABLE}.npz").exists()
    for name in (UNDECODABLE, HOSTILE):
        for line in (
            f"train.py --dataset text.npz --run_name '{name}'",
            f"new_model.py '{name}' --dataset text.txt",
            f"generate_unconditional_samples.py --model_name '{name}'",
        ):
            toolkit.run(f"python src/{line}").says(1, r"\\udcff|\\x1b|name")


@pytest.mark.parametrize(
    "line",
    [
        "encode.py '{}.txt' '{}.npz'",
        "encode.py '{}-gone' x.npz",
        "encode.py text.txt '{}/gone/x.npz'",
        "train.py --dataset '{}-gone'",
        "train.py --dataset text.npz --restore_from '{}'",
        "train.py --dataset text.npz '{}'",
        "train.py --dataset text.npz --optimizer '{}'",
        "train.py --dataset text.npz '--{}'",
        "new_model.py x --dataset '{}'",
        "generate_unconditional_samples.py --model_name '{}'",
        "generate_conditional_samples.py --prompts '{}'",
        "generate_conditional_samples.py --prompts text.txt --shard '{}'",
    ],
)
def test_control_characters_in_names_never_reach_the_terminal(toolkit: Toolkit, line: str) -> None:
    (toolkit.root / f"{HOSTILE}.txt").write_text("One text.")
    done = toolkit.run(f"python src/{line.replace('{}', HOSTILE)}")
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*done.out, *done.err}, done
    assert r"\x1b]0;x\x07\x9b\u202e" in done.out + done.err, done


def test_notices_tables_and_paths_are_escaped(capsys: pytest.CaptureFixture) -> None:
    notice(f"Using {HOSTILE}.")
    print_table(["name", HOSTILE], [[HOSTILE, 1]])
    print_values({"name": HOSTILE})
    print(shown(Path(HOSTILE)))
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert (printed.out.count(r"\x1b]"), printed.err.count(r"\x1b]")) == (4, 1)


def test_tensorflow_shows_as_little_as_was_asked_for(toolkit: Toolkit) -> None:
    program = "from gpt2.commands.signals import load_tensorflow as load; load()"
    line = f'TF_CPP_MIN_LOG_LEVEL=3 PYTHONPATH=src python -c "{program}"'
    toolkit.run(line).succeeds()
