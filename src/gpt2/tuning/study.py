"""A study: the trials of a search, kept by Optuna in a database that several processes share.

A trial that is interrupted stays "running" in the database. The next process on this machine that
finds its lock free resumes it; on another machine, it is run again once its heartbeat has been
missing for `GRACE` seconds. A trial is counted once it has a result: a loss, pruned, or failed.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from gpt2.errors import UserError, in_short, quoted
from gpt2.tuning.objective import Outcome, TrialRun
from gpt2.tuning.space import Dimension, describe_difference

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

Result = TypeVar("Result")

HEARTBEAT, GRACE = 60, 180  # seconds
WAITS = (1, 2, 4, 8, 15)  # seconds between attempts to reach the storage
BUSY = 60  # seconds that SQLite waits for another process
# Attributes of the study and of its trials in the database.
SPACE, HOST, ERROR, SURPLUS = "space", "host", "error", "surplus"
STARTUP_TRIALS = 4  # that are not pruned, and whose losses are what later ones are compared with


def load_optuna() -> None:
    """Import Optuna, without its log lines.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"Tuning needs the package optuna ({error}). Install it with: pip install "
            "'optuna>=4.9,<5'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage")  # recorded by keep_alive


class Trial:
    """A trial that this process has claimed.

    Attributes:
        number: from 0, in the order of the study.
        parameters: value of each dimension of the space.
        resumed: whether an earlier call began it.
    """

    def __init__(self, trial: optuna.Trial, space: Mapping[str, Dimension], resumed: bool):
        """Read or choose the parameters."""
        self.optuna = trial
        self.number = trial.number
        self.resumed = resumed
        self.parameters = {name: each.suggest(trial, name) for name, each in space.items()}
        self.beat = -math.inf  # time of the last heartbeat


class Study:
    """The trials of a search."""

    def __init__(
        self,
        name: str,
        url: str | None,
        folder: Path,
        space: Mapping[str, Dimension],
        settings: Mapping[str, str],
        *,
        seed: int = 1,
        prune: bool = True,
        sleep: Callable[[float], object] = time.sleep,
    ):
        """Open the study, or create it.

        Args:
            name: of the study; its runs are `folder/NAME-N`.
            url: of the database; None for SQLite in `folder/NAME.db`.
            folder: `checkpoint/`.
            space: values of each setting.
            settings: further settings that results depend on, by name.
            seed: of the choice of parameters, which is a function of it, of the trial's number and
                of the trials that have ended.
            prune: whether to end trials that are worse than the median of the others.
            sleep: waits between attempts to reach the database.

        Raises:
            UserError: the database cannot be used, or the study has another search space or other
                settings.
        """
        import optuna

        self.name, self._folder, self._space, self._seed = name, folder, space, seed
        self._sleep = sleep
        self._here = f"{socket.gethostname()}:{folder.resolve()}"  # where the runs are
        self._file = folder / f"{name}.db" if url is None else None
        self._place = str(self._file) if url is None else _without_password(url)
        if self._file is not None and "?" in str(self._file):
            raise UserError(f"{self._file}: a path of SQLite has no '?'. Give --storage URL.")
        if self._file is not None and not self._file.exists():
            self._refuse_other_runs()
            folder.mkdir(parents=True, exist_ok=True)
            self._file.touch()
        pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
            if prune
            else optuna.pruners.NopPruner()
        )

        def open_study() -> optuna.Study:
            self._storage = _open_storage(url or f"sqlite:///{self._file}")
            return optuna.create_study(
                storage=self._storage, study_name=name, pruner=pruner, load_if_exists=True
            )

        self._study = self._reach(open_study)
        described = {name: str(each) for name, each in space.items()} | dict(settings)
        known = self._reach(lambda: self._study.user_attrs.get(SPACE))
        if known is None:
            self._refuse_other_runs()
            self._reach(lambda: self._study.set_user_attr(SPACE, described))
        elif difference := describe_difference(described, known):
            raise UserError(
                f"Study {name!r} in {self._place} has another search space: {difference}. Repeat "
                "its flags, or choose another --study."
            )

    def _refuse_other_runs(self) -> None:
        """Check that no run has the name of a trial: a new study would continue it."""
        for path in sorted(self._folder.glob(f"{self.name}-*")):
            number = path.name.removeprefix(f"{self.name}-")
            if number.isdecimal() and TrialRun(path).folder.is_dir():
                raise UserError(
                    f"{path} is a run of another study or training. Choose another --study, or "
                    f"delete the folders {self.name}-N."
                )

    def run_of(self, number: int) -> TrialRun:
        """Return the run of a trial."""
        return TrialRun(self._folder / f"{self.name}-{number}")

    # --- the database ---

    def _reach(self, call: Callable[[], Result]) -> Result:
        """Return what a call of the database returns, repeated while it cannot be reached.

        Raises:
            UserError: it stays unreachable, or cannot be used at all.
        """
        import sqlalchemy.exc
        from optuna.exceptions import StorageInternalError

        problem: BaseException | None = None
        for wait in (*WAITS, 0):
            try:
                if self._file is not None and not self._file.exists():
                    raise FileNotFoundError("the file is gone")  # SQLite would create it, empty
                return call()
            except (StorageInternalError, sqlalchemy.exc.DBAPIError, OSError) as error:
                problem = getattr(error, "orig", None) or error.__cause__ or error
                if isinstance(error, sqlalchemy.exc.DatabaseError) and "not a database" in str(
                    error
                ):
                    break
            except (ValueError, ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
                problem = error
                break
            self._sleep(wait)
        raise UserError(
            f"{self._place}: the storage of the study cannot be used "
            f"({in_short(_first_line(problem))}). Check --storage; finished trials and the "
            "current run are kept, and the same command resumes."
        ) from problem

    # --- trials ---

    def trials(self) -> list[FrozenTrial]:
        """Return all trials but those that several processes began beyond the limit."""
        found = self._reach(lambda: self._study.get_trials(deepcopy=False))
        return [trial for trial in found if SURPLUS not in trial.user_attrs]

    def counted(self) -> list[FrozenTrial]:
        """Return the trials that have a result or are running."""
        return [
            trial
            for trial in self.trials()
            if trial.state.name in ("COMPLETE", "PRUNED", "RUNNING") or ERROR in trial.user_attrs
        ]

    @contextlib.contextmanager
    def next_trial(self, limit: int | None) -> Iterator[tuple[Trial, int] | None]:
        """Claim a trial within the block: one that was interrupted, or else a new one.

        Args:
            limit: number of trials of the study; None for any.

        Yields:
            The trial and the descriptor of its lock; None if the limit is reached.
        """
        for running in self._interrupted():
            with self.run_of(running.number).claimed() as lock:
                if lock is not None and self._is_running(running.number):
                    yield self._trial(running._trial_id, resumed=True), lock
                    return
        self._fail_stale()
        if limit is not None and len(self.counted()) >= limit:
            yield None
            return
        asked = self._reach(self._study.ask)
        run = self.run_of(asked.number)
        if run.is_foreign:
            self._reach(lambda: asked.set_user_attr(SURPLUS, True))
            self._tell(asked.number, "FAIL")
            raise UserError(
                f"{run.folder} is the run of another training. Rename it, or choose another "
                "--study."
            )
        with run.claimed() as lock:
            assert lock is not None  # a new number
            before = [trial for trial in self.counted() if trial.number < asked.number]
            if limit is not None and len(before) >= limit:  # another process was faster
                self._reach(lambda: asked.set_user_attr(SURPLUS, True))
                self._tell(asked.number, "FAIL")
                yield None
                return
            self._reach(lambda: asked.set_user_attr(HOST, self._here))
            yield self._trial(asked._trial_id, resumed=False), lock

    def _trial(self, identifier: int, resumed: bool) -> Trial:
        import optuna

        def read() -> Trial:
            trial = optuna.Trial(self._study, identifier)
            state = np.random.SeedSequence((self._seed, trial.number)).generate_state(1)[0]
            self._study.sampler = optuna.samplers.TPESampler(seed=int(state), constant_liar=True)
            return Trial(trial, self._space, resumed)

        trial = self._reach(read)
        self.keep_alive(trial)
        return trial

    def _interrupted(self) -> list[FrozenTrial]:
        """Return the unfinished trials of this machine; others may hold their locks."""
        return [
            trial
            for trial in self.trials()
            if trial.state.name == "RUNNING" and trial.user_attrs.get(HOST) == self._here
        ]

    def _is_running(self, number: int) -> bool:
        return any(trial.number == number for trial in self._interrupted())

    def _fail_stale(self) -> None:
        import optuna

        self._reach(lambda: optuna.storages.fail_stale_trials(self._study))

    def keep_alive(self, trial: Trial) -> None:
        """Record that the trial is being worked on, at most once a `HEARTBEAT`."""
        now = time.monotonic()
        if now - trial.beat >= HEARTBEAT:
            trial.beat = now
            self._reach(lambda: self._storage.record_heartbeat(trial.optuna._trial_id))

    def report(self, trial: Trial, step: int, loss: float) -> bool:
        """Record a validation loss; return whether the trial should be pruned."""

        def report() -> bool:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a step that was reported before a resume
                trial.optuna.report(loss, step)
            return trial.optuna.should_prune()

        return self._reach(report)

    def finish(self, trial: Trial, loss: float) -> None:
        """Record the result of a trial (nats)."""
        self._tell(trial.number, "COMPLETE", loss)

    def prune(self, trial: Trial) -> None:
        """Record that a trial was ended early."""
        self._tell(trial.number, "PRUNED")

    def fail(self, trial: Trial, error: str) -> None:
        """Record that a trial failed, and why."""
        self._reach(lambda: trial.optuna.set_user_attr(ERROR, error))
        self._tell(trial.number, "FAIL")

    def withdraw(self, trial: Trial) -> None:
        """Record that a trial could not start, for a reason that is not its parameters."""
        self._reach(lambda: trial.optuna.set_user_attr(SURPLUS, True))
        self._tell(trial.number, "FAIL")

    def _tell(self, number: int, state: str, loss: float | None = None) -> None:
        from optuna.trial import TrialState

        self._reach(
            lambda: self._study.tell(number, loss, state=TrialState[state], skip_if_finished=True)
        )

    # --- results ---

    def best(self) -> FrozenTrial | None:
        """Return the trial of the lowest loss, or None."""
        complete = [trial for trial in self.trials() if trial.state.name == "COMPLETE"]
        return min(complete, key=lambda trial: (trial.value, trial.number), default=None)

    def delete_losers(self) -> None:
        """Delete the checkpoints, on this machine, of all ended trials but the best."""
        best = self.best()
        for trial in self.trials():
            run = self.run_of(trial.number)
            ended = trial.state.name in ("COMPLETE", "PRUNED", "FAIL")
            if ended and (best is None or trial.number != best.number) and run.folder.is_dir():
                with run.claimed() as lock:
                    if lock is not None:
                        run.delete_checkpoints()

    @property
    def optuna(self) -> optuna.Study:
        """The study for Optuna's own functions, such as its plots."""
        return self._study


def run_trial(
    study: Study,
    trial: Trial,
    lock: int,
    words: Sequence[str],
    scale: float,
    stop: Callable[[], bool],
    show: Callable[[int, float], object],
) -> Outcome | None:
    """Train the run of a trial and record its result.

    Args:
        words: flags of train.
        scale: what a loss per token is multiplied with to compare trials.
        stop: True ends the trial, which the next call resumes.
        show: called with step and loss of each validation.

    Returns:
        How the run ended; None if it was stopped, and the trial has no result yet.

    Raises:
        UserError: the training could not start, or ended without a validation.
    """
    pruned = False

    def on_loss(step: int, loss: float) -> None:
        nonlocal pruned
        show(step, loss * scale)
        pruned = study.report(trial, step, loss * scale) or pruned

    def ends() -> bool:
        study.keep_alive(trial)
        return pruned or stop()

    run = study.run_of(trial.number)
    outcome = run.train(words, lock, on_loss, ends)
    if pruned:
        study.prune(trial)
    elif outcome.finished:
        loss = run.lowest_loss()
        if math.isnan(loss):
            study.withdraw(trial)
            raise UserError(
                f"{run.folder}: the training ended before its first validation. Give a smaller "
                "--val_every, or train longer."
            )
        study.finish(trial, loss * scale)
    elif stop():
        return None
    elif outcome.started:
        study.fail(trial, outcome.error)
    else:
        study.withdraw(trial)
        raise UserError(f"Trial {trial.number} cannot start. {outcome.error}")
    return outcome


def _open_storage(url: str) -> optuna.storages.RDBStorage:
    import optuna

    def retry(study: optuna.Study, trial: FrozenTrial) -> None:
        study.enqueue_trial(trial.params)

    return optuna.storages.RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": BUSY}} if url.startswith("sqlite") else None,
        heartbeat_interval=HEARTBEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=retry,
    )


def _without_password(url: str) -> str:
    import sqlalchemy.exc

    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return f"--storage {quoted(url)}"


def _first_line(problem: object) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
