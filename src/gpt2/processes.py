"""An ordered parallel map over worker processes.

Workers receive tasks over a pipe. They ignore Ctrl+C, which the parent handles, and end when the
pipe closes, so none survives its parent, even after SIGKILL. The calling script needs no `if
__name__ == "__main__"` guard, unlike with `multiprocessing`.

Where that is safe, a worker is a copy of this process (a fork), which is ready at once. Otherwise
it is a new Python process, which imports what it needs first.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import IO, Any, NoReturn, TypeVar

from gpt2 import checks
from gpt2.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

# With more workers the parent becomes the bottleneck, and each takes memory of its own.
MOST_BY_DEFAULT = 8

# How many times as many tasks a new process has to be worth as a copy of this one.
_START = 8

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
        function: may be pickled when workers are started, so it must be importable from a module.
        count: number of processes, this one included.
        alone: number of tasks for which no workers are started if they are copies of this process;
            eight times as many if not, as that takes a few tenths of a second of processor time.

    Raises:
        UserError: a worker cannot be started, or ended unexpectedly. Exceptions of a task are
            raised here.
    """
    tasks = iter(tasks)
    first: list[Task] = []
    if count > 1:
        few = alone if _may_fork() else _START * alone
        first = list(islice(tasks, few + 1))
        if len(first) > few:
            yield from _shared_out(function, chain(first, tasks), count)
            return
    yield from map(function, chain(first, tasks))


def _shared_out(function: Callable, tasks: Iterable, count: int) -> Iterator:
    """Yield the results of workers; while the next is not ready, this process works, too."""
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    pending: deque[tuple[Future, Any]] = deque()

    def start(worker: _Worker) -> None:
        try:
            worker.prepare()
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

    workers: list[_Worker] = []
    with ThreadPoolExecutor(count - 1) as pool:
        try:
            kind = _Fork if _may_fork() else _NewProcess
            workers.extend(_started(kind, function) for _ in range(count - 1))
            for worker in workers:
                pool.submit(start, worker)
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


def _may_fork() -> bool:
    """Return whether a copy of this process would be able to work.

    A lock that another thread holds would stay locked in the copy. TensorFlow has such threads.
    Systems other than Linux have them in their own libraries.
    """
    alone = threading.active_count() == 1 and "tensorflow" not in sys.modules
    return sys.platform == "linux" and alone


def _started(kind: Callable[[Callable], _Worker], function: Callable) -> _Worker:
    try:
        return kind(function)
    except OSError as error:
        raise UserError(
            f"A worker process cannot be started ({error.strerror}). Try again with fewer workers "
            "(workers 1 uses none)."
        ) from error


class _Worker:
    """A worker process and the pipes to it."""

    tasks: IO[bytes]
    results: IO[bytes]

    def prepare(self) -> None:
        """Give the worker what it needs before its first task."""

    def kill(self) -> None:
        """End the process, whatever it is doing, and wait for its end."""
        raise NotImplementedError

    def ask(self, task: Any) -> Any:
        """Return the function's result for a task."""
        self.tell(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
        try:
            result, error = pickle.load(self.results)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise self._ended() from None
        if error is not None:
            raise error
        return result

    def tell(self, content: bytes) -> None:
        """Send something pickled, which the process reads when it is ready."""
        try:
            self.tasks.write(content)
            self.tasks.flush()
        except OSError:
            raise self._ended() from None

    def end(self) -> None:
        """Kill the process and close the pipes."""
        self.kill()
        for pipe in (self.tasks, self.results):
            with contextlib.suppress(OSError):
                pipe.close()

    def _ended(self) -> UserError:
        return UserError(
            "A worker process ended unexpectedly, possibly out of memory. Try again with fewer "
            "workers (workers 1 uses none)."
        )


class _NewProcess(_Worker):
    """A new Python process."""

    def __init__(self, function: Callable):
        self._function = function
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
        self.tasks, self.results = self._process.stdin, self._process.stdout

    def prepare(self) -> None:
        self.tell(pickle.dumps(self._function, pickle.HIGHEST_PROTOCOL))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class _Fork(_Worker):
    """A copy of this process."""

    def __init__(self, function: Callable):
        tasks, results = os.pipe(), os.pipe()  # each has an end to read from and one to write to
        # A signal at the wrong moment would make the copy do what the parent does then.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _become_worker(function, tasks[0], results[1], before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(tasks[0])
        os.close(results[1])
        self.tasks, self.results = os.fdopen(tasks[1], "wb"), os.fdopen(results[0], "rb")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has ended
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def _become_worker(function: Callable, tasks: int, results: int, mask: Any) -> NoReturn:
    """Turn a copy of the parent into a worker with these pipes, and never return."""
    try:
        os.setsid()  # see `_NewProcess`
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Or the parent's files stayed open, locks were held, and pipes to other workers not closed.
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in (0, 1, 2, tasks, results):
                with contextlib.suppress(OSError):
                    os.close(int(name))
        _answer(function, os.fdopen(tasks, "rb"), os.fdopen(results, "wb"))
    finally:
        os._exit(0)  # without a traceback, or what the parent does when it ends


def _serve() -> None:
    """Run a worker: answer tasks from standard input until it is closed."""
    tasks = sys.stdin.buffer
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where prints of a task go
    with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):  # the parent is gone
        _answer(pickle.load(tasks), tasks, results)


def _answer(function: Callable, tasks: IO[bytes], results: IO[bytes]) -> None:
    """Answer tasks; reading or writing raises an error when the pipe is closed."""
    while True:
        task = pickle.load(tasks)
        answer: tuple[Any, Exception | None]
        try:
            answer = (function(task), None)
        except Exception as error:  # raised again in the parent
            answer = (None, error)
        pickle.dump(answer, results, pickle.HIGHEST_PROTOCOL)
        results.flush()
