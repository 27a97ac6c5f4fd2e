"""Killed commands lose nothing and leave no incomplete files; see also `make faults`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support import waiting

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def run(out: Path, kills: int, *cases: str) -> dict[str, dict]:
    """Return the results of the harness, which runs in its own process because it forks."""
    program = [sys.executable, "-m", "tests.faults.run", *cases]
    done = waiting.run([*program, "--kills", kills, "--out", out], cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


@forks
def test_a_killed_training_resumes_to_bit_identical_weights(tmp_path: Path) -> None:
    found = run(tmp_path / "faults.json", 1, "training")
    assert found["training"]["resumed"] == 1


@forks
def test_killed_commands_leave_no_incomplete_files(tmp_path: Path) -> None:
    cases = ["encode.py, a file", "encode.py, a folder", "download_model.py", "new_model.py"]
    cases += ["convert.py to_hf", "convert.py from_hf"]
    found = run(tmp_path / "faults.json", 2, *cases)
    assert [found[case]["resumed"] for case in cases] == [2] * len(cases)
