#!/usr/bin/env python3
"""Train a GPT-2 on your own text.

    python src/train.py --dataset shakespeare.npz

Ctrl+C saves and ends; the same command goes on from there.
"""

import argparse
import dataclasses
import sys
from typing import Any

from command_line import (
    Parser,
    StopSignal,
    add_reading_flags,
    byte_bar,
    flags_of,
    load_tensorflow,
    reading_of,
    run,
    show_notice,
    shown,
)
from gpt2 import randomness
from gpt2.checkpoint import bundle
from gpt2.checkpoint.run import RunFolder
from gpt2.data import datasets, tokenization
from gpt2.data.datasets import DatasetSettings, DocumentSet, TokenStream
from gpt2.data.samplers import DocumentSampler, StreamSampler, make_sampler, make_validation_sampler
from gpt2.errors import UserError
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams
from gpt2.locks import run_lock
from gpt2.tokenizer import Tokenizer
from gpt2.training import run_log
from gpt2.training.loggers import Logger, WandbLogger, load_wandb
from gpt2.training.resume import ResumedTraining, find_resume_point
from gpt2.training.run_log import HISTORY, HistoryLogger
from gpt2.training.settings import OPTIMIZERS, PRECISIONS, SCHEDULES, LoopSettings, TrainerSettings
from gpt2.workspace import Workspace
from training_screen import Screen, say_what_is_ahead

VALIDATION_SEED = 1  # one set of validation batches for all runs, as in 2019


def parse_arguments() -> argparse.Namespace:
    parser = Parser("Fine-tune GPT-2 on your custom dataset.")
    # fmt: off
    add = parser.add_argument_group("what is trained, and on what").add_argument
    add("--dataset", metavar="PATH", required=True, help="text or what encode.py has made of it: a file, a folder, or a glob pattern")
    add("--model_name", metavar="MODEL", help="model to begin with (default: 124M; a run that goes on has its own)")
    add("--models_dir", metavar="PATH", default="models", help="folder that holds the models")
    add("--combine", metavar="CHARS", type=int, default=50000, help="join text files into chunks of this minimum size")
    add("--legacy_endoftext", action="store_true", help="spell <|endoftext|> out as the encoder of 2019 did, not as one token")
    add("--respect_documents", action="store_true", help="keep documents apart, which <|endoftext|> or the end of a file closes")
    add("--control_code_from", choices=("filename",), help="put the name of its file in front of each example, to ask for that kind later")
    add = parser.add_argument_group("the step").add_argument
    add("--batch_size", metavar="SIZE", type=int, default=1, help="batch size")
    add("--accumulate_gradients", metavar="N", type=int, default=1, help="accumulate the gradients of N batches for each step")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="optimizer")
    add("--learning_rate", metavar="LR", type=float, default=0.00002, help="learning rate of the optimizer")
    add("--lr_schedule", choices=SCHEDULES, default="constant", help="how the learning rate falls until --max_steps or --epochs")
    add("--warmup_steps", metavar="N", type=int, default=0, help="steps over which the learning rate rises to its height")
    add("--clip_norm", metavar="NORM", type=float, help="shorten gradients that are longer than this")
    add("--weight_decay", metavar="RATE", type=float, help="pull the matrices towards 0 (default: 0.01 for adamw, 0 for the others)")
    add("--momentum", metavar="SHARE", type=float, default=0.0, help="share of the last step that sgd takes again")
    add("--dropout", metavar="SHARE", type=float, default=0.0, help="share of the activations to leave out, against learning by heart")
    add("--noise", metavar="SHARE", type=float, default=0.0, help="share of the input tokens to replace by random ones")
    add("--seed", metavar="N", type=int, help="for the same training each time (default: a random one; a run that goes on has its own)")
    add = parser.add_argument_group("time and memory").add_argument
    add("--precision", choices=PRECISIONS, default="fp32", help="of the matrix products; auto takes bf16 where the hardware has it")
    add("--memory_saving_gradients", "--twremat", action="store_true", help="recompute each layer in the backward pass: less memory, more time")
    add("--twremat_memlimit", metavar="SIZE", help="accepted from commands of 2021 and not used: the recomputation here needs no limit")
    add("--only_train_transformer_layers", action="store_true", help="leave the embeddings and the last normalisation as they are")
    add("--train_layers", metavar="LAYERS", help="train these layers only, for example 8-11 or 0,5-7")
    add("--lora_rank", metavar="RANK", type=int, default=0, help="train small factors of the matrices instead of themselves, for example 8; 0 for off")
    add("--lora_alpha", metavar="ALPHA", type=float, default=32.0, help="how much the factors count: ALPHA / RANK times")
    add = parser.add_argument_group("the run").add_argument
    add("--restore_from", metavar="WHERE", default="latest", help='"latest", "fresh", or a checkpoint: its folder, prefix or .index file')
    add("--run_name", metavar="RUN", default="run1", help="folder of the run under checkpoint/ and samples/")
    add("--max_steps", metavar="N", type=int, help="end when the run has done N steps (default: go on until stopped)")
    add("--epochs", metavar="N", type=float, help="end when the run has gone N times over the dataset")
    add("--max_minutes", metavar="N", type=float, help="end N minutes after this call began to train")
    add("--save_every", metavar="N", type=int, default=1000, help="write a checkpoint every N steps")
    add("--sample_every", metavar="N", type=int, default=100, help="generate samples every N steps")
    add("--sample_length", metavar="TOKENS", type=int, help="tokens in each sample (default: the window less one, 1023 for the released models)")
    add("--sample_num", metavar="N", type=int, default=1, help="samples to generate each time")
    add("--top_k", metavar="K", type=int, default=40, help="draw samples among the K likeliest tokens; 0 for all")
    add("--top_p", metavar="P", type=float, default=0.0, help="draw samples among the likeliest tokens that reach probability P, whatever top_k is; 0 and 1 for off")
    add("--wandb", metavar="PROJECT", help="show the curves at Weights & Biases, too (needs: pip install wandb)")
    add = parser.add_argument_group("validation").add_argument
    add("--val_dataset", metavar="PATH", help="dataset to validate on (default: the training dataset itself)")
    add("--val_batch_size", metavar="SIZE", type=int, default=2, help="batch size of validation")
    add("--val_batch_count", metavar="N", type=int, default=40, help="batches of validation")
    add("--val_every", metavar="STEPS", type=int, default=0, help="compute the validation loss every N steps; 0 for never")
    add("--val_split", metavar="SHARE", type=float, help="hold this share of the dataset out, at its end, and validate on it")
    add("--patience", metavar="N", type=int, help="end when the validation loss has not fallen for N validations; the best is in checkpoint/RUN/best")
    # fmt: on
    add_reading_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    # Flags and files are looked at before TensorFlow is loaded, which takes seconds.
    trainer_settings, loop_settings = settings_of(args)
    data_settings = DatasetSettings(line_by_line=args.lines, **flags_of(DatasetSettings, args))
    workspace = Workspace.find(args.models_dir, args.model_name)
    run_folder = RunFolder(workspace.run_folder(args.run_name))
    if args.wandb:
        load_wandb()
    with run_lock(run_folder.path):
        start = find_resume_point(workspace, run_folder, args.model_name, args.restore_from)
        # A run goes on with its own seed, unless another is given, and so goes on exactly.
        seed = start.progress.seed if start.progress and args.seed is None else args.seed
        seed = randomness.check_seed(seed)
        hparams, tokenizer = start.model.hparams, start.model.tokenizer()
        run_folder.check_model(start.model)
        loop_settings.check_model(hparams)
        trainer_settings.trained_tensors(hparams)  # whether the model has what they ask for

        print("Loading dataset...", flush=True)
        training, validation = load_samplers(args, data_settings, hparams, tokenizer, seed)
        epoch = training.steps_per_epoch(args.batch_size * args.accumulate_gradients)
        last_step = loop_settings.last_step(epoch)
        trainer_settings = dataclasses.replace(trainer_settings, schedule_steps=last_step)
        say_what_is_ahead(training, validation, hparams, trainer_settings, loop_settings)

        load_tensorflow()
        from gpt2.training.loop import Loop

        print("Loading checkpoint", shown(start.checkpoint), flush=True)
        resumed = start.resume(trainer_settings, seed)
        for note in resumed.point.notes:
            print(note, file=sys.stderr, flush=True)
        run_folder.adopt(start.model)
        config = describe(args, run_folder, resumed)
        run_log.add_call(run_folder.path, **config)
        loop = Loop(
            resumed.trainer,
            training,
            validation,
            tokenizer,
            run_folder,
            workspace.samples_folder(args.run_name),
            loop_settings,
            resumed.progress,
            done=resumed.point.done,
            loggers=loggers(args, run_folder, resumed, config),
            encoding=args.encoding,
        )
        stop = StopSignal("Finishing the step, then saving; once more leaves at once.")
        with stop, Screen(resumed.point.done, last_step, stop.ask) as screen:
            print("Training...", flush=True)
            for event in loop.train(stop, screen.validation_bar):
                screen.show(event)


def settings_of(args: argparse.Namespace) -> tuple[TrainerSettings, LoopSettings]:
    """The flags as settings, checked."""
    if args.val_split is not None:
        if not 0 < args.val_split < 1:
            raise UserError(f"val_split should be a share between 0 and 1, not {args.val_split}.")
        if args.val_dataset or not args.val_every:
            raise UserError(
                "--val_split needs --val_every N, and takes the place of --val_dataset."
            )
    sampling = SamplingSettings(top_k=0 if 0 < args.top_p < 1 else args.top_k, top_p=args.top_p)
    held_out = bool(args.val_split or args.val_dataset)
    loop_settings = LoopSettings(
        **flags_of(LoopSettings, args), sampling=sampling, held_out=held_out
    )
    # With --epochs the length of a schedule is known when the dataset is.
    length = args.max_steps or (sys.maxsize if args.epochs else None)
    trainer_settings = TrainerSettings(**flags_of(TrainerSettings, args), schedule_steps=length)
    return trainer_settings, loop_settings


def load_samplers(
    args: argparse.Namespace,
    settings: DatasetSettings,
    hparams: HParams,
    tokenizer: Tokenizer,
    seed: int,
) -> tuple[StreamSampler | DocumentSampler, DocumentSampler | None]:
    """Read what to train on and what to validate on, showing how far it is."""

    def read(path: str) -> TokenStream | DocumentSet:
        with byte_bar(tokenization.find_files(path)) as progress:
            return datasets.read(
                path,
                settings,
                tokenizer,
                hparams.n_vocab,
                combine=args.combine,
                reading=reading_of(args),
                legacy_endoftext=args.legacy_endoftext,
                progress=progress,
                notice=show_notice,
            )

    training, validation = read(args.dataset), None
    if args.val_split:
        training, validation = training.split(args.val_split)
    elif args.val_every:
        validation = read(args.val_dataset) if args.val_dataset else training
    elif args.val_dataset:
        show_notice("--val_dataset is not used without --val_every N.")
    sampler = make_sampler(training, hparams.n_ctx, seed)
    if validation is None:
        return sampler, None
    return sampler, make_validation_sampler(validation, hparams.n_ctx, VALIDATION_SEED)


def describe(
    args: argparse.Namespace, run_folder: RunFolder, resumed: ResumedTraining
) -> dict[str, Any]:
    """What this call is made with, so that it can be repeated."""
    start = resumed.point
    known = run_log.last_data(run_folder.path)
    return {
        "flags": vars(args),
        "seed": resumed.progress.seed,
        "steps_before": start.done,
        "checkpoint": {
            "path": start.checkpoint,
            "index_sha256": bundle.fingerprint(start.checkpoint),
        },
        "hparams": dataclasses.asdict(start.model.hparams),
        "data": {
            path: run_log.data_in_short(tokenization.find_files(path), known.get(path))
            for path in (args.dataset, args.val_dataset)
            if path
        },
    }


def loggers(
    args: argparse.Namespace,
    run_folder: RunFolder,
    resumed: ResumedTraining,
    config: dict[str, Any],
) -> list[Logger]:
    """Those who keep the numbers of this call."""
    from gpt2.training.loggers import TensorBoardLogger

    path, done = run_folder.path, resumed.point.done
    found: list[Logger] = [
        HistoryLogger(path / HISTORY, done, resumed.progress.validated),
        TensorBoardLogger(path),
    ]
    if args.wandb:
        found.append(WandbLogger(args.wandb, args.run_name, path, config))
    return found


if __name__ == "__main__":
    run(main)
