"""One copy of the toolkit with a small model and an encoded text, for all tests of commands."""

from __future__ import annotations

import math
import os
import pydoc_data.topics
import shutil
import signal
from pathlib import Path

import pytest

from gpt2.tokenizer import train_vocabulary, write_vocabulary
from tests.commands.toolkit_copy import SIZES, TRAIN, Home, Story, Toolkit
from tests.support.waiting import processor_time


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A toolkit with text.txt, text.npz and models/117M, created by the commands."""
    toolkit = Toolkit(tmp_path_factory.mktemp("toolkit"))
    text = "".join(pydoc_data.topics.topics.values())[:40000]
    (toolkit.root / "text.txt").write_text(text, encoding="utf-8")
    new_model = toolkit.run(f"python src/new_model.py 117M --dataset text.txt {SIZES} --seed 1")
    encode = toolkit.run("python src/encode.py text.txt text.npz")
    return Home(toolkit, new_model, encode)


@pytest.fixture
def toolkit(home: Home, tmp_path: Path) -> Toolkit:
    """A copy of that toolkit, for tests that change it."""
    toolkit = Toolkit(tmp_path / "toolkit")
    shutil.copytree(home.toolkit.root / "models" / "117M", toolkit.root / "models" / "117M")
    for name in ("text.txt", "text.npz"):
        shutil.copy(home.toolkit.root / name, toolkit.root)
    return toolkit


@pytest.fixture
def encoding_toolkit(tmp_path: Path) -> Toolkit:
    """A toolkit whose model has only a vocabulary: the bytes and `<|endoftext|>`."""
    toolkit = Toolkit(tmp_path / "toolkit")
    folder = toolkit.root / "models" / "117M"
    folder.mkdir(parents=True)
    vocabulary, merges = train_vocabulary([], 257)
    write_vocabulary(folder, vocabulary, merges)
    return toolkit


@pytest.fixture(scope="session")
def trained(home: Home) -> Toolkit:
    """A toolkit with the run `short`, which is trained faster than `story`."""
    train = "python src/train.py --dataset text.npz --run_name short --max_steps 9 --save_every 3"
    home.toolkit.run(train).succeeds()
    return home.toolkit


@pytest.fixture(scope="session")
def story(home: Home) -> Story:
    """The training of the tutorial: Ctrl+C, resumed, SIGTERM, resumed, Ctrl+C twice."""
    if os.name == "nt":
        pytest.skip("sends signals that Windows does not have")
    toolkit = home.toolkit
    with toolkit.start(TRAIN) as running:
        running.send_when(signal.SIGINT, lambda: "\n[45 | " in running.out)
        interrupted = running.finish()
    after_interrupt = toolkit.contents("checkpoint/run1")
    with toolkit.start(TRAIN) as running:
        running.send_when(signal.SIGTERM, lambda: running.out.count("loss=") > 3)
        terminated = running.finish()
    after_terminate = toolkit.contents("checkpoint/run1")
    # A step that takes a minute, in the middle of which the user presses Ctrl+C twice.
    with toolkit.start(f"{TRAIN} --accumulate_gradients 50000") as running:
        running.wait_until(lambda: "Training..." in running.out)
        # The step prints nothing, but nothing else takes processor time from here on.
        before = processor_time(running.process.pid) or 0.0
        running.wait_until(lambda: (processor_time(running.process.pid) or math.inf) > before + 1)
        running.process.send_signal(signal.SIGINT)
        running.send_when(signal.SIGINT, lambda: "Press Ctrl+C again" in running.err)
        left = running.finish()
    after_leaving = toolkit.contents("checkpoint/run1")
    return Story(
        toolkit, interrupted, after_interrupt, terminated, after_terminate, left, after_leaving
    )


@pytest.fixture(scope="session")
def no_tensorflow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The words before `python` that make importing TensorFlow fail."""
    folder = tmp_path_factory.mktemp("no_tensorflow")
    (folder / "tensorflow").mkdir()
    fails = "raise ImportError('TensorFlow was imported')"
    (folder / "tensorflow" / "__init__.py").write_text(fails)
    return f"PYTHONPATH={folder}"
