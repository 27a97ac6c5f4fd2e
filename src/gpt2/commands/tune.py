"""`tune`: search for the settings of train that give the lowest validation loss."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import math
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from gpt2.checkpoint import bundle
from gpt2.checkpoint.resolve import find_model
from gpt2.checks import Setting, check_value, setting
from gpt2.commands import train
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Option, Values, build, options_of, words_of
from gpt2.commands.signals import StopSignal
from gpt2.commands.terminal import as_typed, formatted, notice, print_table, shown
from gpt2.data import tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError, escaped, quoted
from gpt2.hparams import HParams
from gpt2.tokenizer.compression import bytes_per_token
from gpt2.training import run_log
from gpt2.training.session import training_settings
from gpt2.training.settings import LoopSettings, TrainerSettings
from gpt2.tuning.objective import verb_command, verb_environment
from gpt2.tuning.space import Dimension, fixed, parse_dimension
from gpt2.tuning.study import ERROR, Study, load_optuna, run_trial
from gpt2.workspace import Workspace, command_line

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LEARNING_RATES = Dimension((1e-5, 1e-3), is_range=True)
# Flags of train on which no loss depends: a study may continue with others.
FREE = {"models_dir", "save_every", "sample_every", "sample_length", "sample_num", "top_k"}
FREE |= {"top_p", "wandb", "twremat_memlimit"}
NEVER = 10**9  # steps
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "unfinished"}


@dataclasses.dataclass(frozen=True)
class TuneOptions:
    """What tune takes besides the flags of train."""

    study: str = setting("study", "name of the study: its trials are runs STUDY-N", metavar="STUDY")
    storage: str | None = setting(
        None, "database of the study, as Optuna's URL (default: checkpoint/STUDY.db)", metavar="URL"
    )
    trials: int | None = setting(
        None, "number of trials of the study, those of earlier calls included", low=1
    )
    minutes: float | None = setting(
        None, "stop after N minutes; the current trial is saved", metavar="N", above=0
    )
    prune: bool = setting(
        True, "stop trials early whose validation loss is above the median of the others"
    )
    keep: bool = setting(False, "keep the checkpoints of all trials, not only of the best")
    seed: int = setting(1, "random seed of the search and of every training", low=0, high=math.inf)


@dataclasses.dataclass(frozen=True)
class SearchOption(Option):
    """A flag of train that may have several values: 1,2,4 or 1e-5..1e-3."""

    def parse(self, text: str) -> Dimension:
        """Return the values; raises `UsageError`."""
        try:
            return parse_dimension(text, self.kind)
        except (ValueError, OverflowError) as error:
            kind = "a whole number" if self.kind is int else "a number"
            raise UsageError(
                f"{self.flag} must be {kind}, a list such as 1,2 or an ascending range such as "
                f"1..2, not {quoted(text)}"
            ) from error

    def check(self, value: Dimension) -> None:
        """Check each value against the range of the flag."""
        for each in value.values:
            check_value(self.flag, each, self.kind, self.declared)


def searched(options: list[Option], **defaults: Dimension) -> list[Option]:
    """Return options that take a list or a range of values, too."""
    found: list[Option] = []
    for option in options:
        declared: Setting = dataclasses.replace(option.declared, metavar="RANGE")
        default = None if option.default is None else fixed(option.default)
        default = defaults.get(option.name, default)
        found.append(SearchOption(option.name, option.kind, option.optional, default, declared))
    return found


SEARCHED = searched(
    [
        *options_of(TrainerSettings, "learning_rate"),
        *options_of(LoopSettings, "batch_size"),
        *options_of(TrainerSettings, "dropout", "warmup_steps", "weight_decay", "lora_rank"),
        *options_of(LoopSettings, "max_steps"),
        *options_of(HParams, "n_vocab", n_vocab=None),
    ],
    learning_rate=LEARNING_RATES,
)
# The other flags of train; a study names the runs itself.
PASSED = [
    dataclasses.replace(option, default={"val_every": 50, "sample_every": NEVER}.get(option.name))
    if option.name in ("val_every", "sample_every")
    else option
    for option in train.COMMAND.options
    if option.name not in {"run_name", "restore_from", "seed", *(each.name for each in SEARCHED)}
]


def check(values: Values) -> None:
    """Check that the search and each training have an end and an objective."""
    if not any(dimension.is_searched for dimension in _space(values).values()):
        raise UsageError("give at least one flag a list or a range, such as --dropout 0..0.2")
    if values.trials is None and values.minutes is None:
        raise UsageError("give --trials N or --minutes N")
    if not values.max_steps and not values.epochs and not values.max_minutes:
        raise UsageError("give --max_steps, --epochs or --max_minutes, the length of each training")
    if values.n_vocab and (not values.val_dataset or values.val_split):
        raise UsageError("--n_vocab needs --val_dataset TEXT, to compare losses per byte")
    if not values.val_every:
        raise UsageError("--val_every must be at least 1: the validation loss is what is compared")


def run(values: Values) -> None:
    """Run trials until the limit or Ctrl+C; print a table and the best command."""
    if values.val_split is None and not values.val_dataset:
        values.val_split = 0.1
    _check_trainings(values)
    data = _fingerprints(values)
    workspace = Workspace.find(values.models_dir, values.model_name)
    workspace.run_folder(values.study)  # raises if it is no name
    model = find_model(values.model_name or "124M", values.models_dir, notice)
    data["model_name (fingerprint)"] = bundle.fingerprint(model.checkpoint)[:12]
    vocabularies = _Vocabularies(values, workspace)
    load_optuna()
    study = Study(
        values.study,
        values.storage,
        workspace.checkpoint,
        _space(values),
        _settings(values) | data,
        seed=values.seed,
        prune=values.prune,
    )
    stop = StopSignal(
        "Stopping; the current trial is saved first. Press Ctrl+C again to quit at once."
    )
    with stop:
        _search(study, values, vocabularies, stop)
    _show_results(study, values, workspace, vocabularies)
    if stop():
        raise KeyboardInterrupt("interrupted; the same command resumes the study.")


def _check_trainings(values: Values) -> None:
    """Check the settings of the trainings at all ends of the search space.

    Raises:
        UserError: a combination is one that train refuses, or has no validation.
    """
    space = _space(values)
    lowest = min(space["max_steps"].values)
    if lowest is not None and lowest < values.val_every:
        raise UserError(
            f"--val_every {values.val_every}: a training of {lowest} steps (see --max_steps) has "
            "no validation. Give a smaller --val_every."
        )
    for corner in itertools.product(*(dimension.values for dimension in space.values())):
        training_settings(vars(_training_values(values, dict(zip(space, corner, strict=True)))))


def _space(values: Values) -> dict[str, Dimension]:
    """Return the values of each searched flag; None for one that is not given."""
    return {option.name: getattr(values, option.name) or fixed(None) for option in SEARCHED}


def _training_values(values: Values, parameters: Mapping[str, Any]) -> Values:
    """Return the values of train for a trial."""
    given = {option.name: getattr(values, option.name) for option in PASSED}
    given |= {name: value for name, value in parameters.items() if name != "n_vocab"}
    return argparse.Namespace(**given, seed=values.seed, restore_from="latest", run_name="run1")


def _settings(values: Values) -> dict[str, str]:
    """Return the flags that are not searched but that losses depend on."""
    return {
        option.flag.removeprefix("--"): str(getattr(values, option.name))
        for option in PASSED
        if option.name not in FREE
    } | {"seed": str(values.seed)}


def _fingerprints(values: Values) -> dict[str, str]:
    """Return the fingerprints of the datasets, as losses on other text are not comparable."""
    return {
        f"{name} (fingerprint)": run_log.data_in_short(tokenization.find_files(path))["sha256"][:12]
        for name in ("dataset", "val_dataset")
        if (path := getattr(values, name))
    }


class _Vocabularies:
    """The models with vocabularies of several sizes, and the scale of their losses."""

    def __init__(self, values: Values, workspace: Workspace):
        self._values, self._workspace = values, workspace
        self._scales: dict[int | None, float] = {None: 1.0}

    def model_of(self, parameters: Mapping[str, Any]) -> str | None:
        """Return the `--model_name` of a trial."""
        size = parameters["n_vocab"]
        if size is None:
            return self._values.model_name
        return f"{self._values.study}-vocabulary-{size}"

    def prepare(self, parameters: Mapping[str, Any]) -> float:
        """Create the model of a trial if necessary; return what its losses are multiplied with.

        Losses per token of different vocabularies cannot be compared, but losses per byte can.

        Raises:
            UserError: the model cannot be created, or the validation set is not text.
        """
        size, values = parameters["n_vocab"], self._values
        if size in self._scales:
            return self._scales[size]
        name = self.model_of(parameters)
        assert name is not None
        folder = self._workspace.new_model_folder(name)
        if not folder.exists():
            words = ["--dataset", values.dataset, "--from", values.model_name or "124M"]
            words += ["--n_vocab", str(size), "--seed", str(values.seed)]
            words += ["--models_dir", values.models_dir] if values.models_dir else []
            done = subprocess.run(
                verb_command("new-model", [name, *words]),
                env=verb_environment(),
                capture_output=True,
                text=True,
                errors="replace",
            )
            if done.returncode and not folder.exists():  # another process may have been faster
                raise UserError(f"--n_vocab {size}: {done.stderr.strip().splitlines()[-1]}")
        model = find_model(folder)
        texts = tokenization.read_texts(
            tokenization.find_files(values.val_dataset),
            reading=build(ReaderSettings, values),
            notice=notice,
        )
        self._scales[size] = 1 / bytes_per_token(model.tokenizer(), texts)
        return self._scales[size]


def _search(
    study: Study, values: Values, vocabularies: _Vocabularies, stop: Callable[[], bool]
) -> None:
    """Run trials until the limit, the time or a signal ends the search."""
    end = time.monotonic() + values.minutes * 60 if values.minutes else math.inf

    def ends() -> bool:
        return stop() or time.monotonic() >= end

    while not ends():
        with study.next_trial(values.trials) as claimed:
            if claimed is None:
                return
            trial, lock = claimed
            resumed = " (resumed)" if trial.resumed else ""
            print(f"Trial {trial.number}{resumed}: {_described(trial.parameters)}", flush=True)
            scale = vocabularies.prepare(trial.parameters)
            words = _words(values, trial.parameters, vocabularies, f"{study.name}-{trial.number}")
            outcome = run_trial(study, trial, lock, words, scale, ends, _show_loss)
            if outcome is not None and outcome.error:
                notice(f"Trial {trial.number} failed. {outcome.error}")
        if not values.keep:
            study.delete_losers()


def _words(
    values: Values,
    parameters: Mapping[str, Any],
    vocabularies: _Vocabularies,
    run_name: str,
    without: Collection[str] = (),
) -> list[str]:
    """Return the flags of train for a trial, without some that are named."""
    trained = _training_values(values, parameters)
    trained.run_name = run_name
    trained.model_name = vocabularies.model_of(parameters)
    return words_of(train.COMMAND.options, trained, without)


def _show_loss(step: int, loss: float) -> None:
    print(f"  [{step}] validation loss = {loss:.4f}", flush=True)


def _described(parameters: Mapping[str, Any]) -> str:
    """Return the parameters as flags, without those that have train's default."""
    known = {option.name: option.default for option in train.COMMAND.options}
    return " ".join(
        f"--{name} {_short(value)}"
        for name, value in parameters.items()
        if value is not None and value != known.get(name)
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show_results(
    study: Study, values: Values, workspace: Workspace, vocabularies: _Vocabularies
) -> None:
    """Print the table of trials, the best command line and the names of the plots.

    Raises:
        UserError: all trials failed.
    """
    trials = study.counted()
    if not trials:
        return
    space = _space(values)
    names = [name for name, dimension in space.items() if dimension.is_searched]
    measure = "loss per byte" if values.n_vocab else "loss"
    ranked = sorted(trials, key=lambda trial: (_loss(trial), trial.number))
    print()
    print_table(
        ["trial", measure, "state", *names],
        [
            [
                f"{study.name}-{trial.number}",
                formatted(_loss(trial)) if math.isfinite(_loss(trial)) else "",
                STATES[trial.state.name],
                *(_short(trial.params.get(name, "")) for name in names),
            ]
            for trial in ranked
        ],
    )
    best = study.best()
    if best is None:
        if all(ERROR in trial.user_attrs for trial in trials):
            raise UserError(
                f"All {len(trials)} trials failed. The last one: {trials[-1].user_attrs[ERROR]} "
                "Change the search space, and choose another --study."
            )
        return
    parameters = {name: dimension.values[0] for name, dimension in space.items()} | best.params
    without = ("sample_every",) if values.sample_every == NEVER else ()
    words = _words(values, parameters, vocabularies, f"{study.name}-best", without)
    print(f"\nBest trial: {study.name}-{best.number}, validation {measure} {best.value:.4f}")
    print(escaped(f"Train with its settings: {command_line('train')} {as_typed(words)}"))
    model = ["--model_name", f"{study.name}-{best.number}/best"]
    model += ["--models_dir", values.models_dir] if values.models_dir else []
    print(escaped(f"Sample with: {command_line('interactive')} {as_typed(model)}"))
    if importlib.util.find_spec("matplotlib"):
        from gpt2.tuning.plots import save_plots

        for path in save_plots(study.optuna, workspace.checkpoint / study.name):
            print("Wrote", shown(path))


def _loss(trial: FrozenTrial) -> float:
    """Return the loss of a trial, that of its last validation if it was pruned; inf if unknown."""
    return math.inf if trial.value is None else trial.value


COMMAND = Command(
    summary="Search for the training settings with the lowest validation loss.",
    details="""\
tune --dataset text.npz --model_name small --max_steps 300 --val_every 50 --trials 20 \\
    --learning_rate 1e-4..1e-2 --batch_size 1,2,4 --dropout 0..0.2

A list such as 1,2,4 or a range such as 0..0.2 is searched, a single value is used by all trials.
Ranges over a factor of 10 or more are searched on a log scale. Each trial is a run of train named
STUDY-N; all other flags are those of train. Ctrl+C saves and stops; the same command resumes.""",
    groups={
        "study": options_of(TuneOptions),
        "settings to search": SEARCHED,
        "flags of train, the same for all trials": PASSED,
    },
    run=run,
    check=check,
)
