"""Help and wrong calls, answered without the wait for TensorFlow."""

from __future__ import annotations

import re

from tests.commands.toolkit_copy import Home

COMMANDS = (
    "download_model.py",
    "src/encode.py",
    "src/new_model.py",
    "src/train.py",
    "src/interactive_conditional_samples.py",
    "src/generate_unconditional_samples.py",
    "src/evaluate.py",
    "src/evaluate.py score",
    "src/plot.py",
)
# Those of 2019 and 2021 with their defaults, and those that came since.
TRAIN_FLAGS = """
    dataset model_name=124M models_dir=models combine=50000 encoding=utf-8 batch_size=1
    learning_rate=2e-05 accumulate_gradients=1 memory_saving_gradients twremat twremat_memlimit
    only_train_transformer_layers optimizer=adam noise=0.0 top_k=40 top_p=0.0 restore_from=latest
    run_name=run1 sample_every=100 sample_length sample_num=1 save_every=1000 val_dataset
    val_batch_size=2 val_batch_count=40 val_every=0 max_steps seed
    val_split patience epochs max_minutes wandb lr_schedule=constant warmup_steps=0 clip_norm
    weight_decay momentum=0.0 dropout=0.0 precision=fp32 train_layers lora_rank=0 lora_alpha=32.0
    respect_documents control_code_from lines line_by_line
"""
WRONG_CALLS = {
    "src/train.py": "arguments are required: --dataset",
    "src/train.py --dataset text.npz --batch_size two": "invalid int value: 'two'",
    "src/train.py --dataset text.npz --optimizer adagrad": "invalid choice: 'adagrad'",
    "src/train.py --dataset text.npz --steps 3": "unrecognized arguments: --steps 3",
    "src/encode.py text.txt": r"arguments are required: OUT\.npz",
    "src/new_model.py": "arguments are required: NAME",
    "src/generate_unconditional_samples.py --nsample 1": "there is no flag --nsample",
    "src/evaluate.py trigram": "there is no command trigram",
    "src/evaluate.py diversity --sample a": "there is no flag --sample",
    "src/evaluate.py grid --temperature 1 2": "2 is one value too many",
    "src/evaluate.py bigram": "bigram: --dataset is missing",
    "src/evaluate.py score --text a --json": "score: --json needs a value",
    "src/plot.py surprise --model-name --text a": "--model-name needs a value",
    "download_model.py": "arguments are required: model",
    "download_model.py 118M": "invalid choice: '118M'",
}
SAMPLER_FLAGS = "model_name seed nsamples batch_size length temperature top_k top_p models_dir"


def test_help_is_given_without_tensorflow(home: Home, no_tensorflow: str) -> None:
    calls = [*(f"{command} --help" for command in COMMANDS), "src/evaluate.py bigram -h"]
    lines = (f"{no_tensorflow} python {call}" for call in calls)
    for call, done in zip(calls, home.toolkit.run_in_one_process(*lines), strict=True):
        assert call.rpartition("/")[2].rpartition(" ")[0] in done.succeeds().out
        for noise in ("FIRE_METADATA", "INFO: Showing", "Optional[]"):
            assert noise not in done.out
        assert done.out.endswith("\n") and not done.out.endswith("\n\n")


def test_help_names_every_flag_of_the_original_with_its_default(
    home: Home, no_tensorflow: str
) -> None:
    shown = home.toolkit.run(f"{no_tensorflow} python src/train.py --help").succeeds().out
    helps = re.split(r"\n  (?=--)", " ".join(shown.split("options:")[1:]))
    for flag in TRAIN_FLAGS.split():
        name, _, default = flag.partition("=")
        [text] = [part for part in helps if re.search(rf"--{name}\b(?!_)", part.split("\n")[0])]
        assert f"(default: {default}" in " ".join(text.split()) or not default, flag
    for sampler in COMMANDS[4:6]:
        shown = home.toolkit.run(f"{no_tensorflow} python {sampler} --help").succeeds().out
        for name in SAMPLER_FLAGS.split():
            assert f"--{name}=" in shown


def test_a_wrong_call_is_told_in_one_line_with_exit_code_2(home: Home, no_tensorflow: str) -> None:
    lines = (f"{no_tensorflow} python {line}" for line in WRONG_CALLS)
    dones = home.toolkit.run_in_one_process(*lines)
    for done, sentence in zip(dones, WRONG_CALLS.values(), strict=True):
        done.says(2, rf"{sentence}.*; see \S+\.py( [a-z]+)? --help\.$")
        assert done.out == ""


def test_tensorflow_is_loaded_without_keras(home: Home) -> None:
    names = "{'tensorflow', 'keras', 'sklearn', 'matplotlib'}"
    program = (
        f"import sys, command_line as c; c.load_tensorflow(); print({names} & {{*sys.modules}})"
    )
    line = f'TF_USE_LEGACY_KERAS= python -c "{program}"'
    assert home.toolkit.run(line, "src").out == "{'tensorflow'}\n"
