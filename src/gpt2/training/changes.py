"""What each flag of `train` does when a run is resumed, and which of them have changed.

Every call records its flags in `config.json`, so that the next one can say what is different.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from gpt2.errors import UserError
from gpt2.training.settings import TrainerSettings, learning_rate

# What a flag does on resume, as docs/training.md says it.
APPLIED = "applies from the next step; a change is reported"
RESET = "applies, and the optimizer state starts from scratch; a change is reported"
SCHEDULE = "applies; a change of the learning rate that follows from it is reported"
KEPT = "the run keeps its own value; another one is reported and not used"
CALL = "concerns one call and does not change the weights of a step"

_FLAGS = {
    APPLIED: (
        *("dataset", "combine", "legacy_endoftext", "respect_documents", "control_code_from"),
        *("encoding", "errors", "format", "column", "header", "delimiter", "quoting", "field"),
        *("lines", "normalize", "template", "loss_on"),
        *("batch_size", "accumulate_gradients", "learning_rate", "lr_schedule", "warmup_steps"),
        *("clip_norm", "weight_decay", "momentum", "dropout", "noise", "seed", "precision"),
        *("val_dataset", "val_split"),
    ),
    RESET: ("optimizer", "train_layers", "only_train_transformer_layers", "lora_rank"),
    SCHEDULE: ("max_steps", "epochs"),
    KEPT: ("lora_alpha", "model_name", "packing"),
    CALL: (
        *("models_dir", "restore_from", "run_name", "max_minutes", "patience", "wandb"),
        *("save_every", "sample_every", "sample_length", "sample_num", "top_k", "top_p"),
        *("val_every", "val_batch_size", "val_batch_count"),
        *("memory_saving_gradients", "twremat_memlimit", "distribute"),
        *("print_every", "estimate", "export", "overwrite"),
    ),
}
ON_RESUME = {flag: effect for effect, flags in _FLAGS.items() for flag in flags}


def describe_changes(
    last_call: Mapping[str, Any], flags: Mapping[str, Any], step: int
) -> list[str]:
    """Return a sentence for each flag that changes the training and differs from the last call's.

    Args:
        last_call: its record in `config.json`, which may be foreign or of an older version; see
            `run_log.call_before`.
        flags: the values of this call.
        step: the next step.
    """
    before = last_call.get("flags")
    if not isinstance(before, Mapping):
        return []
    before = {**before, "seed": last_call.get("seed")}
    sentences = []
    for flag, value in flags.items():
        old, new = before.get(flag), json.loads(json.dumps(value, default=str))
        if flag not in before or old == new:
            continue
        effect = ON_RESUME.get(flag)
        # The command itself reports those that the state of the run decides.
        if flag == "model_name" and None not in (old, new):
            sentences.append(
                f"--{flag} {new}: the run was trained from {old} and continues from its own "
                "checkpoint. To start from another model, give a new --run_name."
            )
        elif effect in (APPLIED, RESET) and not (flag == "seed" and None in (old, new)):
            sentences.append(
                f"--{flag} changes from {_shown(old)} to {_shown(new)} at step {step:,}."
            )
    return sentences


def _shown(value: Any) -> str:
    return "its default" if value is None else json.dumps(value, ensure_ascii=False).strip('"')


def describe_kept_alpha(kept: float | None, given: float) -> str | None:
    """Return a sentence if a run keeps another LoRA scale than the given one."""
    if kept is None or abs(kept - given) <= 1e-5 * given:
        return None
    return (
        f"--lora_alpha {given:g}: the run was trained with {kept:g}, which stays, because its "
        "LoRA updates depend on it."
    )


def describe_schedule(
    last_call: Mapping[str, Any], settings: TrainerSettings, done: int
) -> str | None:
    """Return a sentence if a decaying learning rate does not continue as the last call planned.

    Args:
        last_call: see `describe_changes`.
        settings: of this call.
        done: steps of the run so far.
    """
    flags = last_call.get("flags")
    if not isinstance(flags, Mapping):
        return None
    try:
        before = dataclasses.replace(
            settings,
            **{name: flags[name] for name in ("learning_rate", "lr_schedule", "warmup_steps")},
            schedule_steps=last_call.get("last_step", flags.get("max_steps")),
        )
    except (UserError, KeyError):
        return None
    old, planned = learning_rate(before, done), learning_rate(before, done + 1)
    new = learning_rate(settings, done + 1)
    if before.lr_schedule == settings.lr_schedule == "constant" or new == planned:
        return None
    return (
        f"The learning rate changes from {old:.3g} at step {done:,} to {new:.3g} at step "
        f"{done + 1:,}: the schedule is now {_schedule(settings)}, and was {_schedule(before)}."
    )


def _schedule(settings: TrainerSettings) -> str:
    if settings.lr_schedule == "constant":
        return "constant"
    return f"{settings.lr_schedule} to step {settings.schedule_steps:,}"
