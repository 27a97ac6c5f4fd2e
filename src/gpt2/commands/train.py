"""`train`: train a model on text, or resume a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from gpt2.checkpoint.export import check_target, export_model
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.run import RunFolder
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.flags import Command, Values, options_of, words_of
from gpt2.commands.signals import StopSignal, load_tensorflow
from gpt2.commands.terminal import as_typed, byte_bar, duration, notice, shown
from gpt2.commands.training_screen import Screen, print_plan
from gpt2.data.datasets import DatasetSettings
from gpt2.data.tokenization import TokenizationSettings
from gpt2.errors import UserError, escaped
from gpt2.generation.sampling import SamplingSettings
from gpt2.training import events
from gpt2.training.best import BestCheckpoint
from gpt2.training.progress import TrainingProgress
from gpt2.training.session import TrainingPlan, TrainingSession
from gpt2.training.settings import LoopSettings, RunSettings, TrainerSettings
from gpt2.workspace import Workspace, command_line


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What train takes besides the settings of the library."""

    twremat_memlimit: str | None = setting(
        None, "ignored; accepted for command lines of 2021", metavar="SIZE"
    )
    print_every: int | None = setting(
        None,
        "print the loss every N steps (default: every step; on a terminal about once a second)",
        low=1,
    )
    estimate: bool = setting(
        False, "print tokens, steps per epoch, memory and time per step, then exit without training"
    )
    export: str | None = setting(
        None,
        "copy the finished model, or the best checkpoint if there is one, to models/NAME",
        metavar="NAME",
    )
    overwrite: bool = setting(False, "replace the model of --export if it exists")


def run(values: Values) -> None:
    """Train until the settings or Ctrl+C end the training, then save."""
    train(values, Screen)


def train(values: Values, open_screen: Callable[..., Screen]) -> None:
    """Train as `run` does.

    Args:
        open_screen: takes the arguments of `Screen`; another screen can show the events.
    """
    # All flags and files are checked before TensorFlow is imported, which takes seconds.
    plan = TrainingPlan.of(vars(values))
    session = TrainingSession(plan, notice, byte_bar, is_trial=values.estimate)
    target = _export_target(values, session.workspace)
    session.check_environment()
    with session.lock():
        session.find_start()
        print("Loading dataset...", flush=True)
        session.load_data()
        print_plan(
            session.training,
            session.validation,
            session.hparams,
            session.trainer_settings,
            session.loop_settings,
        )
        _load_checkpoint(session)
        if values.estimate:
            _print_time(session)
        else:
            _train(session, values, open_screen, target)


def _load_checkpoint(session: TrainingSession) -> None:
    """Import TensorFlow, meet the other workers if there are any, and load the checkpoint."""
    cluster = session.cluster
    load_tensorflow(find_devices=cluster is None)
    if cluster:
        print(f"Waiting for the {len(cluster.addresses)} workers...", flush=True)
    devices = session.connect()
    if devices.devices > 1:
        print(f"Training on {devices.devices} devices, worker {devices.worker}", flush=True)
    print("Loading checkpoint", shown(session.point.checkpoint), flush=True)
    session.load_checkpoint()


def _train(
    session: TrainingSession,
    values: Values,
    open_screen: Callable[..., Screen],
    target: Path | None,
) -> None:
    """Train and show the events; export the result to `target` if that is given."""
    loop, run_folder = session.begin(), session.run_folder
    stop = StopSignal(
        "Stopping after this step, then saving. Press Ctrl+C again to quit without saving."
    )
    print("Training...", flush=True)
    bounds = session.resumed.point.done, session.last_step
    with stop, open_screen(*bounds, stop.request, values.print_every) as screen:
        for event in loop.train(stop, screen.validation_bar):
            if session.is_chief or not isinstance(event, events.StepFinished | events.Validated):
                screen.show(event)
            if isinstance(event, events.Finished):
                progress = session.resumed.progress
                next_command = _sample_command(values, session.workspace)
                screen.print(_last_line(event.reason, run_folder, progress))
                if run_folder.checkpoints():
                    screen.print(escaped(f"Sample with: {next_command}"))
                if target and session.is_chief:
                    _export(run_folder, progress, target, values, screen)
        if stop() and run_folder.checkpoints():
            screen.print(escaped(f"Resume with: {_resume_command(values)}"))


def _export_target(values: Values, workspace: Workspace) -> Path | None:
    """Return the folder of --export, None without it.

    Raises:
        UserError: it cannot be exported to.
    """
    if values.export is None:
        if values.overwrite:
            raise UserError("--overwrite needs --export NAME, the model to replace. Give both.")
        return None
    if values.export == values.run_name:
        raise UserError(
            f"--export {values.export}: the run has this name, which would then mean the model. "
            "Choose another name."
        )
    path = workspace.new_model_folder(values.export)
    check_target(path, values.overwrite)
    return path


def _export(
    run_folder: RunFolder, progress: TrainingProgress, target: Path, values: Values, screen: Screen
) -> None:
    """Copy the best checkpoint of the run, or else the newest, to a model folder."""
    source = run_folder if progress.best_step is None else run_folder.best
    export_model(ModelFolder(source.path), target, values.overwrite)
    screen.print(f"Exported {shown(source.path)} to {shown(target)}")


def _print_time(session: TrainingSession) -> None:
    """Print how long training takes, from a few measured steps."""
    from gpt2.training.speed import seconds_per_step

    print("Measuring a few steps...", flush=True)
    settings, resumed = session.loop_settings, session.resumed
    seconds = seconds_per_step(resumed.trainer, session.training, settings)
    epoch = session.training.steps_per_epoch(settings.examples_per_step)
    print(f"Time, without samples, validation and saving: {seconds:.3g} s per step")
    print(f"  1,000 steps: {duration(1000 * seconds)}")
    print(f"  One epoch ({epoch:,} steps): {duration(epoch * seconds)}")
    if session.last_step is not None:
        left = max(0, session.last_step - resumed.point.done)
        print(f"  Steps left in this run ({left:,}): {duration(left * seconds)}")


def _last_line(reason: str, run_folder: RunFolder, progress: TrainingProgress) -> str:
    """Return why the training ended and, if there was a validation set, the best checkpoint."""
    checkpoint = BestCheckpoint(run_folder)
    if progress.best_step is None or not checkpoint.exists:
        return reason
    best, known = shown(run_folder.best.path), checkpoint.read(progress)
    loss = f"validation loss {known.loss:.2f}" if known else "its validation loss is unknown"
    return f"{reason} Best checkpoint: {best} ({loss})."


def _resume_command(values: Values) -> str:
    """Return the command that resumes the run: this one, but not from another checkpoint."""
    words = words_of(COMMAND.options, values, without=("restore_from",))
    return f"{command_line('train')} {as_typed(words)}"


def _sample_command(values: Values, workspace: Workspace) -> str:
    """Return the command that samples from the run, or from its best checkpoint."""
    run_folder = RunFolder(workspace.run_folder(values.run_name))
    name = values.run_name
    if workspace.model_folder_or_none(name) != run_folder.path:
        name = shown(run_folder.path)  # a model has the same name
    words = ["--model_name", f"{name}/best" if BestCheckpoint(run_folder).exists else name]
    words += ["--models_dir", values.models_dir] if values.models_dir else []
    return f"{command_line('interactive')} {as_typed(words)}"


COMMAND = Command(
    summary="Train a GPT-2 model on your text.",
    details="Ctrl+C saves and stops; the same command resumes the run.",
    groups={
        "model and dataset": [
            *options_of(RunSettings, "dataset", "model_name"),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(TokenizationSettings),
            *options_of(DatasetSettings),
        ],
        "optimization": [
            *options_of(LoopSettings, "batch_size", "accumulate_gradients"),
            *options_of(
                TrainerSettings,
                *("optimizer", "learning_rate", "lr_schedule", "warmup_steps", "clip_norm"),
                *("weight_decay", "momentum", "dropout", "noise"),
            ),
            *options_of(RunSettings, "seed"),
        ],
        "speed and memory": [
            *options_of(TrainerSettings, "precision", "memory_saving_gradients"),
            *options_of(RunSettings, "distribute"),
            *options_of(TrainOptions, "twremat_memlimit"),
            *options_of(
                TrainerSettings,
                *("only_train_transformer_layers", "train_layers", "lora_rank", "lora_alpha"),
            ),
        ],
        "run": [
            *options_of(RunSettings, "restore_from", "run_name"),
            *options_of(LoopSettings, "max_steps", "epochs", "max_minutes"),
            *options_of(LoopSettings, "save_every", "sample_every", "sample_length", "sample_num"),
            *options_of(SamplingSettings, "top_k", "top_p", top_k=40, top_p=0.0),
            *options_of(TrainOptions, "print_every"),
            *options_of(RunSettings, "wandb"),
            *options_of(TrainOptions, "estimate", "export", "overwrite"),
        ],
        "validation": [
            *options_of(RunSettings, "val_dataset", "val_split"),
            *options_of(LoopSettings, "val_every", "val_batch_size", "val_batch_count", "patience"),
        ],
        "how the files are read": inputs.reader_options(),
    },
    run=run,
)
