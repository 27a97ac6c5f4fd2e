"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.golden_model import Golden

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # as the commands do, to load TensorFlow in half the time

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files that are not part of the repository.

    It holds GPT-2's vocabulary, a released model's index, a checkpoint written by TensorFlow 1.
    """
    folder = Path(os.environ.get("GPT2_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        message = f"no test data in {folder}; set GPT2_TEST_DATA to the folder that holds it"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def golden() -> Golden:
    """A small model's logits, gradients and training steps, from an independent implementation."""
    return Golden()
