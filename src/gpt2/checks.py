"""Declaration of settings and checks of their values.

A setting is declared once, as a field of a dataclass with type, default, help and range. Flags and
docs are generated from these fields, and `check_fields` checks values from any source against them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import struct
import types
import typing
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from gpt2.errors import UserError, quoted

_KEY = "setting"
LARGEST_COUNT = 2**53  # a float64 holds every whole number up to here
LARGEST_NUMBER = 3.4e38  # about the maximum of float32
SMALLEST_NUMBER = 2.0**-126  # of float32; TensorFlow takes smaller ones for 0


@dataclasses.dataclass(frozen=True)
class Setting:
    """Help text, range and command-line form of a settings field.

    Attributes:
        help: a noun phrase or an imperative; the unit or range in parentheses.
        metavar: placeholder for the value in a usage line.
        choices: the allowed values.
        low, high: inclusive bounds.
        above, below: exclusive bounds.
        aliases: other names of the flag.
        positional: whether it is a positional argument.
        many: whether the flag takes several values.
        flag: the flag's name if it differs from the field's.
        bare: what the flag means without a value; None if it needs one.
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
    bare: str | None = None

    @property
    def range(self) -> str:
        """The range in words, such as "from 0 to 1", or an empty string without bounds."""
        low = None if self.low is None else f"at least {_number(self.low)}"
        low = low if self.above is None else f"above {_number(self.above)}"
        high = None if self.high in (None, math.inf) else f"at most {_number(self.high)}"
        high = high if self.below is None else f"below {_number(self.below)}"
        if self.low is not None and self.high not in (None, math.inf):
            return f"from {_number(self.low)} to {_number(self.high)}"
        return " and ".join(filter(None, (low, high)))


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def setting(default: Any = dataclasses.MISSING, help: str = "", **options: Any) -> Any:
    """Return a dataclass field that is a setting.

    Args:
        default: the field's default, or a factory of it; without one the setting is required.
        help, options: see `Setting`.

    Example:
        >>> top_p: float = setting(1.0, "nucleus sampling probability", low=0, high=1)
    """
    metadata = {_KEY: Setting(help, **options)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def setting_of(field: dataclasses.Field) -> Setting | None:
    """Return the declaration of a dataclass field, or None if it is not a setting."""
    return field.metadata.get(_KEY)


@functools.cache
def field_types(settings: type) -> dict[str, tuple[Any, bool]]:
    """Return the type of each field without None, and whether None is allowed.

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
    """Check every field of a settings dataclass against its declaration.

    Call it first in `__post_init__`, before checks that concern several fields.

    Raises:
        UserError: a value has the wrong type or is out of range; the message names the setting,
            the value and the allowed values.
    """
    kinds = field_types(settings.__class__)
    for field in dataclasses.fields(settings):
        declared = setting_of(field)
        value = getattr(settings, field.name)
        kind, optional = kinds[field.name]
        if not (value is None and optional):
            declared = declared or Setting("")
            check_value(declared.flag or field.name, value, kind, declared)


def settings_from(settings: type, values: Mapping[str, Any], **others: Any) -> Any:
    """Return settings made of the values of the same names.

    Args:
        settings: their dataclass.
        values: by name; names that the settings do not have are ignored.
        others: fields that are not among the values, or have another value there.

    Raises:
        UserError: see the settings.
    """
    names = {field.name for field in dataclasses.fields(settings) if field.init} - others.keys()
    return settings(**{name: values[name] for name in names & values.keys()}, **others)


def check_value(name: str, value: object, kind: Any, declared: Setting) -> None:
    """Check one value; see `check_fields`."""
    if declared.choices is not None:
        if not isinstance(value, str) or value not in declared.choices:
            raise UserError(
                f"{name} must be one of {', '.join(declared.choices)}, not {quoted(value)}."
            )
    elif kind is int:
        limit = math.inf if declared.high == math.inf else LARGEST_COUNT
        _check_bounds(name, value, declared, "a whole number", is_count(value, limit), limit)
    elif kind is float:
        _check_bounds(name, value, declared, "a number", is_finite(value), LARGEST_NUMBER)
        _check_rounded(name, value, declared)
    elif not _has_type(value, kind):
        raise UserError(f"{name} must be {_type_in_words(kind)}, not {quoted(value)}.")


def _has_type(value: object, kind: Any) -> bool:
    """Return whether a value has the type of a field; a list may stand for a tuple."""
    parts, origin = typing.get_args(kind), typing.get_origin(kind)
    if kind is int:
        return is_count(value)
    if kind is float:
        return is_finite(value)
    if origin is tuple:
        return isinstance(value, tuple | list) and all(_has_type(item, parts[0]) for item in value)
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and all(
            _has_type(key, parts[0]) and _has_type(item, parts[1]) for key, item in value.items()
        )
    return isinstance(value, kind)


def _type_in_words(kind: Any) -> str:
    parts, origin = typing.get_args(kind), typing.get_origin(kind)
    if origin is tuple:
        return f"a list of {_plural(parts[0])}"
    if origin in (Mapping, dict):
        return f"a dictionary of {_plural(parts[0])} and {_plural(parts[1])}"
    return {str: "text", bool: "true or false"}.get(kind, f"of type {kind.__name__}")


def _plural(kind: Any) -> str:
    words = {int: "whole numbers", float: "numbers", str: "strings"}
    return words.get(kind) or _type_in_words(kind).replace("a list", "lists")


def plain(value: Any) -> Any:
    """Return a value whose numbers, perhaps NumPy's or fractions, are of the types that JSON knows.

    Example:
        >>> plain({np.int64(198): np.float32(-5)})
        {198: -5.0}
    """
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if isinstance(value, Fraction) and is_finite(value):
        return float(value)
    is_scalar = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if is_scalar else value


def is_count(value: Any, limit: float = LARGEST_COUNT) -> bool:
    """Return whether a value is a whole number of at most `limit`, and not a boolean."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_whole and abs(int(value)) <= limit


def is_finite(value: object) -> bool:
    """Return whether a value is a number that float32 can hold, and not a boolean."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return abs(float(value)) <= LARGEST_NUMBER  # false for NaN, too
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _check_bounds(
    name: str, value: Any, declared: Setting, what: str, is_number: bool, limit: float
) -> None:
    inside = is_number and (
        (declared.low is None or value >= declared.low)
        and (declared.high is None or value <= declared.high)
        and (declared.above is None or value > declared.above)
        and (declared.below is None or value < declared.below)
    )
    if not inside:
        if declared.high is None and declared.below is None and _exceeds(value, limit):
            declared = dataclasses.replace(declared, high=limit)
        bounds = f" {declared.range}" if declared.range else ""
        raise UserError(f"{name} must be {what}{bounds}, not {quoted(value)}.")


def _check_rounded(name: str, value: Any, declared: Setting) -> None:
    """Check that a number is also inside its exclusive bounds in float32, which models use."""
    rounded = struct.unpack("f", struct.pack("f", float(value)))[0]
    rounded = rounded if abs(rounded) >= SMALLEST_NUMBER else 0.0
    if rounded in (declared.above, declared.below):
        raise UserError(
            f"{name} must be a number {declared.range} in float32, which rounds {quoted(value)} to "
            f"{rounded:g}."
        )


def _exceeds(value: Any, limit: float) -> bool:
    """Return whether a value is a number above the limit of all settings."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > limit


def check_number(name: str, value: object, low: float | None, high: float | None) -> None:
    """Check a number against inclusive bounds; None means unbounded.

    Raises:
        UserError: it is not a finite number within the bounds.
    """
    check_value(name, value, float, Setting("", low=low, high=high))


def check_count(name: str, value: object, least: int, most: int | None = None) -> None:
    """Check a whole number against its inclusive bounds; None means unbounded.

    Raises:
        UserError: it is not a whole number within the bounds.
    """
    check_value(name, value, int, Setting("", low=least, high=most))


def check_type(name: str, value: object, kind: Any) -> None:
    """Check the type of an argument.

    Args:
        kind: as in an annotation: a class, `tuple[str, ...]` or `Mapping[int, float]`.

    Raises:
        UserError: it has another type.
    """
    check_value(name, value, kind, Setting(""))


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that a value is one of the allowed ones.

    Raises:
        UserError: it is not.
    """
    check_value(name, value, str, Setting("", choices=tuple(choices)))
