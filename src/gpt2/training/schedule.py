"""The learning rate of each step, a function of the step alone."""

from __future__ import annotations

import math

from gpt2.training.settings import TrainerSettings


def learning_rate(settings: TrainerSettings, step: int) -> float:
    """The learning rate of a step; the first step is 1.

    Over the warm-up it rises in a straight line, and the last step of it has the full rate. Then it
    stays, or falls to 0 in a straight line or along half a wave of the cosine (Loshchilov and
    Hutter 2017, without restarts), which it reaches after the last step of `schedule_steps`: no
    step is spent at rate 0. Steps beyond those have rate 0.
    """
    if step <= settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return settings.learning_rate
    behind = step - 1 - settings.warmup_steps
    share = min(1.0, behind / (settings.schedule_steps - settings.warmup_steps))
    left = 1 - share if settings.lr_schedule == "linear" else (1 + math.cos(math.pi * share)) / 2
    return settings.learning_rate * left
