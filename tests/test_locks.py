"""One training at a time in a run: the lock refuses the second, and dies with its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2
from gpt2.errors import UserError
from gpt2.locks import run_lock

HOLDER = """
import sys, time
from pathlib import Path
from gpt2.locks import run_lock

with run_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_the_second_is_refused_until_the_first_is_killed(tmp_path):
    run = tmp_path / "run"
    source = Path(gpt2.__file__).parents[1]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(source)},
    )
    with holder:
        try:
            assert holder.stdout.readline().strip() == b"locked"
            with (
                pytest.raises(UserError, match=r"Another training is at work in .*run; wait"),
                run_lock(run),
            ):
                pass
        finally:
            holder.kill()
    with run_lock(run):
        pass


def test_in_one_process_too_and_another_run_is_free(tmp_path):
    with run_lock(tmp_path / "run"):
        with pytest.raises(UserError, match="Another training"), run_lock(tmp_path / "run"):
            pass
        with run_lock(tmp_path / "other"):
            pass


def test_a_folder_that_was_made_for_nothing_goes_and_another_stays(tmp_path):
    run = tmp_path / "checkpoint" / "run"
    with pytest.raises(ZeroDivisionError), run_lock(run):
        assert run.is_dir()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    run.mkdir(parents=True)
    with run_lock(run):
        pass
    assert run.is_dir()
    (run / "precious").touch()
    with run_lock(run):
        pass
    assert (run / "precious").exists()


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "checkpoint").write_text("a file")
    with (
        pytest.raises(UserError, match="run cannot be written"),
        run_lock(tmp_path / "checkpoint/run"),
    ):
        pass
