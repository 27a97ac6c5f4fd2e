"""The toolkit in a process that looks like Windows; see `tests/support/windows`.

It is not Windows: paths, the console and TensorFlow stay those of Linux.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2 import workspace
from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.stories.grammar import write_stories
from tests.commands.toolkit_copy import Done

ROOT = Path(__file__).resolve().parent.parent
DISGUISE = ROOT / "tests" / "support" / "windows"
SIZES = "--n_vocab 300 --n_ctx 32 --n_embd 16 --n_head 2 --n_layer 1 --seed 1"
TRAIN = "train --dataset text.npz --model_name small --save_every 1 --val_split 0.1 --val_every 1"
SAMPLE = "unconditional --model_name back --nsamples 1 --length 5 --seed 1"
END = "\n--- end ---\n"
ALL_IN_ONE = f"""
import sys
from gpt2.commands.main import main
lines = sys.argv[1:]
for line in lines:
    sys.argv[1:] = line.split()
    try:
        main()
    except SystemExit as exit:
        if exit.code:
            raise
    print(end={END!r})
"""
IMPORT_EVERYTHING = """
import importlib, pkgutil, gpt2
names = [found.name for found in pkgutil.walk_packages(gpt2.__path__, "gpt2.")]
for name in names:
    importlib.import_module(name)
from gpt2 import locks
assert (locks.os.name, locks.sys.platform) == ("nt", "win32")
print(len(names))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="looks into /proc for open files"
    ),
]


def python(folder: Path, *words: str, windows: bool = True) -> Done:
    """Run Python in a folder."""
    paths = [str(DISGUISE)] * windows + [str(ROOT / "src")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, timeout=300
    )
    return Done(process.returncode, process.stdout.decode(), process.stderr.decode())


def gpt2(folder: Path, *lines: str, windows: bool = True, then: str = "") -> list[str]:
    """Run commands, then a script, in one process; return the output of each."""
    done = python(folder, "-c", ALL_IN_ONE + then, *lines, windows=windows)
    assert done.code == 0, done
    return done.out.split(END)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The way from text to samples: its folder, and the output of each command."""
    folder = tmp_path_factory.mktemp("windows")
    text = "\n".join(write_stories(60, seed=4)) + "\nnaïve émigrés 東京\n"
    for name in ("models", "texts"):
        (folder / name).mkdir()
    (folder / "texts" / "a.txt").write_text(text, encoding="utf-8")
    (folder / "texts" / "b.txt").write_text(text[:999], encoding="utf-8", newline="\r\n")
    lines = (
        f"new-model small --dataset texts {SIZES}",
        "encode texts text.npz --model_name small --combine 500 --workers 2",
        f"{TRAIN} --max_steps 2 --sample_every 1 --sample_length 5",
        f"{TRAIN} --max_steps 3",
        "convert to_hf run1/best out",
        "convert to_hf run1/best out --overwrite",
        "convert from_hf out models/back",
        SAMPLE,
        "evaluate perplexity --model_name back --dataset texts/b.txt",
        "conditional --model_name back --prompts texts/b.txt --length 1 --out samples.jsonl",
        "conditional --model_name back --prompts texts/b.txt --length 1 --out samples.jsonl",
        f"{TRAIN} --max_steps 4 --export kept",
        f"{TRAIN} --max_steps 4 --export kept --overwrite",
        f"{TRAIN} --max_steps 1 --restore_from fresh --run_name run2",
        f"{TRAIN} --max_steps 1 --restore_from fresh --run_name run2",
    )
    return folder, gpt2(folder, *lines, then=IMPORT_EVERYTHING)


def test_every_module_is_imported(flow: tuple[Path, list[str]]) -> None:
    *_, modules = flow[1]
    assert int(modules) > 150


def test_the_disguise_refuses_what_windows_refuses(tmp_path: Path) -> None:
    script = """
import os, pathlib, tempfile
for name in ("aux", "NUL.txt", "a:b", "a?", "end."):
    try:
        open(name, "w")
    except OSError:
        continue
    raise SystemExit(f"{name} was made")
pathlib.Path("text").write_text("a\\n")
assert pathlib.Path("text").read_bytes() == b"a\\r\\n"
pathlib.Path("other").touch()
file = open("text")
for call in (
    lambda: os.unlink("text"), lambda: os.replace("other", "text"),
    lambda: pathlib.Path("text").unlink(), lambda: os.rename("text", "new"),
):
    try:
        call()
    except PermissionError:
        continue
    raise SystemExit("an open file was changed")
file.close()
os.unlink("text")
"""
    done = python(tmp_path, "-c", script)
    assert done.code == 0, done


def test_the_tokens_and_texts_are_those_of_linux(flow: tuple[Path, list[str]]) -> None:
    folder, shown = flow
    encode = "encode texts again.npz --model_name small --combine 500 --workers 1"
    _, sample, _ = gpt2(folder, encode, SAMPLE, windows=False)
    with np.load(folder / "text.npz") as first, np.load(folder / "again.npz") as second:
        assert first.files == second.files
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name])
    assert "SAMPLE 1" in sample
    assert sample in shown


def test_a_training_is_resumed_and_its_files_are_whole(flow: tuple[Path, list[str]]) -> None:
    run = flow[0] / "checkpoint" / "run1"
    history = (run / "history.jsonl").read_bytes()
    assert b"\r" not in history
    lines = [json.loads(line) for line in history.splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    for name in ("checkpoint", "counter", "hparams.json", "vocab.bpe"):
        assert b"\r" not in (run / name).read_bytes(), name
    assert (run / "counter").read_text() == "4\n"
    folders = (run / "best", flow[0] / "models" / "kept")
    best, back = (ModelFolder(path).weights() for path in folders)
    for name, values in best.items():
        np.testing.assert_array_equal(values, back[name])


def test_nothing_is_left_over(flow: tuple[Path, list[str]]) -> None:
    names = [path.name for path in flow[0].rglob("*")]
    assert [name for name in names if name.endswith((".partial", ".old", "unfinished"))] == []


def test_a_second_training_of_a_run_is_refused(flow: tuple[Path, list[str]]) -> None:
    script = """
from pathlib import Path
from gpt2 import locks
from gpt2.__main__ import main
with locks.run_lock(Path("checkpoint/run1")):
    main()
"""
    done = python(flow[0], "-c", script, *TRAIN.split())
    assert done.code == 1, done
    assert "run1" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "name", ["con", "NUL", "aux.txt", "Com1", "lpt9.a.b", "prn ", "a:b", "a?", "end.", "CONIN$"]
)
def test_names_that_windows_refuses_are_refused_everywhere(name: str) -> None:
    assert not workspace.is_plain_name(name)
    with pytest.raises(UserError, match="not a valid name for a run"):
        workspace.check_name(name, "run")


@pytest.mark.parametrize("name", ["console", "aux1", "com10", "nullable", "my.con", "run1"])
def test_names_that_only_resemble_devices_are_accepted(name: str) -> None:
    assert workspace.is_plain_name(name)


def test_a_command_to_type_is_quoted_as_cmd_reads_it(tmp_path: Path) -> None:
    script = "from gpt2.commands.terminal import as_typed; print(as_typed(['a b', 'c']))"
    assert python(tmp_path, "-c", script).out.strip() == '"a b" c'
    assert python(tmp_path, "-c", script, windows=False).out.strip() == "'a b' c"
