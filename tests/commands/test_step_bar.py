"""The time left of a training leaves out the steps that compile the model."""

from __future__ import annotations

import io

import pytest

from gpt2.commands.training_screen import StepBar


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
