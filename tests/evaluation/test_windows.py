"""Every token but the first is predicted once, whatever window and stride."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2.errors import UserError
from gpt2.evaluation.windows import Window, WindowSettings


def test_by_hand() -> None:
    assert list(WindowSettings(4, 4).windows(10)) == [
        Window(0, 0, 4),
        Window(4, 4, 8),
        Window(8, 8, 10),
    ]
    assert list(WindowSettings(4, 2).windows(7)) == [
        Window(0, 0, 4),
        Window(2, 4, 6),
        Window(4, 6, 7),
    ]
    assert list(WindowSettings(4, 2).windows(6)) == [Window(0, 0, 4), Window(2, 4, 6)]
    assert list(WindowSettings(1, 1).windows(2)) == [Window(0, 0, 1), Window(1, 1, 2)]
    assert list(WindowSettings(4, 4).windows(0)) == []


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 300))
def test_each_prediction_counts_once(window: int, stride: int, predictions: int) -> None:
    if stride > window:
        stride, window = window, stride
    counted: list[int] = []
    for start, first, end in WindowSettings(window, stride).windows(predictions):
        assert start <= first < end <= start + window
        counted += range(first, end)
    assert counted == list(range(predictions))


@pytest.mark.parametrize(
    ("window", "stride", "sentence"),
    [
        (0, None, "window .*at least 1, not 0"),
        (8, 0, "stride .*at least 1, not 0"),
        (8, 9, r"stride \(9\) must be at most window \(8\)"),
        (None, 17, r"stride \(17\) must be at most window \(16\)"),
        (17, None, r"window \(17\) .* context window \(16\)"),
    ],
)
def test_what_makes_no_sense_is_told(window: int | None, stride: int | None, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        WindowSettings.of(16, window, stride)


def test_the_window_and_the_stride_are_the_models_unless_given() -> None:
    assert WindowSettings.of(16) == WindowSettings(16, 16)
    assert WindowSettings.of(16, 8) == WindowSettings(8, 8)
    assert WindowSettings.of(16, None, 4) == WindowSettings(16, 4)
