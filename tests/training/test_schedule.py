"""The learning rate of each step, compared with the schedules of transformers."""

from __future__ import annotations

import pytest

from gpt2.training.settings import SCHEDULES, TrainerSettings, learning_rate
from tests.golden_model import Golden


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_equal_those_of_transformers_without_the_steps_at_rate_0(
    golden: Golden, name: str
) -> None:
    settings = TrainerSettings(
        learning_rate=0.5, lr_schedule=name, warmup_steps=4, schedule_steps=20
    )
    rates = [learning_rate(settings, step) for step in range(1, 21)]
    # Transformers counts from 0, where its warm-up starts at rate 0; ours starts one step later.
    others = golden.arrays[f"{name}_rates"]
    assert rates == pytest.approx([0.5 * rate for rate in (*others[1:5], *others[4:20])])
    assert min(rates) > 0


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_rate_stays_0_after_the_schedule(name: str) -> None:
    settings = TrainerSettings(lr_schedule=name, schedule_steps=20)
    assert [learning_rate(settings, step) for step in (21, 22, 40)] == [0, 0, 0]


def test_the_default_rate_is_that_of_2019() -> None:
    assert {learning_rate(TrainerSettings(), step) for step in (1, 2, 10**6)} == {0.00002}
