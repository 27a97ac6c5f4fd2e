"""Keyword options of the functions: the fields of the settings that they fill."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Any

from gpt2.checks import check_type, plain, setting_of
from gpt2.errors import UserError, quoted


def options_of(*settings: type, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the declared fields of settings dataclasses and their defaults.

    Args:
        without: names of fields that are no options.
    """
    return {
        field.name: field.default
        for each in settings
        for field in dataclasses.fields(each)
        if setting_of(field) is not None
        and field.default is not dataclasses.MISSING
        and field.name not in without
    }


def with_defaults(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as Python's types, and the others at their defaults.

    Raises:
        UserError: an option does not exist.
    """
    for name in options:
        if name not in known:
            raise UserError(f"unknown option {name!r}. Available: {', '.join(known)}.")
    return {**known, **plain(options)}


def text_of(name: str, path: object) -> str:
    """Return a path as text.

    Raises:
        UserError: it is neither text nor a `pathlib.Path`, or it is empty.
    """
    found = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(found, str) or not found:
        raise UserError(f"{name} must be a path or a name, not {quoted(path)}.")
    # A folder keeps its slash, which pathlib removes, only if it was given as text.
    return found


def optional_text_of(name: str, path: object) -> str | None:
    """Return a path as text, or None; raises as `text_of` does."""
    return None if path is None else text_of(name, path)


def check_switch(name: str, value: object) -> None:
    """Check that a value is true or false; raises `UserError`."""
    check_type(name, value, bool)
