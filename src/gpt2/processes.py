"""Work shared out among processes, with the results in the order of the tasks.

The processes are plain Python programs that are told over a pipe what to do. They do not see
Ctrl+C, which is for the one that started them, and they end when their pipe does: however their
parent goes, none is left behind. Neither does a program that uses them need a guard around its main
part, as `multiprocessing` asks for where processes cannot be forked.
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
from typing import Any, TypeVar

from gpt2.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Beyond so many the one that reads and writes is the slowest; each takes memory of its own.
MOST_BY_DEFAULT = 8

_CHILD = "import sys; sys.path[:] = sys.argv[1:]; from gpt2.processes import _serve; _serve()"


def check_count(count: int | None) -> int:
    """The number of processes that is wished for, or the default: one for each processor.

    Raises:
        UserError: it is below one.
    """
    if count is None:
        return min(_processors(), MOST_BY_DEFAULT)
    if count < 1:
        raise UserError(f"workers should be a whole number of at least 1, not {count}.")
    return count


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_order(
    function: Callable[[Task], Result], tasks: Iterable[Task], count: int, alone: int = 0
) -> Iterator[Result]:
    """What the function makes of each task, in the order of the tasks.

    Tasks are taken from their iterator only a few ahead of the results that are asked for.

    Args:
        function: is pickled once for each process, so it belongs to a module that they can import.
        count: processes; with one the work is done in this one, and none is started.
        alone: tasks that are done in this process before others are started, which takes them the
            better part of a second and would be a waste on short work.

    Raises:
        UserError: a process ended in the middle of its work. What a task raises is raised here.
    """
    tasks = iter(tasks)
    for done, task in enumerate(tasks):
        if count > 1 and done == alone:
            yield from _shared_out(function, task, tasks, count)
            return
        yield function(task)


def _shared_out(function: Callable, first: Any, others: Iterator, count: int) -> Iterator:
    workers: list[_Worker] = []
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    pending: deque[Future] = deque()

    def ask(task: Any) -> Any:
        worker = idle.get()
        try:
            return worker.ask(task)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(count) as pool:
        try:
            for _ in range(count):
                workers.append(_Worker(function))
                idle.put(workers[-1])
            pending.append(pool.submit(ask, first))
            for task in others:
                pending.append(pool.submit(ask, task))
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            for worker in workers:
                worker.end()


class _Worker:
    def __init__(self, function: Callable):
        # A group of its own, as Ctrl+C goes to all processes of a terminal's group.
        apart = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
            if os.name == "nt"
            else {"start_new_session": True}
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **apart,
        )
        self._tell(function)

    def ask(self, task: Any) -> Any:
        """What the function makes of a task."""
        self._tell(task)
        try:
            result, error = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise self._ended() from None
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """Stop at once, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def _tell(self, message: Any) -> None:
        try:
            pickle.dump(message, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None

    def _ended(self) -> UserError:
        return UserError(
            "A process that shared in the work has ended, perhaps for want of memory; "
            "try again with --workers 1."
        )


def _serve() -> None:
    """What a process does: take tasks from its standard input until that is closed."""
    tasks = sys.stdin.buffer
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # should something print
    with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):  # the parent is gone
        function = pickle.load(tasks)
        while True:
            task = pickle.load(tasks)
            try:
                answer = (function(task), None)
            except Exception as error:  # which is raised again by who asked
                answer = (None, error)
            pickle.dump(answer, results, pickle.HIGHEST_PROTOCOL)
            results.flush()
