"""`demo` with few steps: what it prints, what it writes, and what it never replaces."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from gpt2 import locks
from gpt2.commands.chart import draw_curve
from gpt2.commands.demo import MARKER
from gpt2.commands.main import VERBS
from gpt2.workspace import command_line
from tests.commands.toolkit_copy import REPOSITORY, Done, Home, Toolkit

STEPS = 12
DEMO = f"PYTHONPATH=src python -m gpt2 demo --steps {STEPS} --stories 120 --samples 5"


class Demo(NamedTuple):
    """A finished demo."""

    toolkit: Toolkit
    done: Done

    @property
    def root(self) -> Path:
        return self.toolkit.root


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    toolkit = Toolkit(tmp_path_factory.mktemp("demo") / "toolkit")
    return Demo(toolkit, toolkit.run(DEMO).succeeds())


def test_the_lines_of_2019_are_in_the_log_and_few_lines_on_the_screen(demo: Demo) -> None:
    log = (demo.root / "demo" / "log.txt").read_text(encoding="utf-8")
    steps = re.findall(r"^\[(\d+) \| [\d.]+\] loss=[\d.]+ avg=[\d.]+$", log, re.MULTILINE)
    assert list(map(int, steps)) == list(range(1, STEPS + 1))
    shown = re.findall(
        r"^step +(\d+) of 12 +\d+ s  loss \d\.\d\d  [\d,]+ tokens/s$", demo.done.out, re.MULTILINE
    )
    assert shown[-1] == str(STEPS)
    assert "loss=" not in demo.done.out


def test_a_curve_a_sample_of_each_kind_and_a_verdict_are_shown(demo: Demo) -> None:
    out = demo.done.out
    assert len(re.findall(r"^ *(?:\d+\.\d\d)? │", out, re.MULTILINE)) == 8
    samples = out.partition("first sample of each kind")[2].partition("Well-formed")[0]
    assert re.findall(r"^  (<\|\w+\|>)$", samples, re.MULTILINE) == [
        "<|bedtime|>",
        "<|adventure|>",
        "<|fable|>",
    ]
    assert re.search(r"^Well-formed .*: [0-5] of 5 \(\d+%\)$", out, re.MULTILINE)
    assert re.search(r"^Not in the training text: 5 of 5 \(100%\)$", out, re.MULTILINE)
    [verdict] = re.findall(r"^A bigram model .*$", out, re.MULTILINE)
    assert re.search(r" \d+ of 200 \(\d+%\) .* \d+\.\d tokens .* \d+\.\d\d\.$", verdict)


def test_the_commands_that_are_printed_exist_and_run(demo: Demo) -> None:
    lines = re.findall(r"^(?:\$ |  )(python \S+\.py .*)$", demo.done.out, re.MULTILINE)
    verbs = {command_line(verb): verb for verb in VERBS}
    found = []
    for line in lines:
        words = shlex.split(line)
        found.append(verbs[" ".join(words[:2])])
        command = VERBS[found[-1]].load()
        command.parse(words[2:], "test")  # raises UsageError for a flag that does not exist
    assert found == ["new-model", "train", "conditional", "unconditional", "tokenize", "new-model"]
    for done in demo.toolkit.run_all(*lines[2:5]):
        assert done.code == 0, done
        assert done.out


def test_what_the_demo_did_not_write_is_never_replaced(home: Home, no_tensorflow: str) -> None:
    for name in ("demo", "models/demo-start", "checkpoint/demo"):
        folder = home.toolkit.root / name
        folder.mkdir(parents=True)
        (folder / "mine.txt").write_text("mine")
        done = home.toolkit.run(DEMO.replace("PYTHONPATH=", f"{no_tensorflow}:"))
        done.says(1, rf"^{name}: not written by the demo\. Rename it")
        assert [path.name for path in folder.iterdir()] == ["mine.txt"]
        (folder / "mine.txt").unlink()
        folder.rmdir()


def test_a_demo_or_training_that_is_running_is_left_alone(home: Home, no_tensorflow: str) -> None:
    root = home.toolkit.root
    samples = root / "samples" / "demo"
    samples.mkdir(parents=True)
    (samples / "mine.txt").write_text("mine")
    for name in ("demo", "checkpoint/demo"):
        folder = root / name
        folder.mkdir(parents=True)
        (folder / MARKER).write_text("")
        with locks.run_lock(folder):
            done = home.toolkit.run(DEMO.replace("PYTHONPATH=", f"{no_tensorflow}:"))
        done.says(1, "Another training is running in .*demo")
        assert (folder / MARKER).exists()
        shutil.rmtree(folder)
    shutil.rmtree(samples)


def test_samples_of_a_run_of_the_same_name_are_kept(demo: Demo) -> None:
    kept = demo.root / "samples" / "demo" / "mine.txt"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("mine")
    demo.toolkit.run(DEMO).succeeds()
    assert kept.read_text() == "mine"


def test_a_curve_falls_from_the_upper_left_to_the_lower_right() -> None:
    assert draw_curve([4, 3, 2, 1], height=2) == ["4.00 │█▃", "1.00 │██▆▁"]
    assert draw_curve([2.5, 2.5], height=2) == ["2.50 │", "2.50 │▁▁"]
    assert len(draw_curve(range(1000), width=10)[-1]) == len("949.50 │") + 10


def test_the_measured_demo_in_the_docs_writes_well_formed_new_stories() -> None:
    """The whole demo takes minutes; `benchmarks/demo.py` writes what it printed to the page."""
    page = (REPOSITORY / "docs" / "demo.md").read_text(encoding="utf-8")
    good, new = (
        int(re.search(rf"^{start}.*: (\d+) of 200", page, re.MULTILINE)[1])
        for start in ("Well-formed", "Not in the training text")
    )
    assert min(good, new) > 180
