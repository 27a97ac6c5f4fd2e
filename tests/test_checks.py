"""Settings are held to their declared type and range, and the message names both."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from gpt2 import checks
from gpt2.checks import Setting, check_fields, check_value, setting
from gpt2.errors import UserError


@dataclasses.dataclass(frozen=True)
class Example:
    """A setting of each kind."""

    count: int = setting(1, "things (1 to 8)", low=1, high=8)
    share: float = setting(0.5, "share", low=0, below=1)
    rate: float = setting(0.1, "rate", above=0)
    free: float = setting(0.0, "any number")
    limit: int | None = setting(None, "limit", low=1)
    name: str = setting("a", "name")
    switch: bool = setting(False, "switch")
    kind: str = setting("one", "kind", choices=("one", "two"))
    threads: int = setting(2, "threads", low=0, flag="workers")
    stops: tuple[str, ...] = setting((), "stop sequences")
    weights: dict[int, float] = setting(dict, "weights")
    plain: int = 3  # not a setting, but checked too

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"count": 8, "share": 0, "rate": 1e-30, "free": -3e38},
        {
            "count": np.int64(3),
            "share": np.float32(0.25),
            "rate": np.float64(2),
            "limit": np.int8(5),
        },
        {"limit": None},
        {"limit": 2**53},
        {"kind": "two", "switch": True, "name": ""},
    ],
)
def test_values_in_range_are_accepted(values: dict) -> None:
    for name, value in values.items():
        assert getattr(Example(**values), name) is value


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"count": 0}, "count .*whole number from 1 to 8, not 0"),
        ({"count": 9}, "count .*from 1 to 8, not 9"),
        ({"count": 2.0}, "count .*whole number"),
        ({"count": True}, "count .*whole number.*not True"),
        ({"count": "3"}, "count .*not '3'"),
        ({"count": None}, "count .*not None"),
        ({"count": math.nan}, "count .*not nan"),
        ({"count": 10**400}, r"count .*not 1000+\.\.\."),
        ({"count": 10**5000}, "count .*thousands of digits"),
        ({"count": np.bool_(True)}, "count"),
        ({"count": np.float64(2)}, "count"),
        ({"limit": 0}, "limit .*at least 1, not 0"),
        ({"limit": 2**53 + 1}, "limit .*not 9007199254740993"),
        ({"limit": -(10**400)}, "limit"),
        ({"share": 1.0}, "share .*at least 0 and below 1, not 1.0"),
        ({"share": -0.1}, "share .*not -0.1"),
        ({"share": math.nan}, "share .*not nan"),
        ({"share": np.float32("nan")}, "share .*nan"),
        ({"share": math.inf}, "share .*not inf"),
        ({"share": False}, "share .*not False"),
        ({"share": 1j}, "share"),
        ({"rate": 0}, "rate .*above 0, not 0"),
        ({"rate": 10**400}, "rate .*above 0"),
        ({"rate": 1e39}, "rate"),
        ({"free": -math.inf}, "free .*number, not -inf"),
        ({"free": "1"}, "free .*number, not '1'"),
        ({"name": 3}, "name .*not 3"),
        ({"name": None}, "name .*not None"),
        ({"switch": 1}, "switch .*true or false, not 1"),
        ({"switch": None}, "switch .*not None"),
        ({"kind": "three"}, "kind .*one, two, not 'three'"),
        ({"kind": None}, "kind .*not None"),
        ({"kind": ["one"]}, "kind"),
        ({"threads": -1}, "workers .*at least 0, not -1"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_named(values: dict, facts: str) -> None:
    with pytest.raises(UserError, match=facts):
        Example(**values)


def test_long_values_are_shortened() -> None:
    with pytest.raises(UserError) as raised:
        Example(name=["x"] * 10**5)  # type: ignore[arg-type]
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (Setting(""), ""),
        (Setting("", low=0), "at least 0"),
        (Setting("", high=1.5), "at most 1.5"),
        (Setting("", low=0, high=1), "from 0 to 1"),
        (Setting("", low=1, high=2**20), "from 1 to 1,048,576"),
        (Setting("", above=0), "above 0"),
        (Setting("", above=0, high=2), "above 0 and at most 2"),
        (Setting("", low=0, below=1), "at least 0 and below 1"),
    ],
)
def test_ranges_in_words(declared: Setting, words: str) -> None:
    assert declared.range == words


def test_types_come_without_none() -> None:
    kinds = checks.field_types(Example)
    assert kinds["limit"] == (int, True)
    assert kinds["count"] == (int, False)
    assert kinds["stops"] == (tuple[str, ...], False)


def test_a_factory_makes_a_default_of_its_own_for_each() -> None:
    assert Example().weights == {}
    assert Example().weights is not Example().weights


def test_single_values_are_checked_alike() -> None:
    checks.check_number("x", 1, None, None)
    checks.check_number("x", np.float16(0.5), 0, 1)
    checks.check_count("n", 0, least=0)
    checks.check_choice("kind", "a", ["a", "b"])
    for check in (
        lambda: checks.check_number("x", math.nan, None, None),
        lambda: checks.check_number("x", 2, 0, 1),
        lambda: checks.check_count("x", 0, least=1),
        lambda: checks.check_count("x", 1.0, least=1),
        lambda: checks.check_choice("x", "c", ["a", "b"]),
    ):
        with pytest.raises(UserError, match=r"^x must be"):
            check()


@pytest.mark.parametrize("value", [1e39, math.inf, 10**400, -1e39, math.nan])
def test_the_range_of_a_number_without_a_bound_is_named(value: float) -> None:
    for declared, low in ((Setting("", low=0), "from 0 to"), (Setting("", above=0), "above 0")):
        with pytest.raises(UserError) as raised:
            check_value("--x", value, float, declared)
        if value > 0:
            assert low in str(raised.value) and "3.4e+38" in str(raised.value)
    with pytest.raises(UserError) as raised:
        check_value("--x", value, float, Setting(""))
    assert ("at most 3.4e+38" in str(raised.value)) == (value > 0)


def test_the_range_of_a_whole_number_without_a_bound_is_named() -> None:
    with pytest.raises(UserError, match="from 1 to 9,007,199,254,740,992, not"):
        check_value("--x", 10**400, int, Setting("", low=1))
    with pytest.raises(UserError, match="a whole number at least 0, not -1"):
        check_value("--x", -1, int, Setting("", low=0, high=math.inf))


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        ({"rate": 1e-46}, "rate must be a number above 0 in float32, which rounds 1e-46 to 0"),
        ({"rate": 1e-39}, "above 0 in float32"),  # TensorFlow flushes subnormal numbers
        ({"rate": Fraction(1, 10**60)}, "above 0 in float32"),
        ({"rate": 10**-300}, "above 0 in float32"),
        ({"share": 1 - 1e-12}, "share must be .* below 1 in float32, which rounds .* to 1"),
        ({"share": np.nextafter(1, 0)}, "below 1 in float32"),
    ],
)
def test_a_bound_that_float32_rounds_a_number_to_excludes_it(values: dict, fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        Example(**values)


def test_numbers_of_other_types_become_those_of_python() -> None:
    given = {
        np.int64(1): np.float32(0.5),
        "list": [np.bool_(True), (np.uint8(3), np.array(4))],
        "fraction": Fraction(1, 4),
        "text": np.str_("a"),
        "array": [1.5, None, "b"],
    }
    expected = {1: 0.5, "list": [True, (3, 4)], "fraction": 0.25, "text": "a"}
    plain = checks.plain(given)
    assert plain == expected | {"array": [1.5, None, "b"]}
    assert json.loads(json.dumps(plain))["list"] == [True, [3, 4]]
    whole = np.arange(3)
    assert checks.plain(whole) is whole
