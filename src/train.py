#!/usr/bin/env python3
"""Train a GPT-2 on your own text.

    python src/train.py --dataset shakespeare.npz

Ctrl+C saves and ends; the same command goes on from there.
"""

import argparse

from tqdm import tqdm

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
from gpt2.checkpoint.run import RunFolder
from gpt2.data import text
from gpt2.data.sampler import Sampler
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer
from gpt2.training.settings import OPTIMIZERS, LoopSettings, TrainerSettings
from gpt2.training.start import find_start
from gpt2.workspace import Workspace

VALIDATION_SEED = 1  # one set of validation batches for all runs, as in 2019


def parse_arguments() -> argparse.Namespace:
    parser = Parser("Fine-tune GPT-2 on your custom dataset.")
    add = parser.add_argument
    # fmt: off
    # What is trained, and on what.
    add("--dataset", metavar="PATH", required=True, help="input file, folder, or glob pattern (text, or .npz from encode.py)")
    add("--model_name", metavar="MODEL", help="model to begin with (default: 124M; a run that goes on has its own)")
    add("--models_dir", metavar="PATH", default="models", help="folder that holds the models")
    add("--combine", metavar="CHARS", type=int, default=50000, help="join text files into chunks of this minimum size")
    add("--legacy_endoftext", action="store_true", help="spell <|endoftext|> out as the encoder of 2019 did, not as one token")
    # The step.
    add("--batch_size", metavar="SIZE", type=int, default=1, help="batch size")
    add("--learning_rate", metavar="LR", type=float, default=0.00002, help="learning rate of the optimizer")
    add("--accumulate_gradients", metavar="N", type=int, default=1, help="accumulate the gradients of N batches for each step")
    add("--memory_saving_gradients", "--twremat", action="store_true", help="recompute each layer in the backward pass: less memory, more time")
    add("--twremat_memlimit", metavar="SIZE", help="accepted from commands of 2021 and not used: the recomputation here needs no limit")
    add("--only_train_transformer_layers", action="store_true", help="leave the embeddings and the last normalisation as they are")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="optimizer")
    add("--noise", metavar="SHARE", type=float, default=0.0, help="share of the input tokens to replace by random ones")
    add("--seed", metavar="N", type=int, help="for the same training each time (default: a random one)")
    # The run.
    add("--restore_from", metavar="WHERE", default="latest", help='"latest", "fresh", or a checkpoint: its folder, prefix or .index file')
    add("--run_name", metavar="RUN", default="run1", help="folder of the run under checkpoint/ and samples/")
    add("--max_steps", metavar="N", type=int, help="end when the run has done N steps (default: go on until stopped)")
    add("--save_every", metavar="N", type=int, default=1000, help="write a checkpoint every N steps")
    add("--sample_every", metavar="N", type=int, default=100, help="generate samples every N steps")
    add("--sample_length", metavar="TOKENS", type=int, help="tokens in each sample (default: the window less one, 1023 for the released models)")
    add("--sample_num", metavar="N", type=int, default=1, help="samples to generate each time")
    add("--top_k", metavar="K", type=int, default=40, help="draw samples among the K likeliest tokens; 0 for all")
    add("--top_p", metavar="P", type=float, default=0.0, help="draw samples among the likeliest tokens that reach probability P, whatever top_k is; 0 and 1 for off")
    # Validation.
    add("--val_dataset", metavar="PATH", help="dataset to validate on (default: the training dataset)")
    add("--val_batch_size", metavar="SIZE", type=int, default=2, help="batch size of validation")
    add("--val_batch_count", metavar="N", type=int, default=40, help="batches of validation")
    add("--val_every", metavar="STEPS", type=int, default=0, help="compute the validation loss every N steps; 0 for never")
    # fmt: on
    add_reading_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    # Flags and files are looked at before TensorFlow is loaded, which takes seconds.
    sampling = SamplingSettings(top_k=0 if 0 < args.top_p < 1 else args.top_k, top_p=args.top_p)
    trainer_settings = TrainerSettings(**flags_of(TrainerSettings, args))
    loop_settings = LoopSettings(**flags_of(LoopSettings, args), sampling=sampling)
    seed = randomness.check_seed(args.seed)
    workspace = Workspace.find(args.models_dir, args.model_name)
    run_folder = RunFolder(workspace.run_folder(args.run_name))
    start = find_start(workspace, run_folder, args.model_name, args.restore_from)
    hparams, tokenizer = start.model.hparams, start.model.tokenizer()
    loop_settings.check_model(hparams)

    print("Loading dataset...", flush=True)
    training = load_dataset(args.dataset, args, hparams, tokenizer, seed)
    validation = None
    if args.val_every:
        dataset = args.val_dataset or args.dataset
        validation = load_dataset(dataset, args, hparams, tokenizer, VALIDATION_SEED)
    print("dataset has", training.total_size, "tokens")
    if training.window < hparams.n_ctx:
        print(
            f"It is shorter than the model's window; training on {training.window} tokens at a time"
        )

    load_tensorflow()
    from gpt2.training.loop import train
    from gpt2.training.trainer import Trainer

    print("Loading checkpoint", shown(start.checkpoint), flush=True)
    trainer = Trainer(start.weights(), hparams, trainer_settings, seed)
    run_folder.adopt(start.model)
    with StopSignal("Finishing the step, then saving; once more leaves at once.") as stop:
        print("Training...", flush=True)
        for event in train(
            trainer,
            training,
            validation,
            tokenizer,
            run_folder,
            workspace.samples_folder(args.run_name),
            loop_settings,
            seed,
            done=start.done,
            stop=stop,
            progress=tqdm,
            encoding=args.encoding,
        ):
            show(event)


def load_dataset(
    path: str, args: argparse.Namespace, hparams: HParams, tokenizer: Tokenizer, seed: int
) -> Sampler:
    """Read a dataset, showing how far it is."""
    files = text.find_files(path)
    with byte_bar(files) as progress:
        chunks = text.read_chunks(
            files,
            tokenizer,
            hparams.n_vocab,
            combine=args.combine,
            reading=reading_of(args),
            legacy_endoftext=args.legacy_endoftext,
            progress=progress,
            notice=show_notice,
        )
        return Sampler(chunks, hparams.n_ctx, seed)


def show(event: object) -> None:
    """Print what happened in the words of 2019, which people's scripts look for."""
    from gpt2.training import loop

    match event:
        case loop.Step(step, seconds, loss, average):
            line = f"[{step} | {seconds:2.2f}] loss={loss:2.2f} avg={average:2.2f}"
        case loop.Saving(prefix):
            line = f"Saving {shown(prefix)}"
        case loop.Generating():
            line = "Generating samples..."
        case loop.Sampled(text):
            line = text
        case loop.Validating():
            line = "Calculating validation loss..."
        case loop.Validated(step, seconds, loss):
            line = f"[{step} | {seconds:2.2f}] validation loss = {loss:2.2f}"
        case loop.Interrupted():
            line = "interrupted"
        case loop.Finished(step):
            line = f"The run has done its {step} steps"
    print(line, flush=True)


if __name__ == "__main__":
    run(main)
