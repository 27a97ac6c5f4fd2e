"""Fixtures for the tests of several packages."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden_model import Golden

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # as the commands do, to load TensorFlow in half the time

ROOT = Path(__file__).resolve().parent.parent
TEST_DATA = Path(os.environ.get("GPT2_TEST_DATA") or ROOT.parent / "shared" / "data")


def pytest_configure() -> None:
    """Give commands the signals of a terminal: under nohup or in the background, some are ignored.

    A child inherits what is ignored, but not a handler.
    """
    for number in filter(None, (signal.SIGINT, getattr(signal, "SIGHUP", None))):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests whose data is missing; from here, pytest reports all of them in one line."""
    if "shared_data" in getattr(item, "fixturenames", ()) and not TEST_DATA.is_dir():
        message = f"no test data in {TEST_DATA}; set GPT2_TEST_DATA to the folder that holds it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real files that are not part of the repository.

    It holds GPT-2's vocabulary, a released model's index, a checkpoint written by TensorFlow 1.
    """
    return TEST_DATA


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Return logits, gradients and training steps of a small model by another implementation."""
    return Golden()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep converted models out of the user's cache, also those of commands that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPT2_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
