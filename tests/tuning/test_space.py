"""The search space: lists and ranges as they are typed."""

from __future__ import annotations

import optuna
import pytest

from gpt2.tuning.space import Dimension, describe_difference, fixed, parse_dimension


@pytest.mark.parametrize(
    ("text", "kind", "values", "is_range", "is_log"),
    [
        ("3", int, (3,), False, False),
        ("1,2,4", int, (1, 2, 4), False, False),
        ("1..8", int, (1, 8), True, False),
        ("2..64", int, (2, 64), True, True),
        ("0..0.2", float, (0.0, 0.2), True, False),
        ("1e-5..1e-3", float, (1e-5, 1e-3), True, True),
        ("-1..100", float, (-1.0, 100.0), True, False),
    ],
)
def test_a_text_is_a_value_a_list_or_a_range(
    text: str, kind: type, values: tuple, is_range: bool, is_log: bool
) -> None:
    found = parse_dimension(text, kind)
    assert (found.values, found.is_range, found.is_log) == (values, is_range, is_log)
    assert parse_dimension(str(found), kind) == found


@pytest.mark.parametrize(
    "text",
    ["", ",", "1,", "1,,2", "1,1", "..", "1..", "..1", "2..1", "1..1", "1..2..3", "a", "1-2",
     "nan..1", "1..nan", "1 2", "1..2,3"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [int, float])
def test_a_malformed_text_is_refused(text: str, kind: type) -> None:
    with pytest.raises((ValueError, OverflowError)):
        parse_dimension(text, kind)


def test_values_lie_in_the_dimension_and_have_its_type() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    space = {
        "rate": parse_dimension("1e-5..1e-3", float),
        "rank": parse_dimension("2..64", int),
        "size": parse_dimension("1,2,4", int),
        "steps": fixed(20),
    }
    drawn = []
    for _ in range(50):
        trial = study.ask()
        drawn.append({name: each.suggest(trial, name) for name, each in space.items()})
        assert set(trial.params) == {"rate", "rank", "size"}
    assert all(1e-5 <= each["rate"] <= 1e-3 and 2 <= each["rank"] <= 64 for each in drawn)
    assert {each["size"] for each in drawn} == {1, 2, 4}
    assert {type(each["rank"]) for each in drawn} == {int}
    # On a log scale about half of the values are below the geometric mean, not a tenth.
    assert 10 < sum(each["rate"] < 1e-4 for each in drawn) < 40


def test_the_first_difference_of_two_descriptions_is_named() -> None:
    ours, theirs = {"dropout": "0..0.2", "seed": "1"}, {"dropout": "0..0.5", "seed": "1"}
    assert describe_difference(ours, ours) is None
    assert describe_difference(ours, theirs) == "--dropout 0..0.5, not 0..0.2"
    assert describe_difference({}, {"seed": "1"}) == "--seed 1, not (not given)"


def test_one_value_is_not_searched() -> None:
    assert not fixed(None).is_searched
    assert Dimension((1, 2)).is_searched
