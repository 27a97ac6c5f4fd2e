"""`--help` and wrong command lines: answered in one line, without importing TensorFlow."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest

from gpt2.commands.flags import Command, Option
from gpt2.commands.main import VERBS as KNOWN_VERBS
from tests.commands.toolkit_copy import Home

COMMANDS = (
    "download_model.py",
    "src/encode.py",
    "src/new_model.py",
    "src/train.py",
    "src/tune.py",
    "src/interactive_conditional_samples.py",
    "src/generate_unconditional_samples.py",
    "src/evaluate.py",
    "src/evaluate.py score",
    "src/plot.py",
    "src/show_tokens.py",
    "src/stories.py",
)
VERBS = (
    "demo download encode tokenize new-model train tune interactive unconditional conditional "
    "evaluate plot convert stories"
)
# The flags of 2019 and 2021 with their defaults, and those added since.
TRAIN_FLAGS = """
    dataset model_name=124M models_dir=models combine=50000 encoding=utf-8 batch_size=1
    learning_rate=2e-05 accumulate_gradients=1 memory_saving_gradients twremat twremat_memlimit
    only_train_transformer_layers optimizer=adam noise=0 top_k=40 top_p=0 restore_from=latest
    run_name=run1 sample_every=100 sample_length sample_num=1 save_every=1000 val_dataset
    val_batch_size=2 val_batch_count=40 val_every=0 max_steps seed
    val_split patience epochs max_minutes wandb lr_schedule=constant warmup_steps=0 clip_norm
    weight_decay momentum=0 dropout=0 precision=fp32 train_layers lora_rank=0 lora_alpha=32
    respect_documents control_code_from lines line_by_line print_every estimate export overwrite
"""
SAMPLER_FLAGS = "model_name seed nsamples batch_size length temperature top_k top_p models_dir"

TRAIN = "src/train.py --dataset text.npz"
UNCONDITIONAL = "src/generate_unconditional_samples.py"
WRONG_CALLS = {
    # A required argument or a value is missing.
    "src/train.py": "missing: --dataset",
    "src/encode.py text.txt": r"missing: OUT\.npz",
    "src/new_model.py": "missing: NAME",
    "download_model.py": "missing: MODEL",
    "src/evaluate.py bigram": "--dataset is missing|missing: --dataset",
    "src/train.py --dataset": "--dataset needs a value",
    f"{TRAIN} --seed --lines": "--seed needs a value",
    f"{TRAIN} --run_name --max_steps=1": "--run_name needs a value",
    "src/evaluate.py score --text a --json": "score: --json needs a value",
    "src/plot.py surprise --model-name --text a": "--model.name needs a value",
    # A word that is not a flag, also one that python-fire gives a meaning of its own.
    f"{UNCONDITIONAL} -": "unexpected argument '-'",
    f"{UNCONDITIONAL} --": "unexpected argument '--'",
    f"{UNCONDITIONAL} -- --trace": "there is no flag --trace",
    f"{UNCONDITIONAL} --length 3 - -": "unexpected argument '-'",
    "src/generate_conditional_samples.py --prompt a -": "unexpected argument '-'",
    f"{TRAIN} -": "unexpected argument '-'",
    # Values that are almost lists or dictionaries.
    f"{UNCONDITIONAL} --logit_bias '{{1.9: 5}}'": "--logit_bias must be a number for each token id",
    f"{UNCONDITIONAL} --logit_bias '{{True: 5}}'": "--logit_bias must be a number for each token",
    f"{UNCONDITIONAL} --logit_bias '{{1: True}}'": "--logit_bias must be a number for each token",
    f"{UNCONDITIONAL} --logit_bias '{{1: 5, \"1\": 5}}'": "--logit_bias .*each id only once",
    f"{UNCONDITIONAL} --logit_bias '{{1: 5, **{{}}}}'": "--logit_bias must be a number for each",
    f"{UNCONDITIONAL} --logit_bias '{{\"-1\": 5}}'": "--logit_bias must be a number for each token",
    f"{UNCONDITIONAL} --stop '[\"a\", 1]'": "--stop must be a list of strings only",
    f"{UNCONDITIONAL} --truncate '[null, \"a\"]'": "--truncate must be a list of strings only",
    # A flag is unknown: the nearest is suggested.
    f"{TRAIN} --steps 3": "there is no flag --steps",
    f"{TRAIN} --learning-rte 1": "there is no flag --learning-rte .did you mean --learning_rate",
    f"{TRAIN} --max_step 3": "there is no flag --max_step .did you mean --max_steps",
    f"{TRAIN} --lr 1e-4": "there is no flag --lr\\b",  # no abbreviation of --lr_schedule
    f"{TRAIN} --lr=1e-4 --val_every 2 --val_split 0.1 --lines": "there is no flag --lr\\b",
    f"{TRAIN} --no_dataset": "there is no flag --no_dataset",
    f"{TRAIN} -q": "there is no flag -q",
    "src/encode.py text.txt out.npz --worker 2": "--worker .did you mean --workers",
    "src/new_model.py new --frm 117M": "there is no flag --frm .did you mean --from",
    "download_model.py 117M --verfy": "there is no flag --verfy .did you mean --verify",
    f"{UNCONDITIONAL} --nsample 1": "there is no flag --nsample",
    "src/evaluate.py diversity --sample a": "there is no flag --sample",
    f"{UNCONDITIONAL} --t 1": "there is no flag --t .did you mean --t",
    f"{TRAIN} --no-lines=no": "--no-lines takes no value; use --lines=no",
    f"{TRAIN} --nopacking=false": "--nopacking takes no value; use --packing=false",
    # A flag is given twice, also under another name or spelling.
    f"{TRAIN} --seed 1 --seed 2": "--seed is given twice",
    f"{TRAIN} --batch_size 1 --batch-size=2": "--batch_size is given twice",
    f"{TRAIN} --twremat --memory_saving_gradients": "--memory_saving_gradients is given twice",
    f"{TRAIN} --lines --line_by_line": "--lines is given twice",
    "src/new_model.py new --add_tokens a --add_tokens b": "--add_tokens is given twice",
    # A value is of another type or not one of the choices.
    f"{TRAIN} --batch_size two": "--batch_size must be a whole number, not 'two'",
    f"{TRAIN} --max_steps 1.5": "--max_steps must be a whole number, not '1.5'",
    f"{TRAIN} --learning_rate fast": "--learning_rate must be a number, not 'fast'",
    f"{TRAIN} --lines=maybe": "--lines must be true or false, not 'maybe'",
    f"{TRAIN} --optimizer adagrad": "--optimizer must be one of adam, .*, not 'adagrad'",
    f"{TRAIN} --control_code_from title": "--control_code_from must be .*filename, not 'title'",
    "src/encode.py a out.npz --format xml": "--format must be one of .*jsonl.*, not 'xml'",
    f"{UNCONDITIONAL} --top_k 1.5": "--top_k must be a whole number, not '1.5'",
    f"{UNCONDITIONAL} --seed x": "--seed must be a whole number, not 'x'",
    "download_model.py 118M": "model '118M' .did you mean 117M.*available: .*1558M",
    # An argument or a subcommand too many, or unknown.
    f"{TRAIN} shakespeare": "unexpected argument 'shakespeare'",
    "src/encode.py a b c": "unexpected argument 'c'",
    "src/evaluate.py grid --temperature 1 2": "one value too many|unexpected argument",
    "src/evaluate.py trigram": "there is no command .?trigram",
}
WRONG_VERBS = {
    "tran": "there is no command 'tran' .did you mean train.*available: demo, download, .*plot",
    "sing": "there is no command 'sing'; available: demo, download, .*plot",
    "newmodel x": "did you mean new-model",
    "--dataset text.npz": "there is no command '--dataset'; available: ",
    "train": "gpt2 train: missing: --dataset",
    "train --dataset text.npz --stepz 3": "gpt2 train: there is no flag --stepz",
    "new-model": "gpt2 new-model: missing: NAME",
    "download 118M": "gpt2 download: .*'118M'",
    "encode text.txt": "gpt2 encode: missing: ",
}


@pytest.fixture
def module(no_tensorflow: str) -> str:
    """The start of a command line that calls a verb."""
    return f"{no_tensorflow}{os.pathsep}src python -m gpt2"


def test_help_is_printed_without_tensorflow(home: Home, no_tensorflow: str) -> None:
    calls = [*(f"{command} --help" for command in COMMANDS), "src/evaluate.py bigram -h"]
    lines = (f"{no_tensorflow} python {call}" for call in calls)
    for call, done in zip(calls, home.toolkit.run_in_one_process(*lines), strict=True):
        assert call.rpartition("/")[2].rpartition(" ")[0] in done.succeeds().out
        for noise in ("FIRE_METADATA", "INFO: Showing", "Optional[]"):
            assert noise not in done.out
        assert done.out.endswith("\n") and not done.out.endswith("\n\n")


def test_the_command_gpt2_lists_its_verbs_and_prints_its_version(home: Home, module: str) -> None:
    asked = home.toolkit.run_in_one_process(*(f"{module} {word}" for word in ("--help", "help")))
    for done in asked:
        for verb in VERBS.split():
            assert re.search(rf"^  {verb} +[A-Z].*\.$", done.succeeds().out, re.MULTILINE)
    done = home.toolkit.run(f"{module} --version").succeeds()
    assert re.fullmatch(r"retrain-gpt2 \d+\.\d+\.\d+\n", done.out)
    done = home.toolkit.run(f"{module} train --help").succeeds()
    assert done.out.startswith("usage: gpt2 train ")


def test_help_names_every_flag_of_the_original_with_its_default(
    home: Home, no_tensorflow: str
) -> None:
    samplers = [call for call in COMMANDS if "conditional_samples" in call]
    train, *others = home.toolkit.run_in_one_process(
        *(f"{no_tensorflow} python {call} --help" for call in ("src/train.py", *samplers))
    )
    helps = re.split(r"\n  (?=--)", train.succeeds().out.partition("options:")[2])
    for flag in TRAIN_FLAGS.split():
        name, _, default = flag.partition("=")
        [text] = [part for part in helps if re.search(rf"--{name}\b", re.split("  |\n", part)[0])]
        assert f"(default: {default}" in " ".join(text.split()) or not default, flag
    for done in others:
        for name in SAMPLER_FLAGS.split():
            assert re.search(rf"^  --{name}\b", done.succeeds().out, re.MULTILINE)


def test_a_wrong_command_line_is_one_line_with_exit_code_2(home: Home, no_tensorflow: str) -> None:
    lines = (f"{no_tensorflow} python {line}" for line in WRONG_CALLS)
    dones = home.toolkit.run_in_one_process(*lines)
    for done, sentence in zip(dones, WRONG_CALLS.values(), strict=True):
        done.says(2, rf"({sentence}).*; see \S+\.py( [a-z]+)? --help\.$")
        assert done.out == ""


def test_a_wrong_verb_is_one_line_with_exit_code_2(home: Home, module: str) -> None:
    dones = home.toolkit.run_in_one_process(*(f"{module} {line}" for line in WRONG_VERBS))
    for done, sentence in zip(dones, WRONG_VERBS.values(), strict=True):
        done.says(2, rf"({sentence}).*; see gpt2( [a-z-]+)? --help\.$")
        assert done.out == ""


def test_a_flag_may_have_dashes_an_equals_sign_or_no_in_front(home: Home, module: str) -> None:
    # Each reaches the check of the dataset, so that the flags before it have been accepted.
    lines = (
        "--dataset=gone.txt --batch-size 2",
        "--dataset gone.txt --no-lines --no_respect_documents --twremat",
        "--dataset gone.txt --lines=false --max-steps=1",
    )
    for done in home.toolkit.run_in_one_process(*(f"{module} train {line}" for line in lines)):
        done.says(1, r"^gone\.txt\b")


def test_tensorflow_is_imported_without_keras(home: Home) -> None:
    names = "{'tensorflow', 'keras', 'sklearn', 'matplotlib'}"
    program = (
        "import sys; from gpt2.commands.signals import load_tensorflow; load_tensorflow(); "
        f"print({names} & {{*sys.modules}})"
    )
    line = f'TF_USE_LEGACY_KERAS= python -c "{program}"'
    assert home.toolkit.run(line, "src").out == "{'tensorflow'}\n"


# --- every flag of every command ---


def every_command() -> Iterator[tuple[str, Command]]:
    """Yield each verb, or verb and subcommand, with its command."""
    for name, verb in KNOWN_VERBS.items():
        loaded = verb.load()
        if isinstance(loaded, Mapping):
            yield from ((f"{name} {inner}", command) for inner, command in loaded.items())
        else:
            yield name, loaded


def flags(command: Command) -> list[Option]:
    """Return the options of a command without the positional arguments."""
    return [option for option in command.options if not option.declared.positional]


def with_required(command: Command, line: str, but: str = "") -> str:
    """Return a command line with all required arguments, other than one flag."""
    words = [line]
    for option in command.options:
        if option.required and option.flag != but:
            words.append("x" if option.declared.positional else f"{option.flag} x")
    return " ".join(words)


def out_of_range(option: Option) -> str | None:
    """Return a value that a flag must refuse, or None if it takes any text."""
    declared = option.declared
    for bound, beyond in ((declared.low, -1), (declared.high, 1)):
        if bound is not None and abs(bound) != float("inf"):
            return f"{bound + beyond:g}"
    for bound in (declared.above, declared.below):
        if bound is not None:
            return f"{bound:g}"
    return "no-such" if declared.choices or option.kind in (int, float, bool) else None


Lines = Iterable[tuple[str, str, str]]  # the command line, the pattern of its answer, the command


def unknown(name: str, command: Command) -> Lines:
    yield f"{name} --no_such_flag_x", "there is no flag --no_such_flag_x", name


def missing_values(name: str, command: Command) -> Lines:
    for option in flags(command):
        if option.kind is not bool and option.declared.bare is None:
            yield f"{name} {option.flag}", f"{option.flag}.*(needs|expected)", name


def twice(name: str, command: Command) -> Lines:
    for option in flags(command):
        value = "" if option.kind is bool else " 1"
        given = f"{option.flag}{value}"
        yield f"{name} {given} {given}", f"{option.flag} is given twice", name


def beyond_the_range(name: str, command: Command) -> Lines:
    for option in flags(command):
        if (value := out_of_range(option)) is not None:
            line = with_required(command, name, but=option.flag)
            yield f"{line} {option.flag}={value}", f"{option.flag} must be", name


@pytest.mark.parametrize("mistake", [unknown, missing_values, twice, beyond_the_range])
def test_every_mistake_with_every_flag_is_one_line(
    home: Home, module: str, mistake: Callable[[str, Command], Lines]
) -> None:
    lines = [line for name, command in every_command() for line in mistake(name, command)]
    dones = home.toolkit.run_in_one_process(*(f"{module} {line}" for line, _, _ in lines))
    for done, (line, sentence, name) in zip(dones, lines, strict=True):
        assert done.code in (1, 2) and done.out == "", (line, done)
        done.says(done.code, rf"{sentence}.*\.$")
        assert done.code == 1 or done.err.endswith(f"; see gpt2 {name} --help.\n"), line


@pytest.mark.parametrize("name", dict(every_command()))
def test_help_of_every_command_names_every_flag_and_is_fast(
    home: Home, module: str, name: str
) -> None:
    resource = pytest.importorskip("resource", reason="Windows does not tell the processor time")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = home.toolkit.run(f"{module} {name} --help").succeeds()
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.out.startswith(f"usage: gpt2 {name} ")
    for option in dict(every_command())[name].options:
        assert re.search(rf"\n  .*{re.escape(option.flag)}(?!\w)", done.out), option.flag
    assert seconds < 1.5, "0.5 s on an idle machine; TensorFlow takes 3"
