"""Plots of a grid of settings: rows, means and errors."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.pictures.diversity import TITLES, Row, diversity_picture, means, read_grid, varied
from gpt2.pictures.style import THEMES, drawn

pytest.importorskip("matplotlib")
LIGHT = THEMES["light"]


def rows() -> list[Row]:
    """distinct_1 is temperature + top_k / 100; one row has self-BLEU instead."""
    return [
        Row({"temperature": t, "top_k": k, "length": 50}, {"distinct_1": t + k / 100})
        for t, k in itertools.product((0.5, 1.0), (10, 20, 40))
    ] + [Row({"temperature": 0.5, "top_k": 10, "length": 50}, {"self_bleu": 0.3})]


def test_settings_with_several_values_and_their_means() -> None:
    assert varied(rows()) == {"temperature": [0.5, 1.0], "top_k": [10, 20, 40]}
    assert varied(rows()[:1]) == {"temperature": [0.5]}
    # (10 + 20 + 40) / 3 / 100 = 0.2333
    assert means(rows(), "distinct_1", "temperature")[1.0] == pytest.approx(1.23333, abs=1e-5)
    assert means(rows(), "distinct_1", "top_k")[20] == pytest.approx(0.95)
    assert means(rows(), "self_bleu", "top_k") == {10: 0.3}


def test_dots_and_lines_are_the_rows_and_their_means() -> None:
    figure = diversity_picture(rows(), LIGHT)
    temperature, top_k = figure.axes[:2]
    assert temperature.get_title(loc="left") == TITLES["distinct_1"]
    dots, line = top_k.lines
    expected = {(place, t + k / 100) for t in (0.5, 1.0) for place, k in enumerate((10, 20, 40))}
    assert set(map(tuple, dots.get_xydata().tolist())) == expected
    np.testing.assert_allclose(line.get_ydata(), [0.85, 0.95, 1.15])
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["10", "20", "40"]
    assert figure.axes[-1].get_xlabel() == "top_k"


def test_one_combination_and_one_setting_can_be_drawn() -> None:
    some = [Row({"top_k": k}, dict.fromkeys(TITLES, k)) for k in (1, 1000)]
    for grid in (some[:1], some):
        assert drawn(diversity_picture(grid, LIGHT), "png", LIGHT)


def test_the_axis_of_a_metric_that_is_0_everywhere_has_no_negative_values() -> None:
    some = [Row({"top_k": k}, {"copied_8": 0.0, "distinct_1": 0.5}) for k in (1, 10)]
    distinct, copied = diversity_picture(some, LIGHT).axes[:2]
    assert copied.get_title(loc="left") == TITLES["copied_8"]
    assert [tick for tick in copied.get_yticks() if copied.get_ylim()[0] <= tick < 0] == []
    assert distinct.get_ylim()[0] > 0


def test_undefined_metrics_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "grid.json"
    row = {"settings": {"top_k": 10, "name": "x"}, "metrics": {"distinct_1": 0.5, "copied_8": None}}
    file.write_text(json.dumps({"model": "run1", "rows": [row]}))
    assert read_grid(file) == [Row({"top_k": 10}, {"distinct_1": 0.5})]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{}", "has no rows"),
        ('{"rows": []}', "has no rows"),
        ('{"rows": [{"settings": {}, "metrics": {"distinct_1": NaN}}]}', "has no rows"),
        ('{"rows": [1]}', "not the results of a grid"),
        ('{"rows": 1}', "not the results of a grid"),
        ('{"rows": [{"settings": [], "metrics": {}}]}', "not the results of a grid"),
        ("[]", "JSON object"),
        ("{", "not valid JSON"),
    ],
)
def test_other_files_are_an_error(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "grid.json"
    file.write_text(content)
    with pytest.raises(UserError, match=sentence):
        read_grid(file)


def test_many_rows_are_grouped_in_one_pass_and_have_few_labels() -> None:
    class Counted(dict):
        reads = 0

        def __getitem__(self, name: str) -> float:
            Counted.reads += 1
            return super().__getitem__(name)

    some = [Row(Counted(top_k=k), Counted(distinct_1=1 / (k + 1))) for k in range(3000)]
    axes = diversity_picture(some, LIGHT).axes[0]
    assert Counted.reads <= 8 * len(some)  # was more than one for each pair of rows
    assert [text.get_text() for text in axes.get_xticklabels()][:2] == ["0", "250"]
    assert len(axes.get_xticks()) == 12


@pytest.mark.parametrize("value", ["1e308", "-1e400", "NaN", "true", "1" + "0" * 400])
def test_values_that_cannot_be_plotted_are_left_out(tmp_path: Path, value: str) -> None:
    file = tmp_path / "grid.json"
    settings = f'{{"top_k": 1, "top_p": {value}}}'
    metrics = f'{{"distinct_1": 0.5, "length": {value}}}'
    file.write_text(f'{{"rows": [{{"settings": {settings}, "metrics": {metrics}}}]}}')
    assert read_grid(file) == [Row({"top_k": 1}, {"distinct_1": 0.5})]


def test_a_grid_of_too_many_settings_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "grid.json"
    varied_rows = [
        {"settings": {f"s{n}": k for n in range(13)}, "metrics": {"length": 1}} for k in (1, 2)
    ]
    file.write_text(json.dumps({"rows": varied_rows}))
    with pytest.raises(UserError, match=r"grid\.json varies 13 settings; at most 12"):
        read_grid(file)
