"""An ordered parallel map over worker processes.

Workers are plain Python processes that receive tasks over a pipe. They ignore Ctrl+C, which the
parent handles, and end when the pipe closes, so none survives its parent, even after SIGKILL. The
calling script needs no `if __name__ == "__main__"` guard, unlike with `multiprocessing`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, TypeVar

from gpt2 import checks
from gpt2.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

# With more workers the parent becomes the bottleneck, and each takes memory of its own.
MOST_BY_DEFAULT = 8

_CHILD = "import sys; sys.path[:] = sys.argv[1:]; from gpt2.processes import _serve; _serve()"


def check_count(count: int | None) -> int:
    """Return the number of processes: `count`, or one per core up to `MOST_BY_DEFAULT` for None.

    Raises:
        UserError: it is not a whole number of at least 1.
    """
    if count is None:
        return min(available_cores(), MOST_BY_DEFAULT)
    checks.check_count("workers", count, least=1)
    return count


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_order(
    function: Callable[[Task], Result], tasks: Iterable[Task], count: int, alone: int = 0
) -> Iterator[Result]:
    """Yield the function's result for each task, in the order of the tasks.

    Tasks are taken from their iterator only a few ahead of the results that are consumed.

    Args:
        function: pickled when workers are started, so it must be importable from a module.
        count: number of processes, this one included.
        alone: number of tasks to do in this process before workers are started, since starting
            them takes a few tenths of a second of processor time.

    Raises:
        UserError: a worker ended unexpectedly. Exceptions of a task are raised here.
    """
    tasks = iter(tasks)
    for done, task in enumerate(tasks):
        if count > 1 and done == alone:
            yield from _shared_out(function, chain([task], tasks), count)
            return
        yield function(task)


def _shared_out(function: Callable, tasks: Iterable, count: int) -> Iterator:
    """Yield the results of workers; while the next is not ready, this process works, too."""
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    pending: deque[tuple[Future, Any]] = deque()

    def start(worker: _Worker) -> None:
        try:
            worker.tell(content)
        finally:
            idle.put(worker)  # if it has ended, its first task says so

    def ask(task: Any) -> Any:
        worker = idle.get()
        try:
            return worker.ask(task)
        finally:
            idle.put(worker)

    def next_result() -> Any:
        while not pending[0][0].done():
            not_begun = (place for place, (future, _) in enumerate(pending) if future.cancel())
            place = next(not_begun, None)
            if place is None:
                break
            task = pending[place][1]
            pending[place] = (_done(function, task), task)
        return pending.popleft()[0].result()

    content = pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    workers: list[_Worker] = []
    with ThreadPoolExecutor(count - 1) as pool:
        try:
            for _ in range(count - 1):
                workers.append(_Worker())
                pool.submit(start, workers[-1])
            for task in tasks:
                pending.append((pool.submit(ask, task), task))
                if len(pending) > 2 * count:
                    yield next_result()
            while pending:
                yield next_result()
        finally:
            for future, _ in pending:
                future.cancel()
            for worker in workers:
                worker.end()


def _done(function: Callable, task: Any) -> Future:
    """Return the outcome of a task that is done in this process."""
    outcome: Future = Future()
    try:
        outcome.set_result(function(task))
    except Exception as error:  # raised when it is this task's turn
        outcome.set_exception(error)
    return outcome


class _Worker:
    """A worker process and the pipes to it."""

    def __init__(self) -> None:
        # Ctrl+C goes to all processes of the terminal's group, so workers get their own group.
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **apart,
        )
        assert self._process.stdin and self._process.stdout
        self._tasks, self._results = self._process.stdin, self._process.stdout

    def ask(self, task: Any) -> Any:
        """Return the function's result for a task."""
        self.tell(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
        try:
            result, error = pickle.load(self._results)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise self._ended() from None
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._tasks, self._results):
            with contextlib.suppress(OSError):
                pipe.close()

    def tell(self, content: bytes) -> None:
        """Send the pickled function, or a pickled task, when the process reads it."""
        try:
            self._tasks.write(content)
            self._tasks.flush()
        except OSError:
            raise self._ended() from None

    def _ended(self) -> UserError:
        return UserError(
            "A worker process ended unexpectedly, possibly out of memory. Try again with fewer "
            "workers (workers 1 uses none)."
        )


def _serve() -> None:
    """Run a worker: answer tasks from standard input until it is closed."""
    tasks = sys.stdin.buffer
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where prints of a task go
    with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):  # the parent is gone
        function = pickle.load(tasks)
        while True:
            task = pickle.load(tasks)
            answer: tuple[Any, Exception | None]
            try:
                answer = (function(task), None)
            except Exception as error:  # raised again in the parent
                answer = (None, error)
            pickle.dump(answer, results, pickle.HIGHEST_PROTOCOL)
            results.flush()
