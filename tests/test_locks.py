"""One training in a run and one download into a folder: a lock ends with its process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2
from gpt2.errors import UserError
from gpt2.locks import (
    DOWNLOAD_LOCK,
    RUN_LOCK,
    download_lock,
    is_current,
    lock_state,
    run_lock,
    try_lock,
)
from tests.signals_at_each_line import failing_after, interrupted

HOLDER = """
import sys, time
from pathlib import Path
from gpt2 import locks

with getattr(locks, sys.argv[1])(Path(sys.argv[2])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("lock", "facts"),
    [(run_lock, "Another training .*run"), (download_lock, "run: another download")],
)
def test_the_second_is_refused_until_the_first_is_killed(tmp_path, lock, facts):
    run = tmp_path / "run"
    run.mkdir()
    source = Path(gpt2.__file__).parents[1]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock.__name__, str(run)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(source)},
    )
    with holder:
        try:
            assert holder.stdout.readline().strip() == b"locked"
            with (
                pytest.raises(UserError, match=facts),
                lock(run),
            ):
                pass
        finally:
            holder.kill()
    assert len(list(run.iterdir())) == 1  # the file is left, the lock is not
    with lock(run):
        pass


def test_in_one_process_too_and_another_run_is_free(tmp_path):
    with run_lock(tmp_path / "run"):
        with pytest.raises(UserError, match="Another training"), run_lock(tmp_path / "run"):
            pass
        with run_lock(tmp_path / "other"):
            pass


def test_a_download_leaves_no_lock_file(tmp_path):
    (tmp_path / DOWNLOAD_LOCK).write_text("left by a kill")
    with pytest.raises(ZeroDivisionError), download_lock(tmp_path):
        assert (tmp_path / DOWNLOAD_LOCK).exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has other calls")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch, number):
    import fcntl

    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for lock in (run_lock, download_lock):
        with lock(tmp_path), lock(tmp_path):
            pass
    with open(tmp_path / "file", "w") as file:
        assert try_lock(file.fileno())
        assert lock_state(file.fileno()) is None


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be deleted there")
def test_a_lock_on_a_file_that_was_deleted_meanwhile_does_not_count(tmp_path):
    path = tmp_path / "file"
    with open(path, "w") as file:
        assert is_current(file.fileno(), path)
        path.unlink()
        assert not is_current(file.fileno(), path)
        path.touch()
        assert not is_current(file.fileno(), path)


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


@pytest.mark.parametrize("lock", [run_lock, download_lock])
@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be deleted there")
def test_a_signal_before_the_block_leaves_no_lock(tmp_path: Path, monkeypatch, lock) -> None:
    for line in interrupted(lambda: lock(tmp_path)):
        assert lock is run_lock or not list(tmp_path.iterdir()), line
        with lock(tmp_path):  # is free
            pass
    if lock is run_lock:  # which also removes the folders that it has made
        for line in interrupted(lambda: lock(tmp_path / "new" / "run")):
            assert not (tmp_path / "new").exists(), line
    opened = failing_after(os.open, lambda path: path.endswith((RUN_LOCK, DOWNLOAD_LOCK)))
    monkeypatch.setattr(os, "open", lambda *given: opened(*given))
    folder = tmp_path / "made"
    if lock is download_lock:
        folder.mkdir()
    with pytest.raises(KeyboardInterrupt), lock(folder):
        pass
    assert not list(tmp_path.glob("made/*"))
