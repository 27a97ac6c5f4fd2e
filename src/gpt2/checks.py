"""Settings that check themselves, and the checks of single values behind them.

A setting is declared once, as a field of a dataclass: its type, its default, what it means and
what it may be. The commands make flags of these fields, the docs their tables, and `check_fields`
holds the values to the declaration, whoever gives them.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
import types
import typing
from collections.abc import Sequence
from typing import Any

from gpt2.errors import UserError, quoted

_KEY = "setting"
LARGEST_COUNT = 2**53  # beyond it a float no longer holds every whole number
LARGEST_NUMBER = 3.4e38  # of float32, in which the computation is done


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a field of settings means and what it may be.

    Attributes:
        help: a noun phrase or an imperative; the unit or range in parentheses.
        metavar: what stands for the value in a usage line.
        choices: the only values there are.
        low, high: the least and the largest number.
        above, below: bounds that the number itself must not reach.
        aliases: other names of the flag.
        positional: whether the command line takes the value without the name of a flag.
        many: whether the flag takes several values.
        flag: the flag's name where it is not the field's.
    """

    help: str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    aliases: tuple[str, ...] = ()
    positional: bool = False
    many: bool = False
    flag: str | None = None

    @property
    def range(self) -> str:
        """The range in words, such as "from 0 to 1"; empty without bounds."""
        low = None if self.low is None else f"at least {self.low:g}"
        low = low if self.above is None else f"above {self.above:g}"
        high = None if self.high is None else f"at most {self.high:g}"
        high = high if self.below is None else f"below {self.below:g}"
        if self.low is not None and self.high is not None:
            return f"from {self.low:g} to {self.high:g}"
        return " and ".join(filter(None, (low, high)))


def setting(default: Any = dataclasses.MISSING, help: str = "", **options: Any) -> Any:
    """Return a dataclass field that is a setting.

    Args:
        default: the field's default; a callable makes a new one each time; left out, the setting
            is required.
        help, options: see `Setting`.

    Example:
        >>> top_p: float = setting(1.0, "nucleus sampling probability", low=0, high=1)
    """
    metadata = {_KEY: Setting(help, **options)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def setting_of(field: dataclasses.Field) -> Setting | None:
    """Return what a dataclass field declares, None if it is not a setting."""
    return field.metadata.get(_KEY)


@functools.cache
def field_types(settings: type) -> dict[str, tuple[Any, bool]]:
    """Return the type of each field, and whether it may be None instead.

    Example:
        >>> field_types(LoopSettings)["max_steps"]
        (<class 'int'>, True)
    """
    found = {}
    for name, hint in typing.get_type_hints(settings).items():
        parts = typing.get_args(hint)
        is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
        if is_union and type(None) in parts:
            (inner,) = (part for part in parts if part is not type(None))
            found[name] = (inner, True)
        else:
            found[name] = (hint, False)
    return found


def check_fields(settings: Any) -> None:
    """Check every field of a dataclass of settings against its declaration.

    Call it first in `__post_init__`; checks that concern several fields follow it.

    Raises:
        UserError: a value has another type, or is out of range; the setting, the value and what
            is allowed are named.
    """
    kinds = field_types(type(settings))
    for field in dataclasses.fields(settings):
        declared = setting_of(field)
        value = getattr(settings, field.name)
        kind, optional = kinds[field.name]
        if declared is not None and not (value is None and optional):
            check_value(declared.flag or field.name, value, kind, declared)


def check_value(name: str, value: object, kind: Any, declared: Setting) -> None:
    """Check one value; see `check_fields`."""
    if declared.choices is not None:
        if value not in declared.choices:
            raise UserError(
                f"{name} must be one of {', '.join(declared.choices)}, not {quoted(value)}."
            )
    elif kind is int:
        _check_bounds(name, value, declared, "a whole number", is_count(value))
    elif kind is float:
        _check_bounds(name, value, declared, "a number", is_finite(value))
    elif kind is str and not isinstance(value, str):
        raise UserError(f"{name} must be text, not {quoted(value)}.")
    elif kind is bool and not isinstance(value, bool):
        raise UserError(f"{name} must be true or false, not {quoted(value)}.")


def is_count(value: object) -> bool:
    """Return whether a value is a whole number that can be computed with, and no boolean."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_whole and abs(int(value)) <= LARGEST_COUNT


def is_finite(value: object) -> bool:
    """Return whether a value is a number that float32 can hold, and no boolean."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    return abs(value) <= LARGEST_NUMBER  # false for NaN, too


def _check_bounds(name: str, value: Any, declared: Setting, what: str, is_number: bool) -> None:
    inside = is_number and (
        (declared.low is None or value >= declared.low)
        and (declared.high is None or value <= declared.high)
        and (declared.above is None or value > declared.above)
        and (declared.below is None or value < declared.below)
    )
    if not inside:
        bounds = f" {declared.range}" if declared.range else ""
        raise UserError(f"{name} must be {what}{bounds}, not {quoted(value)}.")


def check_number(name: str, value: object, low: float | None, high: float | None) -> None:
    """Check a number against its bounds, either of which may be missing.

    Raises:
        UserError: it is not a finite number between them.
    """
    check_value(name, value, float, Setting("", low=low, high=high))


def check_count(name: str, value: object, least: int) -> None:
    """Check a number of things against the least there can be.

    Raises:
        UserError: it is not a whole number of at least `least`.
    """
    check_value(name, value, int, Setting("", low=least))


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check a value against the only ones there are.

    Raises:
        UserError: it is another one.
    """
    check_value(name, value, str, Setting("", choices=tuple(choices)))
