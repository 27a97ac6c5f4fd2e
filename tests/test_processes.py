"""Shared work: results in order, errors brought home, no process left behind."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt2 import processes
from gpt2.errors import UserError
from gpt2.processes import MOST_BY_DEFAULT, check_count, map_in_order
from tests.support import waiting

SOURCES = Path(__file__).resolve().parent.parent / "src"


def add(number: int, task: int) -> tuple[int, int]:
    """Add `number` and tell which process did."""
    time.sleep(0.02 if task % 3 == 0 else 0)  # so that later tasks are done before earlier ones
    return task + number, os.getpid()


def divide(number: int, task: int) -> float:
    """Divide `number`; some tasks fail."""
    if task == 2:
        raise UserError("No two.")
    return number / task


def fail_in_worker(parent: int, task: int) -> int:
    """Raise an error unless this process is the parent."""
    if os.getpid() != parent:
        raise UserError(f"Not {task}.")
    return task


def end_worker(parent: int, task: int) -> int:
    """End this process unless it is the parent."""
    if os.getpid() != parent:
        os._exit(3)
    return task


FORKS = [
    pytest.param(
        True, marks=pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
    ),
    False,
]


@pytest.fixture(params=FORKS, ids=["forks", "new processes"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use workers of each kind."""
    monkeypatch.setattr(processes, "_may_fork", lambda: request.param)


each_kind = pytest.mark.usefixtures("kind")
# Other tests may have started threads; see `_may_fork`.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@each_kind
@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(count: int) -> None:
    seen = set()
    results = map_in_order(functools.partial(add, 100), itertools.count(), count)
    for expected in range(100, 10**6):
        result, process = next(results)
        assert result == expected
        seen.add(process)
        if expected >= 140 and len(seen) == count:
            break
    results.close()
    assert os.getpid() in seen  # which does not wait idly
    assert len(seen) == count


@each_kind
def test_no_tasks_give_no_results() -> None:
    assert list(map_in_order(functools.partial(add, 1), [], 2)) == []


@pytest.mark.parametrize(("forks", "few"), [(True, 3), (False, 24)])
def test_no_worker_is_started_for_few_tasks(
    forks: bool, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_may_fork", lambda: forks)
    monkeypatch.setattr(processes, "_Fork" if forks else "_NewProcess", None)
    results = list(map_in_order(functools.partial(add, 0), range(few), 2, alone=3))
    assert results == [(number, os.getpid()) for number in range(few)]
    with pytest.raises(TypeError):
        list(map_in_order(functools.partial(add, 0), range(few + 1), 2, alone=3))


def test_a_process_with_threads_is_not_copied() -> None:
    program = (
        f"import sys, threading; sys.path.insert(0, {str(SOURCES)!r})\n"
        "from gpt2.processes import _may_fork\n"
        "print(_may_fork(), end=' ')\n"
        "done = threading.Event()\n"
        "threading.Thread(target=done.wait).start()\n"
        "print(_may_fork())\n"
        "done.set()\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout.split() == [str(sys.platform == "linux"), "False"]


@each_kind
@pytest.mark.parametrize("count", [1, 2])
def test_what_a_task_raises_is_raised_where_the_result_is_asked_for(count: int) -> None:
    results = map_in_order(functools.partial(divide, 12), [3, 4, 2, 6], count)
    assert [next(results), next(results)] == [4, 3]
    with pytest.raises(UserError, match=r"^No two\.$"):
        next(results)
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(functools.partial(divide, 12), [3, 0], count))


@each_kind
def test_what_a_worker_raises_is_raised_in_its_turn() -> None:
    results = map_in_order(functools.partial(fail_in_worker, os.getpid()), itertools.count(), 2)
    done = []
    with pytest.raises(UserError) as error:
        done.extend(results)
    assert str(error.value) == f"Not {len(done)}."
    assert done == list(range(len(done)))


@each_kind
def test_a_process_that_ends_in_the_middle_is_told() -> None:
    results = map_in_order(functools.partial(end_worker, os.getpid()), itertools.count(), 2)
    with pytest.raises(UserError, match=r"ended unexpectedly.*workers 1"):
        for _ in results:
            pass


@pytest.mark.parametrize("forks", FORKS)
def test_a_process_that_cannot_be_started_is_told(
    forks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(processes, "_may_fork", lambda: forks)
    monkeypatch.setattr(*((os, "fork") if forks else (subprocess, "Popen")), refuse)
    with pytest.raises(UserError, match=r"cannot be started \(Resource .*workers 1"):
        list(map_in_order(functools.partial(add, 0), range(9), 2))
    if forks:
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


@each_kind
def test_tasks_are_taken_only_a_little_ahead() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for task in range(1000):
            taken.append(task)
            yield task

    results = map_in_order(functools.partial(add, 0), tasks(), 2)
    next(results)
    assert len(taken) < 10
    results.close()
    assert len(taken) < 10


def children() -> set[int]:
    """The living processes that this one has started."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    lines = [line.split() for line in found.stdout.splitlines()]
    return {int(number) for number, state in lines if not state.startswith("Z")}


@each_kind
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes as Linux lists them")
def test_no_process_is_left_when_nobody_asks_any_more() -> None:
    results = map_in_order(functools.partial(add, 0), itertools.count(), 2)
    process = next(process for _, process in results if process != os.getpid())
    assert process in children()
    results.close()
    assert process not in children()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes as Linux lists them")
@pytest.mark.parametrize("forks", FORKS)
@pytest.mark.parametrize("sent", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_no_process_outlives_a_parent_that_is_stopped(sent: str, forks: bool) -> None:
    program = (
        f"import functools, sys; sys.path[:0] = [{str(SOURCES)!r}, {str(SOURCES.parent)!r}]\n"
        "from gpt2 import processes\n"
        f"processes._may_fork = lambda: {forks}\n"
        "from gpt2.processes import map_in_order\n"
        "from tests.test_processes import add\n"
        "try:\n"
        "    for _, process in map_in_order(functools.partial(add, 0), iter(int, 1), 3):\n"
        "        print(process, flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with parent:
        found: set[int] = set()
        while len(found) < 3:
            found.add(int(parent.stdout.readline()))
        parent.send_signal(getattr(signal, sent))
        _, said = waiting.communicate(parent)
    assert said == ""  # no traceback of any process
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in found):
        assert time.monotonic() < deadline, "a process is still there"
        time.sleep(0.01)


def test_there_is_at_least_one_process() -> None:
    assert 1 <= check_count(None) <= MOST_BY_DEFAULT
    assert check_count(30) == 30
    with pytest.raises(UserError, match="workers must be a whole number at least 1, not 0"):
        check_count(0)
