"""The status line of a training: the time left, and which steps print a line."""

from __future__ import annotations

import io

import pytest

from gpt2.commands.training_screen import LossLines, StepBar


@pytest.mark.parametrize("done", [0, 40])
def test_the_first_steps_do_not_count_in_the_time_left(done: int) -> None:
    out = io.StringIO()
    bar = StepBar(total=1000, initial=done, file=out)
    times = {1: 60.0, 2: 90.0, 3: 90.5, 4: 91.0, 5: 91.5}
    for step, seconds in times.items():
        bar.step_finished(done + step, seconds)
        assert bar.format_dict["rate"] == (0 if step <= 2 else 2)
        assert bar.n == done + step
    text = bar.format_meter(**bar.format_dict)
    left = (1000 - done - 5) // 2
    assert f"<{left // 60:02}:{left % 60:02}," in text
    bar.close()
    out.truncate(0)
    assert "?" in StepBar.format_meter(**StepBar(total=9, file=out).format_dict)


@pytest.mark.parametrize(
    ("every", "on_terminal", "expected"),
    [
        (None, False, [1, 2, 3, 4, 5, 6]),  # as in 2019
        (2, False, [2, 4, 6]),
        (2, True, [2, 4, 6]),
        (None, True, [1, 3, 5, 6]),  # a second apart, and the last one
    ],
)
def test_losses_are_printed_every_n_steps_or_every_second(
    every: int | None, on_terminal: bool, expected: list[int]
) -> None:
    lines = LossLines(every, on_terminal)
    times = {1: 9.0, 2: 9.5, 3: 10.1, 4: 10.2, 5: 12.0, 6: 12.1}
    assert [n for n, seconds in times.items() if lines.is_due(n, seconds, n == 6)] == expected
