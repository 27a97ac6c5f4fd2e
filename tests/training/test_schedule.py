"""The learning rate of each step against transformers' schedules."""

from __future__ import annotations

import pytest

from gpt2.training.settings import SCHEDULES, TrainerSettings, learning_rate
from tests.golden_model import Golden


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_transformers_but_for_the_steps_at_rate_0(
    golden: Golden, name: str
) -> None:
    settings = TrainerSettings(
        learning_rate=0.5, lr_schedule=name, warmup_steps=4, schedule_steps=20
    )
    rates = [learning_rate(settings, step) for step in range(1, 21)]
    # Transformers counts from 0, where its warm-up begins at rate 0; ours begins one further.
    others = golden.arrays[f"{name}_rates"]
    assert rates == pytest.approx([0.5 * rate for rate in (*others[1:5], *others[4:20])])
    assert min(rates) > 0


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_rate_stays_0_when_the_schedule_is_over(name: str) -> None:
    settings = TrainerSettings(lr_schedule=name, schedule_steps=20)
    assert [learning_rate(settings, step) for step in (21, 22, 40)] == [0, 0, 0]


def test_without_a_schedule_the_rate_is_that_of_2019() -> None:
    assert {learning_rate(TrainerSettings(), step) for step in (1, 2, 10**6)} == {0.00002}
