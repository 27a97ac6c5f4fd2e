"""One call that trains a run: the steps between its settings and the training loop.

The train command and `gpt2.train` take them in turn and show what each does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import randomness
from gpt2.checkpoint import bundle
from gpt2.checkpoint.run import RunFolder
from gpt2.checks import LARGEST_COUNT, is_count, settings_from
from gpt2.data import datasets, templates, tokenization
from gpt2.data.datasets import DatasetSettings, DocumentSet, TokenStream
from gpt2.data.readers import ReaderSettings
from gpt2.data.samplers import DocumentSampler, StreamSampler, make_sampler, make_validation_sampler
from gpt2.data.templates import SavedTemplate, Template
from gpt2.data.tokenization import TokenizationSettings
from gpt2.errors import UserError, quoted, shown
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams
from gpt2.locks import run_lock
from gpt2.training import changes, run_log
from gpt2.training.best import BestCheckpoint
from gpt2.training.cluster import Cluster, find_cluster
from gpt2.training.loggers import Logger, TensorBoardLogger, WandbLogger, load_wandb
from gpt2.training.resume import LATEST, ResumedTraining, ResumePoint, find_resume_point
from gpt2.training.run_log import HISTORY, HistoryLogger, keep_samples
from gpt2.training.settings import LoopSettings, RunSettings, TrainerSettings
from gpt2.workspace import Workspace

if TYPE_CHECKING:
    from gpt2.training.distribution import Distribution
    from gpt2.training.loop import Loop

VALIDATION_SEED = 1  # the same validation batches for all runs, as in 2019

# Takes the files to read; shows how many bytes of them are read.
ByteBar = Callable[[list[Path]], contextlib.AbstractContextManager[Callable[[int], object]]]


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """The settings of one call, and the flags that `config.json` records of it."""

    run: RunSettings
    trainer: TrainerSettings
    loop: LoopSettings
    dataset: DatasetSettings
    reading: ReaderSettings
    tokenization: TokenizationSettings
    flags: Mapping[str, Any]

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> TrainingPlan:
        """Return the settings that these flags stand for.

        Args:
            flags: a value for each setting without a default and for any others, by name; `top_k`
                and `top_p` are those of the samples. Other names are only recorded.

        Raises:
            UserError: a value is invalid, or two settings contradict each other.
        """
        trainer, loop = training_settings(flags)
        reading = settings_from(ReaderSettings, flags)
        return cls(
            settings_from(RunSettings, flags),
            trainer,
            loop,
            settings_from(DatasetSettings, flags, line_by_line=reading.lines),
            reading,
            settings_from(TokenizationSettings, flags),
            flags,
        )


def training_settings(flags: Mapping[str, Any]) -> tuple[TrainerSettings, LoopSettings]:
    """Return the settings of the steps and of the loop; see `TrainingPlan.of`."""
    get = flags.get
    if get("val_split") is not None and not get("val_every"):
        raise UserError("--val_split needs --val_every N. Give both.")
    if get("val_split") is not None and get("val_dataset"):
        raise UserError("--val_split cannot be combined with --val_dataset. Omit one of them.")
    loop_settings = settings_from(
        LoopSettings,
        flags,
        sampling=SamplingSettings.of_2021(get("top_k", 40), get("top_p", 0.0)),
        held_out=bool(get("val_split") or get("val_dataset")),
    )
    # With epochs, the length of the schedule is known once the dataset is loaded.
    length = loop_settings.max_steps or (LARGEST_COUNT if loop_settings.epochs else None)
    return settings_from(TrainerSettings, flags, schedule_steps=length), loop_settings


class TrainingSession:
    """A call that trains a run, step by step: the methods are called in their order here."""

    point: ResumePoint
    hparams: HParams
    training: StreamSampler | DocumentSampler
    validation: DocumentSampler | None
    last_step: int | None
    resumed: ResumedTraining

    def __init__(
        self,
        plan: TrainingPlan,
        notice: Callable[[str], object],
        byte_bar: ByteBar,
        is_trial: bool = False,
    ):
        """Find the workspace and the folder of the run.

        Args:
            notice: called with sentences for the user.
            byte_bar: shows how much of the dataset is read.
            is_trial: write nothing and start no cluster, as nothing will be trained.
        """
        run = plan.run
        self._plan, self._notice, self._byte_bar, self._is_trial = plan, notice, byte_bar, is_trial
        self.trainer_settings, self.loop_settings = plan.trainer, plan.loop
        self._dataset_settings = plan.dataset
        self.workspace = Workspace.find(run.models_dir, run.model_name)
        self.run_folder = RunFolder(self.workspace.run_folder(run.run_name))
        self.samples = self.workspace.samples_folder(run.run_name)
        self.cluster: Cluster | None = None
        model = self.workspace.model_folder_or_none(run.run_name)
        if model not in (None, self.run_folder.path):
            notice(
                f"--run_name {run.run_name}: the model {shown(model)} has the same name and comes "
                f"first. Choose another name, or give the run as {shown(self.run_folder.path)} "
                "later."
            )

    @property
    def is_chief(self) -> bool:
        """Whether this process writes to the run folder, which all workers see."""
        return self.cluster is None or self.cluster.index == 0

    def check_environment(self) -> None:
        """Check that the packages are there, and find out about other workers.

        Raises:
            UserError: W&B is missing, or the cluster is not described correctly.
        """
        if self._plan.run.wandb:
            load_wandb()
        if not self._is_trial:
            self.cluster = find_cluster(self._plan.run.distribute, os.environ)

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Return the lock of the run; without writing, not even a lock file is written."""
        writes = self.is_chief and not self._is_trial
        return run_lock(self.run_folder.path) if writes else contextlib.nullcontext()

    def find_start(self) -> None:
        """Find the model or checkpoint to start from, and check the settings against it.

        Raises:
            UserError: there is none, or it does not go with the settings.
        """
        run = self._plan.run
        self.point = find_resume_point(
            self.run_folder, run.model_name, run.models_dir, run.restore_from
        )
        if self.cluster and run.seed is None and not self.point.progress:
            raise UserError("Several workers need --seed N, the same for all of them.")
        self._seed, self._seed_note = _seed(run.seed, self.run_folder, self.point)
        self.hparams, self._tokenizer = self.point.model.hparams, self.point.model.tokenizer()
        self.run_folder.check_model(self.point.model)
        self.loop_settings.check_model(self.hparams)
        self.trainer_settings.trained_tensors(self.hparams)  # raises if a layer or rank is missing
        self._dataset_settings = dataclasses.replace(
            self._dataset_settings, packing=self._packing()
        )

    def load_data(self) -> None:
        """Read the training set and the validation set; find the last step.

        Raises:
            UserError: a file cannot be read or holds too little text.
        """
        self.training, self.validation = self._load_samplers()
        size = self.loop_settings.examples_per_step
        examples = self.point.progress.examples if self.point.progress else None
        if examples is None:
            examples = run_log.examples_seen(self.run_folder.path, self.point.done, size)
        self.last_step = self.loop_settings.last_step(
            self.training.steps_per_epoch(size), self.point.done, examples
        )
        self.trainer_settings = dataclasses.replace(
            self.trainer_settings, schedule_steps=self.last_step
        )

    def connect(self) -> Distribution:
        """Import TensorFlow and return the devices to train on, after all workers have met."""
        from gpt2.training import distribution

        self._devices = distribution.connect(self._plan.run.distribute, self.cluster)
        if self._devices.devices > 1:
            self._devices.check_batch_size(self.loop_settings.batch_size)
        return self._devices

    def load_checkpoint(self) -> None:
        """Load the weights and the state of the optimizer.

        Raises:
            UserError: the checkpoint is corrupted, or the memory does not suffice.
        """
        self.resumed = self.point.resume(self.trainer_settings, self._seed, self._devices)

    def begin(self) -> Loop:
        """Report what changes, prepare the run folder, and return the loop.

        Raises:
            UserError: the workers differ, or the run folder cannot be written.
        """
        from gpt2.training.loop import Loop  # creates constants, which a cluster comes before

        resumed, done = self.resumed, self.resumed.point.done
        size = self.loop_settings.examples_per_step
        if resumed.progress.examples is None and done:
            resumed.progress.examples = run_log.examples_seen(self.run_folder.path, done, size)
        for note in (*resumed.point.notes, *self._seed_note, *self._changes()):
            self._notice(note)
        if self.cluster:
            self._check_workers()
        resumed.progress.packing = self._dataset_settings.packed
        return Loop(
            resumed.trainer,
            self.training,
            self.validation,
            self._tokenizer,
            self.run_folder,
            self.samples,
            self.loop_settings,
            resumed.progress,
            done=done,
            loggers=self._begin_call() if self.is_chief else [],
            encoding=self._plan.reading.encoding,
            distribution=self._devices,
        )

    def _check_workers(self) -> None:
        """Check that all workers train the same."""
        first_batch = self.training.batch(0, self.loop_settings.examples_per_step)
        self._devices.check_same(
            {
                **{f"--{name}": value for name, value in self._plan.flags.items()},
                "dataset": (self.training.steps_per_epoch(1), first_batch.fingerprint()),
                "checkpoint": (
                    self.resumed.point.done,
                    bundle.fingerprint(self.point.checkpoint),
                ),
            }
        )

    def _begin_call(self) -> list[Logger]:
        """Prepare the run folder for a call that is about to train; return its loggers."""
        run_folder, samples, run = self.run_folder, self.samples, self._plan.run
        model, done = self.resumed.point.model, self.resumed.point.done
        run_folder.adopt(model)
        self._keep_template(
            datasets.find_template(run.dataset, self._plan.reading, model.tokenizer())
        )
        config = self._describe()
        if run.restore_from != LATEST:
            self._keep_what_follows(done)
        if (run.restore_from != LATEST or not done) and (kept := keep_samples(samples, done)):
            self._notice(f"The run's earlier samples are kept in {shown(kept)}.")
        try:
            moved = run_log.add_call(run_folder.path, **config)
            if moved:
                self._notice(
                    f"The run's config.json could not be read and is now {shown(moved)}. Flags "
                    "that differ from earlier calls are not known."
                )
        except UserError as error:  # such as a full disk, which must not end a run that resumes
            self._notice(f"{error} Training continues; this call is not recorded.")
        return self._loggers(config)

    def _packing(self) -> bool:
        """Return whether to pack examples: a run that resumes keeps to what it was begun with."""
        settings, point = self._dataset_settings, self.point
        if not settings.apart or not point.done:
            return settings.packing
        saved = point.progress.packing if point.progress else None
        packing = run_log.last_packing(self.run_folder.path) if saved is None else saved
        if packing != settings.packing:
            self._notice(
                f"This run was begun {'with' if packing else 'without'} packing and continues "
                f"{'with' if packing else 'without'} it. To {'stop' if packing else 'start'} "
                "packing, give a new --run_name."
            )
        return packing

    def _load_samplers(
        self,
    ) -> tuple[StreamSampler | DocumentSampler, DocumentSampler | None]:
        """Return samplers of the training set and the validation set, read with a progress bar."""

        run, settings, text = self._plan.run, self._dataset_settings, self._plan.tokenization

        def read(path: str) -> TokenStream | DocumentSet:
            with self._byte_bar(tokenization.find_files(path)) as progress:
                return datasets.read(
                    path,
                    settings,
                    self._tokenizer,
                    self.hparams.n_vocab,
                    combine=text.combine,
                    reading=self._plan.reading,
                    legacy_endoftext=text.legacy_endoftext,
                    progress=progress,
                    notice=self._notice,
                )

        training = read(run.dataset)
        validation: TokenStream | DocumentSet | None = None
        if run.val_split:
            training, validation = training.split(run.val_split)
        elif self._plan.loop.val_every:
            validation = read(run.val_dataset) if run.val_dataset else training
        elif run.val_dataset:
            self._notice("--val_dataset is ignored without --val_every N.")
        sampler = make_sampler(training, self.hparams.n_ctx, self._seed, settings.packing)
        if validation is None:
            return sampler, None
        return sampler, make_validation_sampler(
            validation, self.hparams.n_ctx, VALIDATION_SEED, settings.packing
        )

    def _changes(self) -> list[str]:
        """Return sentences on the flags with which the run continues differently than before."""
        run_folder, resumed = self.run_folder, self.resumed
        done = resumed.point.done
        call = run_log.call_before(run_folder.path, done)
        if not done:
            return []  # a new beginning
        sentences = [
            *changes.describe_changes(call, self._plan.flags, done + 1),
            changes.describe_kept_alpha(
                resumed.trainer.lora_alpha, self.trainer_settings.lora_alpha
            ),
            changes.describe_schedule(call, self.trainer_settings, done),
        ]
        return [sentence for sentence in sentences if sentence]

    def _keep_what_follows(self, done: int) -> None:
        """Keep checkpoints and history after the step that the user has chosen to start from."""
        run_folder = self.run_folder
        if folder := run_folder.keep_after(done):
            self._notice(f"The run's checkpoints after step {done:,} are kept in {shown(folder)}.")
        if path := run_log.keep_history(run_folder.path, done):
            self._notice(f"The run's history until now is kept in {shown(path)}.")
        best = BestCheckpoint(run_folder).read()
        if best and (best.step > done or not done):
            self._notice(
                f"{shown(run_folder.best.path)} (validation loss {best.loss:.2f} at step "
                f"{best.step:,}) is kept until a lower loss is reached."
            )

    def _describe(self) -> dict[str, Any]:
        """Return what `config.json` records of this call, so that it can be repeated."""
        run, resumed = self._plan.run, self.resumed
        point = resumed.point
        known = run_log.last_data(self.run_folder.path)
        alpha = resumed.trainer.lora_alpha
        return {
            "flags": dict(self._plan.flags) | ({"lora_alpha": alpha} if alpha is not None else {}),
            "seed": resumed.progress.seed,
            "packing": resumed.progress.packing,
            "steps_before": point.done,
            "last_step": self.last_step,
            "checkpoint": {
                "path": point.checkpoint,
                "index_sha256": bundle.fingerprint(point.checkpoint),
            },
            "hparams": dataclasses.asdict(point.model.hparams),
            "data": {
                path: run_log.data_in_short(tokenization.find_files(path), known.get(path))
                for path in (run.dataset, run.val_dataset)
                if path
            },
        }

    def _keep_template(self, template: Template | None) -> None:
        """Keep the template of the examples with the model, for prompts and chats.

        A dataset without a template leaves the run's own one, if it has one.
        """
        if template is None:
            return
        saved, known = (
            SavedTemplate(template.text, template.is_chat),
            templates.load(self.run_folder.path),
        )
        if known != saved:
            if known is not None:
                self._notice(f"The template of the run is now {quoted(saved.text)}.")
            templates.save(self.run_folder.path, saved)

    def _loggers(self, config: dict[str, Any]) -> list[Logger]:
        """Return the loggers of this call."""
        run, resumed = self._plan.run, self.resumed
        path, done = self.run_folder.path, resumed.point.done
        found: list[Logger] = [
            HistoryLogger(path / HISTORY, done, resumed.progress.validated),
            TensorBoardLogger(path),
        ]
        if run.wandb:
            found.append(WandbLogger(run.wandb, run.run_name, path, config))
        return found


def _seed(
    given: int | None, run_folder: RunFolder, point: ResumePoint
) -> tuple[int, tuple[str, ...]]:
    """Return the seed of the run from now on, and a notice if it is not known to be the run's own.

    A resumed run continues exactly, as it keeps its seed unless another one is given.
    """
    if given is not None or not point.done:
        return randomness.check_seed(given), ()
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
