"""`train`: train a model on text, or resume a run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt2 import randomness
from gpt2.checkpoint import bundle
from gpt2.checkpoint.export import check_target, export_model
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checkpoint.run import RunFolder
from gpt2.checks import LARGEST_COUNT, is_count, setting
from gpt2.commands import inputs
from gpt2.commands.flags import Command, Values, build, options_of, words_of
from gpt2.commands.signals import StopSignal, load_tensorflow
from gpt2.commands.terminal import as_typed, byte_bar, duration, notice, shown
from gpt2.commands.training_screen import Screen, print_plan
from gpt2.data import datasets, templates, tokenization
from gpt2.data.datasets import DatasetSettings, DocumentSet, TokenStream
from gpt2.data.readers import ReaderSettings
from gpt2.data.samplers import DocumentSampler, StreamSampler, make_sampler, make_validation_sampler
from gpt2.data.templates import SavedTemplate, Template
from gpt2.errors import UserError, escaped, quoted
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams
from gpt2.locks import run_lock
from gpt2.tokenizer import Tokenizer
from gpt2.training import changes, events, run_log
from gpt2.training.best import BestCheckpoint
from gpt2.training.cluster import find_cluster
from gpt2.training.loggers import Logger, TensorBoardLogger, WandbLogger, load_wandb
from gpt2.training.progress import TrainingProgress
from gpt2.training.resume import LATEST, ResumedTraining, ResumePoint, find_resume_point
from gpt2.training.run_log import HISTORY, HistoryLogger, keep_samples
from gpt2.training.settings import LoopSettings, TrainerSettings
from gpt2.workspace import Workspace, command_line

VALIDATION_SEED = 1  # the same validation batches for all runs, as in 2019


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What train takes besides the settings of the library."""

    dataset: str = setting(
        help="dataset: text or the output of encode; a file, folder, or glob pattern",
        metavar="PATH",
    )
    model_name: str | None = setting(
        None, "model to start from (default: 124M; a resumed run has its own)", metavar="MODEL"
    )
    seed: int | None = setting(
        None,
        "random seed (default: a random one; a resumed run has its own)",
        low=0,
        high=math.inf,
    )
    twremat_memlimit: str | None = setting(
        None, "ignored; accepted for command lines of 2021", metavar="SIZE"
    )
    restore_from: str = setting(
        "latest",
        '"latest", "fresh", or a checkpoint: its folder, its prefix, or its .index file',
        metavar="WHERE",
    )
    run_name: str = setting("run1", "name of the run: its folder under checkpoint/", metavar="RUN")
    wandb: str | None = setting(
        None, "also log to this Weights & Biases project (pip install wandb)", metavar="PROJECT"
    )
    distribute: str = setting(
        "auto",
        "share each batch among several devices: the workers of TF_CONFIG or SLURM, all GPUs of "
        "this machine, or off; auto does so where there are several",
        choices=("auto", "off", "mirrored", "multi_worker"),
    )
    val_dataset: str | None = setting(
        None, "validation set, as for --dataset (default: the training set)", metavar="PATH"
    )
    val_split: float | None = setting(
        None,
        "use this fraction of the dataset, at its end, as the validation set",
        metavar="FRACTION",
        above=0,
        below=1,
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
    trainer_settings, loop_settings = training_settings(values)
    dataset_settings = build(DatasetSettings, values, line_by_line=values.lines)
    reading = build(ReaderSettings, values)
    workspace = Workspace.find(values.models_dir, values.model_name)
    run_folder = RunFolder(workspace.run_folder(values.run_name))
    model = workspace.model_folder_or_none(values.run_name)
    if model not in (None, run_folder.path):
        notice(
            f"--run_name {values.run_name}: the model {shown(model)} has the same name and comes "
            f"first. Choose another name, or give the run as {shown(run_folder.path)} later."
        )
    target = _export_target(values, workspace)
    if values.wandb:
        load_wandb()
    cluster = None if values.estimate else find_cluster(values.distribute, os.environ)
    is_chief = cluster is None or cluster.index == 0
    # Only the chief writes to the run folder, which all workers see. An estimate writes nothing,
    # not even a lock.
    writes = is_chief and not values.estimate
    with run_lock(run_folder.path) if writes else contextlib.nullcontext():
        point = find_resume_point(
            run_folder, values.model_name, values.models_dir, values.restore_from
        )
        if cluster and values.seed is None and not point.progress:
            raise UserError("Several workers need --seed N, the same for all of them.")
        seed, seed_note = _seed(values, run_folder, point)
        hparams, tokenizer = point.model.hparams, point.model.tokenizer()
        run_folder.check_model(point.model)
        loop_settings.check_model(hparams)
        trainer_settings.trained_tensors(hparams)  # raises if the model lacks a layer or rank

        packing = _packing(dataset_settings, run_folder, point)
        dataset_settings = dataclasses.replace(dataset_settings, packing=packing)

        print("Loading dataset...", flush=True)
        training, validation = _load_samplers(
            values, dataset_settings, reading, hparams, tokenizer, seed
        )
        size = loop_settings.examples_per_step
        examples = point.progress.examples if point.progress else None
        if examples is None:
            examples = run_log.examples_seen(run_folder.path, point.done, size)
        last_step = loop_settings.last_step(training.steps_per_epoch(size), point.done, examples)
        trainer_settings = dataclasses.replace(trainer_settings, schedule_steps=last_step)
        print_plan(training, validation, hparams, trainer_settings, loop_settings)

        load_tensorflow(find_devices=cluster is None)
        from gpt2.training import distribution

        if cluster:
            print(f"Waiting for the {len(cluster.addresses)} workers...", flush=True)
        devices = distribution.connect(values.distribute, cluster)
        if devices.devices > 1:
            devices.check_batch_size(loop_settings.batch_size)
            print(f"Training on {devices.devices} devices, worker {devices.worker}", flush=True)
        from gpt2.training.loop import Loop  # creates constants, which a cluster comes before

        print("Loading checkpoint", shown(point.checkpoint), flush=True)
        resumed = point.resume(trainer_settings, seed, devices)
        done = resumed.point.done
        if values.estimate:
            _print_time(resumed, training, loop_settings, last_step)
            return
        if resumed.progress.examples is None and done:
            resumed.progress.examples = run_log.examples_seen(run_folder.path, done, size)
        for note in (
            *resumed.point.notes,
            *seed_note,
            *_changes(values, run_folder, resumed, trainer_settings),
        ):
            notice(note)
        if cluster:
            first_batch = training.batch(0, size)
            devices.check_same(
                {
                    **{f"--{name}": value for name, value in vars(values).items()},
                    "dataset": (training.steps_per_epoch(1), first_batch.fingerprint()),
                    "checkpoint": (done, bundle.fingerprint(point.checkpoint)),
                }
            )
        resumed.progress.packing = dataset_settings.packed
        samples = workspace.samples_folder(values.run_name)
        loggers: list[Logger] = []
        if is_chief:
            loggers = _begin_call(values, run_folder, samples, resumed, last_step, reading)
        loop = Loop(
            resumed.trainer,
            training,
            validation,
            tokenizer,
            run_folder,
            samples,
            loop_settings,
            resumed.progress,
            done=done,
            loggers=loggers,
            encoding=values.encoding,
            distribution=devices,
        )
        stop = StopSignal(
            "Stopping after this step, then saving. Press Ctrl+C again to quit without saving."
        )
        print("Training...", flush=True)
        with stop, open_screen(done, last_step, stop.request, values.print_every) as screen:
            for event in loop.train(stop, screen.validation_bar):
                if is_chief or not isinstance(event, events.StepFinished | events.Validated):
                    screen.show(event)
                if isinstance(event, events.Finished):
                    next_command = _sample_command(values, workspace)
                    screen.print(_last_line(event.reason, run_folder, resumed.progress))
                    screen.print(escaped(f"Sample with: {next_command}"))
                    if target and is_chief:
                        _export(run_folder, resumed.progress, target, values, screen)
            if stop() and run_folder.checkpoints():
                screen.print(escaped(f"Resume with: {_resume_command(values)}"))


def _begin_call(
    values: Values,
    run_folder: RunFolder,
    samples: Path,
    resumed: ResumedTraining,
    last_step: int | None,
    reading: ReaderSettings,
) -> list[Logger]:
    """Prepare the run folder for a call that is about to train; return its loggers."""
    model, done = resumed.point.model, resumed.point.done
    run_folder.adopt(model)
    _keep_template(run_folder, datasets.find_template(values.dataset, reading, model.tokenizer()))
    config = _describe(values, run_folder, resumed, last_step)
    if values.restore_from != LATEST:
        _keep_what_follows(run_folder, done)
    if (values.restore_from != LATEST or not done) and (kept := keep_samples(samples, done)):
        notice(f"The run's earlier samples are kept in {shown(kept)}.")
    try:
        run_log.add_call(run_folder.path, **config)
    except UserError as error:  # such as a full disk, which must not end a run that resumes
        notice(f"{error} Training continues; this call is not recorded.")
    return _loggers(values, run_folder, resumed, config)


def _seed(values: Values, run_folder: RunFolder, point: ResumePoint) -> tuple[int, tuple[str, ...]]:
    """Return the seed of the run from now on, and a notice if it is not known to be the run's own.

    A resumed run continues exactly, as it keeps its seed unless another one is given.
    """
    if values.seed is not None or not point.done:
        return randomness.check_seed(values.seed), ()
    if point.progress:
        return point.progress.seed, ()
    recorded = run_log.call_before(run_folder.path, point.done).get("seed")
    if isinstance(recorded, int) and is_count(recorded, math.inf) and recorded >= 0:
        return recorded, (
            f"The random seed, {recorded}, is that of config.json. The average training loss so "
            "far is unknown.",
        )
    seed = randomness.check_seed(None)
    return seed, (
        "The random seed of the run and its average training loss are unknown. It continues with "
        f"a new seed, {seed}; give its own as --seed if you know it.",
    )


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


def _print_time(
    resumed: ResumedTraining,
    training: StreamSampler | DocumentSampler,
    settings: LoopSettings,
    last_step: int | None,
) -> None:
    """Print how long training takes, from a few measured steps."""
    from gpt2.training.speed import seconds_per_step

    print("Measuring a few steps...", flush=True)
    seconds = seconds_per_step(resumed.trainer, training, settings)
    epoch = training.steps_per_epoch(settings.examples_per_step)
    print(f"Time, without samples, validation and saving: {seconds:.3g} s per step")
    print(f"  1,000 steps: {duration(1000 * seconds)}")
    print(f"  One epoch ({epoch:,} steps): {duration(epoch * seconds)}")
    if last_step is not None:
        left = max(0, last_step - resumed.point.done)
        print(f"  Steps left in this run ({left:,}): {duration(left * seconds)}")


def training_settings(values: Values) -> tuple[TrainerSettings, LoopSettings]:
    """Return the settings of the steps and of the loop.

    Raises:
        UserError: a value is out of range, or two flags contradict each other.
    """
    if values.val_split is not None and not values.val_every:
        raise UserError("--val_split needs --val_every N. Give both.")
    if values.val_split is not None and values.val_dataset:
        raise UserError("--val_split cannot be combined with --val_dataset. Omit one of them.")
    loop_settings = build(
        LoopSettings,
        values,
        sampling=SamplingSettings.of_2021(values.top_k, values.top_p),
        held_out=bool(values.val_split or values.val_dataset),
    )
    # With --epochs, the length of the schedule is known once the dataset is loaded.
    length = values.max_steps or (LARGEST_COUNT if values.epochs else None)
    return build(TrainerSettings, values, schedule_steps=length), loop_settings


def _packing(settings: DatasetSettings, run_folder: RunFolder, point: ResumePoint) -> bool:
    """Return whether to pack examples: a run that resumes keeps to what it was begun with."""
    if not settings.apart or not point.done:
        return settings.packing
    saved = point.progress.packing if point.progress else None
    packing = run_log.last_packing(run_folder.path) if saved is None else saved
    if packing != settings.packing:
        notice(
            f"This run was begun {'with' if packing else 'without'} packing and continues "
            f"{'with' if packing else 'without'} it. To {'stop' if packing else 'start'} packing, "
            "give a new --run_name."
        )
    return packing


def _load_samplers(
    values: Values,
    settings: DatasetSettings,
    reading: ReaderSettings,
    hparams: HParams,
    tokenizer: Tokenizer,
    seed: int,
) -> tuple[StreamSampler | DocumentSampler, DocumentSampler | None]:
    """Return samplers of the training set and the validation set, read with a progress bar."""

    def read(path: str) -> TokenStream | DocumentSet:
        with byte_bar(tokenization.find_files(path)) as progress:
            return datasets.read(
                path,
                settings,
                tokenizer,
                hparams.n_vocab,
                combine=values.combine,
                reading=reading,
                legacy_endoftext=values.legacy_endoftext,
                progress=progress,
                notice=notice,
            )

    training = read(values.dataset)
    validation: TokenStream | DocumentSet | None = None
    if values.val_split:
        training, validation = training.split(values.val_split)
    elif values.val_every:
        validation = read(values.val_dataset) if values.val_dataset else training
    elif values.val_dataset:
        notice("--val_dataset is ignored without --val_every N.")
    sampler = make_sampler(training, hparams.n_ctx, seed, settings.packing)
    if validation is None:
        return sampler, None
    return sampler, make_validation_sampler(
        validation, hparams.n_ctx, VALIDATION_SEED, settings.packing
    )


def _changes(
    values: Values, run_folder: RunFolder, resumed: ResumedTraining, settings: TrainerSettings
) -> list[str]:
    """Return sentences on the flags with which the run continues differently than before."""
    done = resumed.point.done
    call = run_log.call_before(run_folder.path, done)
    if not done:
        return []  # a new beginning
    sentences = [
        *changes.describe_changes(call, vars(values), done + 1),
        changes.describe_kept_alpha(resumed.trainer.lora_alpha, values.lora_alpha),
        changes.describe_schedule(call, settings, done),
    ]
    return [sentence for sentence in sentences if sentence]


def _keep_what_follows(run_folder: RunFolder, done: int) -> None:
    """Keep checkpoints and history after the step that the user has chosen to start from."""
    if folder := run_folder.keep_after(done):
        notice(f"The run's checkpoints after step {done:,} are kept in {shown(folder)}.")
    if path := run_log.keep_history(run_folder.path, done):
        notice(f"The run's history until now is kept in {shown(path)}.")
    best = BestCheckpoint(run_folder).read()
    if best and (best.step > done or not done):
        notice(
            f"{shown(run_folder.best.path)} (validation loss {best.loss:.2f} at step "
            f"{best.step:,}) is kept until a lower loss is reached."
        )


def _describe(
    values: Values, run_folder: RunFolder, resumed: ResumedTraining, last_step: int | None
) -> dict[str, Any]:
    """Return what `config.json` records of this call, so that it can be repeated."""
    point = resumed.point
    known = run_log.last_data(run_folder.path)
    alpha = resumed.trainer.lora_alpha
    return {
        "flags": vars(values) | ({"lora_alpha": alpha} if alpha is not None else {}),
        "seed": resumed.progress.seed,
        "packing": resumed.progress.packing,
        "steps_before": point.done,
        "last_step": last_step,
        "checkpoint": {
            "path": point.checkpoint,
            "index_sha256": bundle.fingerprint(point.checkpoint),
        },
        "hparams": dataclasses.asdict(point.model.hparams),
        "data": {
            path: run_log.data_in_short(tokenization.find_files(path), known.get(path))
            for path in (values.dataset, values.val_dataset)
            if path
        },
    }


def _keep_template(run_folder: RunFolder, template: Template | None) -> None:
    """Keep the template of the examples with the model, for prompts and chats.

    A dataset without a template leaves the run's own one, if it has one.
    """
    if template is None:
        return
    saved, known = SavedTemplate(template.text, template.is_chat), templates.load(run_folder.path)
    if known != saved:
        if known is not None:
            notice(f"The template of the run is now {quoted(saved.text)}.")
        templates.save(run_folder.path, saved)


def _loggers(
    values: Values, run_folder: RunFolder, resumed: ResumedTraining, config: dict[str, Any]
) -> list[Logger]:
    """Return the loggers of this call."""
    path, done = run_folder.path, resumed.point.done
    found: list[Logger] = [
        HistoryLogger(path / HISTORY, done, resumed.progress.validated),
        TensorBoardLogger(path),
    ]
    if values.wandb:
        found.append(WandbLogger(values.wandb, values.run_name, path, config))
    return found


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
            *options_of(TrainOptions, "dataset", "model_name"),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(inputs.TokenizationOptions),
            *options_of(DatasetSettings),
        ],
        "optimization": [
            *options_of(LoopSettings, "batch_size", "accumulate_gradients"),
            *options_of(
                TrainerSettings,
                *("optimizer", "learning_rate", "lr_schedule", "warmup_steps", "clip_norm"),
                *("weight_decay", "momentum", "dropout", "noise"),
            ),
            *options_of(TrainOptions, "seed"),
        ],
        "speed and memory": [
            *options_of(TrainerSettings, "precision", "memory_saving_gradients"),
            *options_of(TrainOptions, "distribute"),
            *options_of(TrainOptions, "twremat_memlimit"),
            *options_of(
                TrainerSettings,
                *("only_train_transformer_layers", "train_layers", "lora_rank", "lora_alpha"),
            ),
        ],
        "run": [
            *options_of(TrainOptions, "restore_from", "run_name"),
            *options_of(LoopSettings, "max_steps", "epochs", "max_minutes"),
            *options_of(LoopSettings, "save_every", "sample_every", "sample_length", "sample_num"),
            *options_of(SamplingSettings, "top_k", "top_p", top_k=40, top_p=0.0),
            *options_of(TrainOptions, "print_every", "wandb", "estimate", "export", "overwrite"),
        ],
        "validation": [
            *options_of(TrainOptions, "val_dataset", "val_split"),
            *options_of(LoopSettings, "val_every", "val_batch_size", "val_batch_count", "patience"),
        ],
        "how the files are read": inputs.reader_options(),
    },
    run=run,
)
