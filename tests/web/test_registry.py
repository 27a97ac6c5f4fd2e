"""How many completions a served model runs at once."""

from __future__ import annotations

import pytest

from gpt2.web.registry import default_slots


@pytest.mark.parametrize(
    ("megabytes", "slots"),
    [
        (72, 17),  # 124M
        (72 * 1.27, 13),  # 124M with --kv_cache int8
        (300, 4),  # 1558M
        (1, 32),
        (2000, 1),
    ],
)
def test_slots_fill_a_gigabyte_and_a_quarter(megabytes: float, slots: int) -> None:
    assert default_slots(int(megabytes * 2**20)) == slots
